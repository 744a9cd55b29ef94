"""Who caused a step: Shapley values of its time, FLOP and bytes."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from tests.energy.simulator.physics import Physics

__all__ = ["step", "step_shares"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_ORDERS: Final = 24
"""Orders of arrival that a value is averaged over, each with its reverse, where no formula exists."""


def step(physics: Physics, flop: Floats, kv_bytes: Floats, adapters: bool) -> tuple[float, float]:
    """Seconds and joules of a step; its participants' FLOP and bytes."""
    operations, moved = float(flop.sum()), physics.weight_bytes + float(kv_bytes.sum())
    seconds = (
        physics.overhead_s
        + physics.sequence_s * len(flop)
        + max(operations / physics.flop_per_s, moved / physics.bytes_per_s)
        + physics.adapter_s * adapters
    )
    joules = physics.joules_per_flop * operations + physics.joules_per_byte * moved
    joules += physics.adapter_watts * physics.adapter_s * adapters
    return seconds, physics.busy_watts * seconds + joules


def step_shares(
    physics: Physics, flop: Floats, kv_bytes: Floats, adapter: Flags, random: np.random.Generator
) -> Floats:
    """Joules of each participant: exact for all that is fixed or adds up, sampled for the roofline's maximum."""
    count = len(flop)
    seconds = physics.overhead_s / count + physics.sequence_s + _roofline(physics, flop, kv_bytes, random)
    if adapter.any():
        seconds += physics.adapter_s * adapter / np.count_nonzero(adapter)
    moved = physics.weight_bytes / count + kv_bytes
    joules = physics.busy_watts * seconds + physics.joules_per_flop * flop + physics.joules_per_byte * moved
    if adapter.any():
        joules += physics.adapter_watts * physics.adapter_s * adapter / np.count_nonzero(adapter)
    return joules


def _roofline(physics: Physics, flop: Floats, kv_bytes: Floats, random: np.random.Generator) -> Floats:
    """Shapley value of max(FLOP / peak, bytes / bandwidth), 0 for nobody."""
    compute, memory = flop / physics.flop_per_s, kv_bytes / physics.bytes_per_s
    weights = physics.weight_bytes / physics.bytes_per_s
    if compute.sum() <= weights:
        return weights / len(flop) + memory
    if len(flop) == 1:
        return np.maximum(compute, weights + memory)
    orders = random.random((_ORDERS, len(flop))).argsort(axis=1)
    orders = np.concatenate([orders, orders[:, ::-1]])
    ends = np.maximum(compute[orders].cumsum(axis=1), weights + memory[orders].cumsum(axis=1))
    values = np.empty_like(ends)
    np.put_along_axis(values, orders, np.diff(ends, axis=1, prepend=0.0), axis=1)
    return np.asarray(values.mean(axis=0), np.float64)
