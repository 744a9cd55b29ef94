"""The verbs of `python -m quant`: one file a verb (or a family of them), one table.

To add a verb: a file with `add(commands)` that adds a parser and sets `command`, a function of the parsed options that
returns nothing or an exit status; and a line in `COMMANDS`. Files import nothing heavy before their command runs.
"""

from __future__ import annotations

from typing import Final

from quant.commands import adapter, can_serve, evaluate, perplexity, report, rtn, run, tune

__all__ = ["COMMANDS"]

COMMANDS: Final = (run, can_serve, adapter, tune, evaluate, report, rtn, perplexity)
