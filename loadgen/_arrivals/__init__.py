"""When requests are sent in open loop: one file per arrival process, and this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from loadgen._arrivals._constant import Constant
from loadgen._arrivals._gamma import Gamma
from loadgen._arrivals._on_off import OnOff
from loadgen._arrivals._options import Option, options_of, parse_options
from loadgen._arrivals._poisson import Poisson
from loadgen._arrivals._process import MAX_ARRIVALS, ArrivalProcess, Times
from loadgen._arrivals._ramp import Ramp
from loadgen._arrivals._sinus import Sinus
from loadgen._arrivals._spike import Spike
from loadgen._arrivals._step import Step
from loadgen._arrivals._trace import Trace
from loadgen._arrivals._weibull import Weibull
from loadgen._errors import LoadError

__all__ = ["ARRIVALS", "MAX_ARRIVALS", "TRACE", "ArrivalProcess", "Option", "Times", "arrival_process", "options_of"]

TRACE: Final = "trace"
"""The one process whose times come from the workload, and which needs no rate."""

ARRIVALS: Final[Mapping[str, type[Any]]] = {
    "constant": Constant,
    "poisson": Poisson,
    "gamma": Gamma,
    "weibull": Weibull,
    "on-off": OnOff,
    "ramp": Ramp,
    "step": Step,
    "spike": Spike,
    "sinus": Sinus,
    TRACE: Trace,
}
"""What `--arrivals` may name: dataclasses that are an `ArrivalProcess`."""


def arrival_process(name: str, options: str, *, times_s: Times | None = None) -> ArrivalProcess:
    """The process `name` with `--arrivals-options`; `times_s` are those of a trace file.

    Raises `LoadError` naming the option that is wrong.
    """
    kind = ARRIVALS.get(name)
    if kind is None:
        raise LoadError(f"--arrivals {name!r} is none of {', '.join(ARRIVALS)}.")
    values = parse_options(name, kind, options)
    process: ArrivalProcess = (
        kind(**values, times_s=times_s) if name == TRACE and times_s is not None else kind(**values)
    )
    return process
