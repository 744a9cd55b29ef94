"""What tokens cost lately, at each engine."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np

from server.accounts import EnergyPrice
from server.energy.attribution import Shares, Window
from server.energy.uses import PROMPT_TOKEN_MILLITOKENS
from server.units import Seconds

__all__ = ["PriceBook"]

_LATELY: Final = Seconds(60.0)
_TOKEN: Final = 1000
"""In millitokens."""


class _Sale(NamedTuple):
    """What an engine's requests used in one window."""

    device: str
    scope: str
    engine: str
    end: Seconds
    prefill: int
    decode: int
    prompt_millitokens: int
    output_millitokens: int
    method: str
    confidence: float


class PriceBook:
    """The windows of the last minute. Prices are averages: joules over tokens, added up over an engine's devices."""

    def __init__(self) -> None:
        self._sales: deque[_Sale] = deque()

    def add(self, window: Window, shares: Shares) -> None:
        """Note what each engine's requests used in a closed window."""
        requests = window.requests
        sums = np.zeros((len(window.engines), 4), np.int64)
        output = requests.millitokens - requests.prompt_millitokens
        for column, amount in enumerate((shares.prefill, shares.decode, requests.prompt_millitokens, output)):
            np.add.at(sums[:, column], requests.engine, amount)
        for use, (prefill, decode, prompt, written) in zip(window.engines, sums.tolist(), strict=True):
            if prefill or decode:
                self._sales.append(
                    _Sale(
                        device=window.device,
                        scope=window.scope,
                        engine=use.engine,
                        end=window.end,
                        prefill=prefill,
                        decode=decode,
                        prompt_millitokens=prompt,
                        output_millitokens=written,
                        method=shares.method,
                        confidence=shares.confidence,
                    )
                )

    def prices(self, now: Seconds, lag: Seconds, marginal: Callable[[str], float | None]) -> Mapping[str, EnergyPrice]:
        """By engine, from the windows of the last minute, which may close up to `lag` late.

        `marginal`: by engine, µJ that one more stream adds for each of its tokens.
        """
        while self._sales and self._sales[0].end < now - _LATELY - lag:
            self._sales.popleft()
        newest = max((sale.end for sale in self._sales), default=now)
        by_engine: defaultdict[str, list[_Sale]] = defaultdict(list)
        for sale in self._sales:
            if sale.end > newest - _LATELY:
                by_engine[sale.engine].append(sale)
        return {engine: _price(sales, marginal(engine)) for engine, sales in by_engine.items()}


def _price(sales: list[_Sale], marginal: float | None) -> EnergyPrice:
    by_device: defaultdict[str, list[_Sale]] = defaultdict(list)
    for sale in sales:
        by_device[sale.device].append(sale)
    least = min(sales, key=lambda sale: sale.confidence)
    return EnergyPrice(
        prompt_token=_total([_prompt_token(some) for some in by_device.values()]),
        output_token=_total([_output_token(some) for some in by_device.values()]),
        marginal_output_token=marginal,
        scope="+".join(sorted({sale.scope for sale in sales})),
        method=least.method,
        confidence=least.confidence,
    )


def _prompt_token(sales: list[_Sale]) -> float | None:
    return _ratio(
        sum(sale.prefill for sale in sales),
        sum(sale.prompt_millitokens for sale in sales) / PROMPT_TOKEN_MILLITOKENS,
    )


def _output_token(sales: list[_Sale]) -> float | None:
    return _ratio(sum(sale.decode for sale in sales), sum(sale.output_millitokens for sale in sales) / _TOKEN)


def _ratio(energy: int, tokens: float) -> float | None:
    return energy / tokens if energy and tokens else None


def _total(prices: list[float | None]) -> float | None:
    known = [price for price in prices if price is not None]
    return sum(known) if known and len(known) == len(prices) else None
