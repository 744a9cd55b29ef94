"""Attribution: which request, engine, account gets which joule.

To add a method: one file with a class that keeps `Attribution`'s contract, one line in `ATTRIBUTIONS`.
"""

from collections.abc import Callable, Mapping
from typing import Final

from server.accounts import Account
from server.energy.attribution.attribution import (
    Attribution,
    EngineUse,
    RequestUses,
    Share,
    Shares,
    TokenEvents,
    Window,
)
from server.energy.attribution.automatic import Automatic
from server.energy.attribution.counter_price import CounterPrice
from server.energy.attribution.five_term import FiveTerm
from server.energy.attribution.phase_time import PhaseTime
from server.energy.attribution.token_share import TokenShare

__all__ = [
    "ATTRIBUTIONS",
    "Account",
    "Attribution",
    "EngineUse",
    "RequestUses",
    "Share",
    "Shares",
    "TokenEvents",
    "Window",
]

ATTRIBUTIONS: Final[Mapping[str, Callable[[], Attribution]]] = {
    Automatic.name: Automatic,
    PhaseTime.method: PhaseTime,
    FiveTerm.method: FiveTerm,
    CounterPrice.method: CounterPrice,
    TokenShare.method: TokenShare,
}
