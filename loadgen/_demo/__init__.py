"""`make demo`: engines of every variant, one load after another, one table.

_main.py       the steps in their order, the exit status
_config.py     what the demo's configuration file says; free ports
_cpu.py        whether int4 can be served here; else fp16 takes its place
_variants.py   int8 and int4, made of the demo model where they are missing
_gateway.py    `wattgate up` as a child process; waits for engines and adapters
_load.py       one configuration under load, by a Locust process
_results.py    the table, the verdict, results.json and results.md
_processes.py  child processes that never outlive the demo; Ctrl-C
_board.py      progress, in a terminal or in a log
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run the demo; see `_main.main` for the exit status."""
    from loadgen._demo._main import main as run  # noqa: PLC0415 - `python -m` must take signals before this is loaded

    return run(argv)
