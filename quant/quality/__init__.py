"""What a variant loses against its reference, with intervals.

    counts.py        what is added up over a window of text, and the figures that follow from the sums
    bootstrap.py     the interval of a figure, by drawing windows again
    offline.py       the sums of a checkpoint beside its reference, with torch
    through_engine.py  the same of two running engines, from the probabilities that they tell
    scores.py        sums → scores as they stand in quality.json
    store.py         quality.json beside a checkpoint: read, refused, merged, written
    lm_eval.py       task scores from a results file of lm-evaluation-harness
    weights_hash.py  which weights a score is true of

Only offline.py needs torch.
"""

from __future__ import annotations

__all__: list[str] = []
