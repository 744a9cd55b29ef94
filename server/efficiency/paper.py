"""The six metrics of EfficientLLM, as published. Source: arXiv 2505.13840, section 3, and its authors' code.

Each stands beside companions (`companions.py`) that say what it does not.
"""

from __future__ import annotations

from typing import Final

from server.accounts import Account
from server.efficiency.figure import Better, Figure, Measure, Section, absent, known, of_engine
from server.efficiency.groups import Group, Member
from server.models.quality import Quality, comparable
from server.units import JOULES_PER_MICROJOULE

__all__ = ["PAPER", "compression", "relative_quality"]

_ENGINE_ACCOUNTS: Final = (Account.ACTIVE, Account.IDLE, Account.UNATTRIBUTED)


def _amu(group: Group) -> Figure:
    """(1/T) ∫ used / total dt."""
    if not group.totals.memory_s:
        return absent(f"nobody told the engine's memory, or what it may hold, {group.over}")
    return known(group.totals.memory_share_s / group.totals.memory_s)


def _pcu(group: Group) -> Figure:
    """(1/T) ∫ utilization dt: of the GPUs, or CPU time over the cores."""
    if not group.totals.compute_s:
        return absent(f"nobody told how busy its device was {group.over}")
    return known(group.totals.compute_busy_s / group.totals.compute_s)


def _al(group: Group) -> Figure:
    """Σ latency / N."""
    served = group.served
    if not served.requests:
        return absent(f"no request was completed {group.over}")
    return known(served.latency_s / served.requests)


def _at(group: Group) -> Figure:
    """Σ output tokens / Σ latency."""
    served = group.served
    if not served.told_latency_s:
        return absent(f"no request whose tokens are known was completed {group.over}")
    return known(served.told_output_tokens / served.told_latency_s)


def _mean_power(group: Group) -> Figure:
    """(1/T) ∫ P dt: what the engine used, idle included, over the time that its meters have accounted for."""
    if group.unmetered or not group.metered_s:
        which = f" of {', '.join(group.unmetered)}" if group.metered_s else ""
        return absent(f"no meter counted the energy{which} {group.over}")
    energy = sum(group.energy[account] for account in _ENGINE_ACCOUNTS)
    if not energy:
        return absent(f"no energy was accounted to it {group.over}")
    return known(energy * JOULES_PER_MICROJOULE / group.metered_s, group.scope)


def _mcr(group: Group) -> Figure:
    """(size₀ / sizeᵥ) · (perfᵥ / perf₀), 0 the reference."""
    quality = relative_quality(group)
    size = compression(group)
    if quality.value is None or size.value is None:
        return size if size.value is None else quality
    return known(size.value * quality.value, quality.note)


def compression(group: Group) -> Figure:
    """size₀ / sizeᵥ, of the weight files."""
    reference, sizes = group.reference, {card.size_bytes for card in group.cards}
    if reference is None or reference.card is None or not sizes:
        return absent("the size of its checkpoint, or of the reference's, is unknown")
    if len(sizes) > 1:
        return absent("its engines serve checkpoints of different sizes: ask by variant")
    return known(reference.card.size_bytes / sizes.pop(), f"reference: {reference.replica.variant}")


def relative_quality(group: Group) -> Figure:
    """perfᵥ / perf₀; perf = 1 / perplexity, unless a task score is given."""
    pairs = {_compared(member, group.reference) for member in group.members}
    if len(pairs) > 1:
        return absent("its engines serve checkpoints of different quality: ask by variant")
    pair = pairs.pop() if pairs else None
    if pair is None:
        problems = [member.facts.quality_problem for member in group.members if member.facts.quality_problem]
        return absent(problems[0] if problems else "no quality was measured for it and the reference (quality.json)")
    mine, reference = pair
    return known(mine.performance / reference.performance, mine.label)


def _compared(member: Member, reference: Member | None) -> tuple[Quality, Quality] | None:
    return None if reference is None else comparable(member.facts.qualities, reference.facts.qualities)


PAPER: Final[tuple[Measure, ...]] = tuple(
    Measure(key=key, title=title, unit=unit, better=better, section=Section.PAPER, figure=figure)
    for key, title, unit, better, figure in (
        ("amu_ratio", "AMU memory utilization", "ratio", Better.LOWER, of_engine(_amu)),
        ("pcu_ratio", "PCU compute utilization", "ratio", Better.HIGHER, of_engine(_pcu)),
        ("al_s", "AL average latency", "s", Better.LOWER, _al),
        ("at_tokens_per_s", "AT average tokens/s", "tokens/s", Better.HIGHER, _at),
        ("aec_w", "AEC average power", "W", Better.LOWER, of_engine(_mean_power)),
        ("mcr_ratio", "MCR compression rate", "ratio", Better.HIGHER, of_engine(_mcr)),
    )
)
"""Directions: the paper's rankings have the smaller memory first, and the busier processor."""
