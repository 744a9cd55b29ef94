"""When requests are sent in open loop: one file per arrival process, and this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from loadgen._arrivals._constant import Constant
from loadgen._arrivals._poisson import Poisson
from loadgen._arrivals._process import MAX_ARRIVALS, ArrivalProcess, Times

__all__ = ["ARRIVALS", "MAX_ARRIVALS", "ArrivalProcess", "Times"]

ARRIVALS: Final[Mapping[str, ArrivalProcess]] = {
    "constant": Constant(),
    "poisson": Poisson(),
}
"""What `--arrivals` may name."""
