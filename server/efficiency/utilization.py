"""How well a device is used: operations and bytes over its peaks, memory by kind."""

from __future__ import annotations

from typing import Final

from server.efficiency.figure import Better, Figure, Measure, Section, absent, known, of_engine
from server.efficiency.groups import Group, Part
from server.models.vllm_estimate import vllm_estimate_support

__all__ = ["UTILIZATION"]


def _weights(group: Group) -> Figure:
    if not group.cards:
        return absent("its checkpoint is unknown")
    return known(sum(card.size_bytes for card in group.cards))


def _kv(group: Group) -> Figure:
    """KV blocks in use · tokens a block · bytes a token."""
    total = 0.0
    for member in group.members:
        card, gauges = member.card, member.replica.gauges
        if card is None or card.kv_bytes_per_token is None:
            return absent("the KV bytes of a token are unknown for its architecture")
        if gauges is None or gauges.kv_usage_ratio is None or gauges.kv_capacity_tokens is None:
            return absent("the engine does not say how much of its KV cache is in use")
        total += gauges.kv_usage_ratio * gauges.kv_capacity_tokens * card.kv_bytes_per_token
    return known(total)


def _memory(group: Group) -> Figure:
    held = [member.replica.memory_bytes for member in group.members]
    known_ones = [size for size in held if size is not None]
    return known(sum(known_ones)) if len(known_ones) == len(held) else absent("nobody told the engine's memory")


def _flops_rate(group: Group) -> Figure:
    """What the served tokens needed, by our model of the architecture."""
    flops = [part.flops.total for part in group.parts if part.flops is not None]
    if len(flops) < len(group.parts):
        return absent("the FLOPs of its architecture are unknown")
    if not group.seconds or not group.totals.up_s:
        return absent(f"it did not run {group.over}")
    if not any(flops) and group.running:
        return absent(f"requests run, and none has ended {group.over}")
    return known(sum(flops) / group.seconds)


def _own_flops_rate(group: Group) -> Figure:
    """What vLLM says it has computed."""
    for member in group.members:
        card, engine = member.card, member.replica
        wrong = vllm_estimate_support(card, adapters=bool(engine.adapters)) if card else "its checkpoint is unknown"
        if wrong is not None:
            return absent(f"unsupported: {wrong}")
    if not group.totals.own_flops_s:
        return absent("the engine does not export its estimate (vLLM: options.enable_mfu_metrics: true)")
    return known(group.totals.own_flops / group.totals.own_flops_s)


def _mfu(group: Group) -> Figure:
    """FLOP/s over the peak of the arithmetic that computes them."""
    rate, peaks = _flops_rate(group), [member.peak.flops_per_s for member in group.members]
    if rate.value is None:
        return rate
    together = [peak for peak in peaks if peak is not None]
    if len(together) < len(peaks):
        return absent("the peak FLOP/s of its device are unknown (efficiency.peaks)")
    return known(rate.value / sum(together), _peak_source(group))


def _mbu(group: Group) -> Figure:
    """Bytes/s that the steps had to read over the peak of the memory."""
    rates = [_read_rate(part) for part in group.parts]
    unknown = next((rate for rate in rates if rate.value is None), None)
    if unknown is not None:
        return absent(f"{unknown.why_absent} {group.over}")
    peaks = [member.peak.bytes_per_s for member in group.members if member.peak.bytes_per_s is not None]
    if len(peaks) < len(rates):
        return absent("the peak bytes/s of its memory are unknown (efficiency.peaks)")
    return known(sum(rate.value or 0.0 for rate in rates) / sum(peaks), _peak_source(group))


def _read_rate(part: Part) -> Figure:
    """Bytes/s."""
    work, totals, gauges = part.member.facts.work, part.totals, part.member.replica.gauges
    if work is None:
        return absent("the bytes that its architecture reads are unknown, so none are counted")
    if not totals.steps_s:
        return absent("the engine did not tell how many steps it made")
    if totals.steps and not part.served.prompts and gauges is not None and gauges.running:
        return absent("requests run, and none has ended")
    return known(work.read_bytes(part.served.work, steps=totals.steps) / totals.steps_s)


def _peak_source(group: Group) -> str | None:
    sources = dict.fromkeys(member.peak.source for member in group.members if member.peak.source)
    return f"peak: {'; '.join(sources)}" if sources else None


UTILIZATION: Final[tuple[Measure, ...]] = tuple(
    Measure(section=Section.USE, key=key, title=title, unit=unit, better=better, figure=figure)
    for key, title, unit, better, figure in (
        ("mfu_ratio", "MFU", "ratio", Better.HIGHER, of_engine(_mfu)),
        ("mbu_ratio", "MBU", "ratio", Better.HIGHER, of_engine(_mbu)),
        ("flops_per_s", "FLOP/s", "FLOP/s", None, of_engine(_flops_rate)),
        ("engine_flops_per_s", "FLOP/s, vLLM's count", "FLOP/s", None, of_engine(_own_flops_rate)),
        ("weights_bytes", "weights", "bytes", Better.LOWER, of_engine(_weights)),
        ("kv_bytes", "KV cache in use", "bytes", Better.LOWER, of_engine(_kv)),
        ("memory_bytes", "memory held", "bytes", Better.LOWER, of_engine(_memory)),
    )
)
