"""Plans and preparations as the command line and the server would make them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from loadgen._gateway import Prepared
from loadgen._mix import Mix
from loadgen._options import add_options
from loadgen._plan import Plan
from loadgen._prompts import Calibration

__all__ = ["options", "plan", "prepared"]


class _Parser(ArgumentParser):
    """Takes what only Locust's parser understands."""

    def add_argument(self, *names: Any, **more: Any) -> Any:
        for extra in ("include_in_web_ui", "is_secret", "env_var"):
            more.pop(extra, None)
        return super().add_argument(*names, **more)


def options(*arguments: str) -> Namespace:
    """As the command line gives them, but for Locust's own."""
    parser = _Parser()
    add_options(parser)
    return parser.parse_args(arguments)


def plan(*arguments: str, host: str | None = None, run_time: float | None = None) -> Plan:
    """What `locust -f loadgen/` makes of these options."""
    given = Namespace(**{**vars(options(*arguments)), "num_users": None, "run_time": run_time})
    return Plan.of(given, host=host, fresh_salt=lambda: "salt")


def prepared(*models: str, calibration: Calibration, context: int | None = None) -> Prepared:
    """Models that count as the calibration says; `context` tokens long, if that is known."""
    card = {} if context is None else {"max_model_len": context}
    return Prepared(
        mix=Mix(models=models, weights=(1.0,) * len(models)),
        calibrations=dict.fromkeys(models, calibration),
        cards=dict.fromkeys(models, card),
    )
