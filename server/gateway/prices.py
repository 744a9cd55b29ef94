"""What a request has used, provisionally: its tokens at the last prices."""

from __future__ import annotations

from functools import partial
from math import floor, inf, log10
from typing import Final

import msgspec
from msgspec import Raw

from server.errors import BadRequestError
from server.gateway.grammars import Usage, UsageNote
from server.units import JOULES_PER_MICROJOULE
from server.wire import Price, Prices

__all__ = ["ENERGY_WISH", "PriceList", "check_wish"]

ENERGY_WISH: Final = b"x-wattgate-energy"
"""The request header by which a client asks for joules in the answer's usage. It is never sent on."""

_INCLUDE: Final = b"include"
_DIGITS: Final = 4
"""That are shown; no price is more exact."""
_MAX_PLACES: Final = 15
_UNKNOWN: Final = Raw(b"null")


class _Note(msgspec.Struct, frozen=True):
    """What stands in a usage object; all but `provisional` is null where nobody knows."""

    energy_joules: Raw = _UNKNOWN
    method: str | None = None
    scope: str | None = None
    provisional: bool = True
    """The final figure is the ledger's, a window later."""


_encode: Final = msgspec.json.Encoder().encode


class PriceList:
    """What tokens cost at each engine, as the control plane said last."""

    __slots__ = ("_engines",)

    def __init__(self) -> None:
        self._engines: dict[str, Price] = {}

    def replace(self, prices: Prices) -> None:
        """From now on these hold."""
        self._engines = prices.engines

    def header_line(self, engine: str, usage: Usage) -> bytes:
        """What such a request has used at this engine, as a line of an answer's head; empty: unknown."""
        price = self._engines.get(engine)
        joules = None if price is None else _joules(price, usage)
        return b"" if joules is None else b"x-wattgate-energy-joules: %b\r\n" % joules

    def note(self, engine: str, usage: Usage) -> bytes:
        """The same for a usage object, in JSON."""
        price = self._engines.get(engine)
        joules = None if price is None else _joules(price, usage)
        if price is None or joules is None:
            return _encode(_Note())
        return _encode(_Note(Raw(joules), price.method, price.scope))

    def notes(self, engine: str) -> UsageNote:
        """`note` for a stream that comes from this engine; the prices are those of the stream's end."""
        return partial(self.note, engine)


def check_wish(value: bytes) -> None:
    """Raises `BadRequestError` unless it is a value that `ENERGY_WISH` may have."""
    if value.strip().lower() != _INCLUDE:
        shown = value[:50].decode("latin-1")
        raise BadRequestError(
            f"`X-Wattgate-Energy: {shown}` asks for nothing that is known here; send `include`, or leave it out."
        )


def _joules(price: Price, usage: Usage) -> bytes | None:
    """A decimal number; None if a count or a price that it needs is not known."""
    prompt, output = usage.prompt_tokens, usage.completion_tokens
    if prompt is None or output is None:
        return None
    computed = prompt - (usage.cached_tokens or 0)  # engines that found nothing cached may say nothing of it
    microjoules = 0.0
    if computed > 0:
        if price.prompt_token is None:
            return None
        microjoules = computed * price.prompt_token
    if output:
        if price.output_token is None:
            return None
        microjoules += output * price.output_token
    return _decimal(microjoules * JOULES_PER_MICROJOULE)


def _decimal(joules: float) -> bytes | None:
    """Without an exponent, in few digits; None if an engine counts, or a price is, what cannot be."""
    if not 0.0 <= joules < inf:
        return None
    places = _DIGITS - 1 - floor(log10(joules)) if joules else 0
    return b"%.*f" % (min(max(0, places), _MAX_PLACES), joules)
