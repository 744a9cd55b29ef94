"""What the energy benchmark's records say: ratios within blocks, spread of twins, cost of what was cancelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Final, TypeVar

from tests.benchmarks.energy_load import Ask
from tests.benchmarks.interval import Interval, ratio_interval

__all__ = ["Charged", "charged", "figures", "methods", "wrong_figures"]

_Key = TypeVar("_Key")

_TWINS_WITHIN: Final = 0.05
_ALIKE_WITHIN: Final = 0.2
"""An engine has written some tokens more when it hears of the end: not exactly alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """A request as it was asked, and as the ledger has it."""

    ask: Ask
    joules: float
    decode_joules: float
    """Of these, without its prompt."""
    tokens: int
    method: str
    confidence: float
    came: tuple[float, float] | None = None
    """Its first and last token, monotonic seconds."""


def charged(
    asked: Mapping[str, Ask], rows: Iterable[Mapping[str, str]], came: Mapping[str, tuple[float, float]] | None = None
) -> list[Charged]:
    """The records of these requests whose energy and tokens are known.

    An engine says nothing of a request that was cancelled: its tokens are those that the client took.
    """
    return [
        Charged(
            ask=asked[row["id"]],
            joules=float(row["joules"]),
            decode_joules=float(row["decode_joules"]),
            tokens=int(row["output_tokens"] or asked[row["id"]].leave_after or 0),
            method=row["method"],
            confidence=float(row["confidence"]),
            came=None if came is None else came.get(row["id"]),
        )
        for row in rows
        if row["id"] in asked and row["joules"] and (row["output_tokens"] or asked[row["id"]].leave_after)
    ]


def methods(known: Sequence[Charged]) -> dict[str, float]:
    """Of all joules, the share that each method has shared out."""
    total = sum(one.joules for one in known)
    shares: defaultdict[str, float] = defaultdict(float)
    for one in known:
        shares[one.method] += one.joules / total
    return dict(shares)


def figures(known: Sequence[Charged]) -> dict[str, Any]:
    """All that blocks were made for; an experiment of which too little is known has none."""
    adapters = _of(known, "adapters")
    found: dict[str, Interval | None] = {
        "int8_over_bf16": _ratio(_of(known, "precision"), "int8", "bf16"),
        "adapter_over_base_together": _ratio(adapters, "mixed adapter", "mixed base"),
        "adapter_over_base_apart": _ratio(adapters, "adapter", "base"),
        "base_beside_adapters_over_base": _ratio(adapters, "mixed base", "base"),
        "cancelled_over_as_short": _cancelled(_of(known, "cancelled")),
    }
    return {**found, "twins": _twins(_of(known, "twins")), "cancelled": _bounds(_of(known, "cancelled"))}


def wrong_figures(found: Mapping[str, Any]) -> list[str]:
    """What is not as it must be; what is not known is wrong, too."""
    wrong = [f"{name}: too little is known" for name, value in found.items() if value is None]
    together, alike = found["adapter_over_base_together"], found["cancelled_over_as_short"]
    if together is not None and together.low <= 1:
        wrong.append(f"adapter requests are not charged more than base ones beside them: {together}")
    if alike is not None and abs(alike.mean - 1) > _ALIKE_WITHIN:
        wrong.append(f"a cancelled request does not pay what one of its length pays: {alike}")
    twins, cancelled = found["twins"], found["cancelled"]
    if twins is not None and twins["worst"] > _TWINS_WITHIN:
        wrong.append(f"a request is charged {twins['worst']:.1%} more or less than the mean of its twins")
    if cancelled is not None and not cancelled["all_between"]:
        wrong.append("a cancelled request is charged nothing, or more than its twin that was not")
    return wrong


def _of(known: Sequence[Charged], group: str) -> list[Charged]:
    return [one for one in known if one.ask.group == group]


def _by(known: Iterable[Charged], key: Callable[[Charged], _Key]) -> dict[_Key, list[Charged]]:
    found: defaultdict[_Key, list[Charged]] = defaultdict(list)
    for one in known:
        found[key(one)].append(one)
    return dict(found)


def _ratio(known: Sequence[Charged], one: str, other: str) -> Interval | None:
    """Joules per output token of a role over those of another, within each block that has both."""
    ratios = []
    for block in _by(known, lambda each: each.ask.block).values():
        roles = _by(block, lambda each: each.ask.role)
        if one in roles and other in roles:
            ratios.append(_per_token(roles[one]) / _per_token(roles[other]))
    return ratio_interval(ratios) if len(ratios) > 1 else None


def _per_token(known: Sequence[Charged]) -> float:
    return sum(one.joules for one in known) / sum(one.tokens for one in known)


def _twins(known: Sequence[Charged]) -> dict[str, Any] | None:
    """By how much requests that were alike, and in the same steps, differ from the mean of their block."""
    worst = []
    for block in _by(known, lambda each: each.ask.block).values():
        if not _in_step(block):
            continue
        mean = fmean(one.joules for one in block)
        worst.append(max(abs(one.joules / mean - 1) for one in block))
    return {"blocks": len(worst), "worst": max(worst), "median_of_worst": median(worst)} if worst else None


def _in_step(block: Sequence[Charged]) -> bool:
    """Did they begin and end together? Else the engine computed some of them apart, and they cost what they cost."""
    came = [one.came for one in block if one.came is not None]
    if len(came) < len(block):
        return not came  # of made-up figures nothing is known
    firsts, lasts = [first for first, _ in came], [last for _, last in came]
    step = (fmean(lasts) - fmean(firsts)) / max(1, block[0].tokens - 1)
    return max(max(firsts) - min(firsts), max(lasts) - min(lasts)) < step / 2


def _pairs(known: Sequence[Charged], other: str) -> list[tuple[Charged, Charged]]:
    """The one that was cut and the other, of each block that has both."""
    blocks = _by(known, lambda each: each.ask.block).values()
    roles = [{one.ask.role: one for one in block} for block in blocks]
    return [(block["cut"], block[other]) for block in roles if {"cut", other} <= block.keys()]


def _cancelled(known: Sequence[Charged]) -> Interval | None:
    """Joules of the one that was cut over those of one that was to be as short from the start."""
    ratios = [cut.joules / short.joules for cut, short in _pairs(known, "short")]
    return ratio_interval(ratios) if len(ratios) > 1 else None


def _bounds(known: Sequence[Charged]) -> dict[str, Any] | None:
    pairs = _pairs(known, "whole")
    if not pairs:
        return None
    return {
        "pairs": len(pairs),
        "all_between": all(0 < cut.joules < whole.joules for cut, whole in pairs),
        "share_of_tokens": median(cut.tokens / whole.tokens for cut, whole in pairs),
        "share_of_joules": median(cut.joules / whole.joules for cut, whole in pairs),
    }
