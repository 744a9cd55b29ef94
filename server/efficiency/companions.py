"""What must stand beside the six: latencies, wall-clock speed, joules a token, the model's own facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from server.accounts import Account
from server.efficiency.figure import Better, Figure, Measure, Section, absent, known, of_engine
from server.efficiency.groups import Group
from server.efficiency.latencies import LATENCIES, QUANTILES, latency
from server.efficiency.paper import compression, relative_quality
from server.units import JOULES_PER_MICROJOULE

__all__ = ["COMPANIONS"]

_SHORT: Final = frozenset({"ttft", "itl", "e2e"})
"""Latencies of the short table."""
_CONTEXT: Final = 1024
"""Tokens of context at which FLOPs a token are stated."""


# --- speed ------------------------------------------------------------------------------------------------------------


def _tokens_per_second(group: Group) -> Figure:
    """Of wall clock, whatever ran at the same time."""
    if not group.served.output_tokens or not group.seconds:
        return absent(f"no request whose tokens are known has ended {group.over}")
    return known(group.served.output_tokens / group.seconds)


def _tokens_per_busy_second(group: Group) -> Figure:
    """While at least one request of the row was at an engine."""
    busy_s = group.busy.covered()
    if not busy_s or not group.busy_tokens:
        return absent("no request whose tokens are known has ended since the start")
    return known(group.busy_tokens / busy_s)


def _goodput(group: Group) -> Figure:
    """Requests per second that kept the SLO."""
    return _if_judged(group, group.served.good / group.seconds if group.seconds else 0.0)


def _good_share(group: Group) -> Figure:
    judged = group.served.judged
    return _if_judged(group, group.served.good / judged if judged else 0.0)


def _if_judged(group: Group, value: float) -> Figure:
    if not group.has_slo:
        return absent("no SLO is configured (efficiency.slo)")
    if not group.served.judged:
        return absent(f"no streamed request was completed {group.over}")
    return known(value)


# --- energy -----------------------------------------------------------------------------------------------------------


def _per(group: Group, accounts: Iterable[Account], count: int, what: str) -> Figure:
    """Joules over what was served while they were used."""
    if group.unmetered or not group.metered_s:
        return absent(f"no meter counted its energy {group.over}")
    if not count:
        return absent(f"{what} {group.over}")
    energy = sum(group.energy[account] for account in accounts)
    if not energy:
        return absent(f"no energy was accounted to it {group.over}")
    return known(energy * JOULES_PER_MICROJOULE / count, group.scope)


_ACTIVE: Final = (Account.ACTIVE,)
_WITH_IDLE: Final = (Account.ACTIVE, Account.IDLE)
_NO_TOKENS: Final = "no request whose tokens are known has ended"
_NO_REQUEST: Final = "no request was completed"


def _joules_per_token(group: Group) -> Figure:
    return _per(group, _ACTIVE, group.metered_served.output_tokens, _NO_TOKENS)


def _joules_per_token_with_idle(group: Group) -> Figure:
    return _per(group, _WITH_IDLE, group.metered_served.output_tokens, _NO_TOKENS)


def _joules_per_request(group: Group) -> Figure:
    return _per(group, _ACTIVE, group.metered_served.requests, _NO_REQUEST)


def _joules_per_request_with_idle(group: Group) -> Figure:
    return _per(group, _WITH_IDLE, group.metered_served.requests, _NO_REQUEST)


def _joules_per_good_request(group: Group) -> Figure:
    if not group.has_slo:
        return absent("no SLO is configured (efficiency.slo)")
    return _per(group, _ACTIVE, group.metered_served.good, "no request kept the SLO")


def _active_power(group: Group) -> Figure:
    """Of requests alone, over all the time."""
    if group.unmetered or not group.metered_s:
        return absent(f"no meter counted its energy {group.over}")
    energy = group.energy[Account.ACTIVE]
    if not energy:
        return absent(f"no request used energy {group.over}")
    return known(energy * JOULES_PER_MICROJOULE / group.metered_s, group.scope)


def _grams(group: Group) -> Figure:
    if group.grams is None:
        return absent("no carbon intensity is known (carbon), or no energy was counted")
    return known(group.grams)


# --- the model --------------------------------------------------------------------------------------------------------


def _fact(group: Group, name: str) -> Figure:
    """A fact of the checkpoint, if it is the same for all engines."""
    values = {getattr(card, name) for card in group.cards}
    if len(values) > 1:
        return absent("its engines serve different checkpoints: ask by variant")
    value = values.pop() if values else None
    return absent("its checkpoint is unknown") if value is None else known(value)


def _flops_per_token(group: Group) -> Figure:
    """Of one decoded token."""
    works = [member.facts.work for member in group.members]
    values = {None if work is None else work.flops.flops_per_token(_CONTEXT) for work in works}
    value = values.pop() if len(values) == 1 else None
    return absent("the FLOPs of its architecture are unknown") if value is None else known(value)


def _lines() -> Iterator[tuple[Section, str, str, str, Better | None, Callable[[Group], Figure], bool]]:
    low, high = Better.LOWER, Better.HIGHER
    speed, energy, model = Section.SPEED, Section.ENERGY, Section.MODEL
    for name, metric, title in LATENCIES:
        for q, shown in QUANTILES:
            key, words = f"{name}_p{round(100 * q)}_s", f"{title} p{round(100 * q)}"
            yield speed, key, words, "s", low, partial(latency, metric=metric, q=q), shown and name in _SHORT
    yield speed, "output_tokens_per_s", "output tokens/s", "tokens/s", high, _tokens_per_second, True
    yield speed, "output_tokens_per_busy_s", "output tokens/s, busy", "tokens/s", high, _tokens_per_busy_second, True
    yield speed, "goodput_requests_per_s", "goodput", "requests/s", high, _goodput, True
    yield speed, "good_requests_ratio", "requests in the SLO", "ratio", high, _good_share, False
    yield energy, "active_w", "power of requests", "W", low, _active_power, False
    yield energy, "output_token_j", "energy/output token", "J", low, _joules_per_token, True
    yield (
        energy,
        "output_token_with_idle_j",
        "output token, with idle",
        "J",
        low,
        of_engine(_joules_per_token_with_idle),
        True,
    )
    yield energy, "request_j", "energy/request", "J", low, _joules_per_request, True
    yield energy, "request_with_idle_j", "request, with idle", "J", low, of_engine(_joules_per_request_with_idle), True
    yield energy, "good_request_j", "energy/good request", "J", low, _joules_per_good_request, False
    yield energy, "co2e_g", "CO2e of requests", "g", None, _grams, True
    yield model, "parameters", "parameters", "", None, partial(_fact, name="parameters"), True
    yield model, "size_bytes", "size on disk", "bytes", low, partial(_fact, name="size_bytes"), True
    yield model, "weight_bits", "bits/weight", "bits", low, partial(_fact, name="bits_per_weight"), True
    bits = partial(_fact, name="linear_bits_per_weight")
    yield model, "linear_weight_bits", "bits/weight, linear", "bits", low, bits, True
    yield model, "compression_ratio", "compression", "ratio", high, compression, True
    yield model, "quality_ratio", "quality/reference", "ratio", high, of_engine(relative_quality), True
    yield model, "token_flops", "FLOPs/token at 1k", "FLOPs", None, _flops_per_token, True


COMPANIONS: Final[tuple[Measure, ...]] = tuple(
    Measure(section=section, key=key, title=title, unit=unit, better=better, figure=figure, brief=brief)
    for section, key, title, unit, better, figure, brief in _lines()
)
