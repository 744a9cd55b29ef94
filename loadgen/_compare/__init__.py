"""`wattgate compare PLAN.yaml`: configurations under the same load, and what can be said of them.

_main.py        the steps in their order, the exit status
_document.py    YAML whose complaints name key and line      _plan.py, _plan_file.py   the plan; PLAN.yaml
_target.py      a gateway that runs, or one of its own       _derived.py    its configuration, with engine options
_design.py      levels, and blocks in random order           _campaign.py   every run: one headless Locust
_reading.py     a run's figures                              _metrics.py    which there are
_store.py       what is measured already: resume
_student.py     Student's t                                  _statistics.py paired log ratios, TOST, Holm, Stein
_analysis.py    findings, the A/A check                      _pareto.py, _ranks.py  the front; the server's view
_verdict.py     sentences                                    _tables.py     tables
_baseline.py    regression mode                              _results.py, _html.py  terminal, Markdown, JSON, HTML

To add a metric: one line in the table `METRICS` of `_metrics.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Compare; see `_main.main` for the exit status."""
    from loadgen._compare._main import main as run  # noqa: PLC0415 - `python -m` must take signals before this is loaded

    return run(argv)
