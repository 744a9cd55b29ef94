"""Joules that cancelled requests left unused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from server.accounts import EnergyPrice
from server.energy.books import EngineLabels
from server.units import Microjoules
from server.wire import NO_ADAPTER, RequestRecord

__all__ = ["Savings"]


class Savings:
    """Counts up from the first cancellation that a price was known for; before it nothing is known, not 0."""

    def __init__(self) -> None:
        self._saved: Counter[EngineLabels] = Counter()

    def take(self, records: Iterable[RequestRecord], prices: Mapping[str, EnergyPrice]) -> None:
        """Price the tokens that were not written, as of now; what never reached an engine has no price."""
        for record in records:
            if record.tokens_spared is None or record.engine is None:
                continue
            price = prices.get(record.engine)
            if price is not None and price.output_token is not None:
                names = (record.engine, record.model, record.variant, record.precision)
                engine, model, variant, precision = (name or NO_ADAPTER for name in names)
                self._saved[engine, model, variant, precision] += round(record.tokens_spared * price.output_token)

    def totals(self) -> Mapping[EngineLabels, Microjoules]:
        """By engine."""
        return {engine: Microjoules(amount) for engine, amount in self._saved.items()}
