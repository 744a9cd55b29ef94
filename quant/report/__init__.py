"""Variants side by side: what each one weighs, loses, cost to make, and who can serve it.

    gather.py    folders → one `Row` each, from config, headers, quality.json and manifest.json
    serving.py   which devices can serve a checkpoint, by the rules of server/models
    losses.py    which figure stands for quality, MCR, and the Pareto front of size and loss
    view.py      the rows with one reference, one text, one axis of loss
    words.py     numbers as people read them; what is unknown is a dash
    terminal.py  two tables of at most 80 columns
    page.py      one HTML file that needs nothing else; scatter.py draws its plot, style.py holds its colours

Nothing here needs torch.
"""

from __future__ import annotations

__all__: list[str] = []
