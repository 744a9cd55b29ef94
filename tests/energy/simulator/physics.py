"""Sets of physics: how long a step takes, and how much it uses.

A step with participants S takes t(S) = overhead + a share for each sequence + max(FLOP / peak, bytes / bandwidth), and
a constant more if any of them uses an adapter; it uses E(S) = busy watts · t + J/FLOP · FLOP + J/byte · bytes. The
weights are read once a step, whoever takes part; the adapter's time has watts of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = ["DEVELOPMENT", "TESTS", "Physics", "Tenant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """What a tenant sends: lengths are log-normal about these medians."""

    name: str
    prompt_tokens: int
    output_tokens: int
    adapter_share: float
    """Of its requests, how many use an adapter."""
    cached_share: float = 0.3
    """Of its requests, how many find half of their prompt in the prefix cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Physics:
    """A device, a model on it, and the tenants whose load suits them."""

    name: str
    overhead_s: float
    sequence_s: float
    weight_bytes: float
    kv_bytes: float
    """Of a token."""
    bytes_per_s: float
    flop: float
    """Of a token."""
    attention_flop: float
    """Of a token, for each token of its context."""
    flop_per_s: float
    adapter_s: float
    """What a step lasts longer if anybody in it uses an adapter."""
    adapter_watts: float
    """What that time uses beyond busy watts: its kernels compute and read too, on a GPU less densely than the rest."""
    idle_watts: float
    busy_watts: float
    """During a step, whatever it does."""
    joules_per_flop: float
    joules_per_byte: float
    budget_tokens: int
    """Of a step, prompts' chunks and decoding together."""
    most_sequences: int = 256
    arrival_s: float = 1e-3
    """From the end of a step to the gateway."""
    spread_s: float = 2e-5
    """From one stream's chunk to the next one's."""
    jitter_s: float = 1e-4
    """Standard deviation of each chunk's arrival."""
    tenants: tuple[Tenant, ...] = field(default=())


def _tenants(long: tuple[int, int], short: tuple[int, int], adapters: float) -> tuple[Tenant, ...]:
    """One that reads much and writes little, and the reverse; each is prompt, output."""
    return (
        Tenant(name="reader", prompt_tokens=long[0], output_tokens=long[1], adapter_share=adapters),
        Tenant(name="writer", prompt_tokens=short[0], output_tokens=short[1], adapter_share=adapters),
    )


DEVELOPMENT: Final = (
    Physics(  # an 8-B model in bf16 on a card of 80 GB and 2 TB/s
        name="dev_large_gpu",
        overhead_s=1.5e-3,
        sequence_s=2e-5,
        weight_bytes=16e9,
        kv_bytes=131_072,
        bytes_per_s=1.5e12,
        flop=16e9,
        attention_flop=5.2e5,
        flop_per_s=1.7e14,
        adapter_s=6e-4,
        adapter_watts=80.0,
        idle_watts=60.0,
        busy_watts=120.0,
        joules_per_flop=1.3e-12,
        joules_per_byte=9e-11,
        budget_tokens=2048,
        tenants=_tenants((1500, 50), (150, 300), 0.2),
    ),
    Physics(  # a 7-B model in 4 bits on a card of 24 GB
        name="dev_medium_gpu",
        overhead_s=2e-3,
        sequence_s=4e-5,
        weight_bytes=4.2e9,
        kv_bytes=57_344,
        bytes_per_s=4.5e11,
        flop=15e9,
        attention_flop=4e5,
        flop_per_s=5.5e13,
        adapter_s=1e-3,
        adapter_watts=40.0,
        idle_watts=25.0,
        busy_watts=70.0,
        joules_per_flop=1.6e-12,
        joules_per_byte=1.4e-10,
        budget_tokens=1024,
        tenants=_tenants((700, 30), (80, 150), 0.2),
    ),
    Physics(  # a model of some hundred million parameters on many cores
        name="dev_cpu",
        overhead_s=2e-3,
        sequence_s=1e-4,
        weight_bytes=3e8,
        kv_bytes=12_288,
        bytes_per_s=4e10,
        flop=6e8,
        attention_flop=5e4,
        flop_per_s=1.2e12,
        adapter_s=5e-3,
        adapter_watts=24.0,
        idle_watts=40.0,
        busy_watts=60.0,
        joules_per_flop=5e-11,
        joules_per_byte=6e-10,
        budget_tokens=512,
        spread_s=5e-5,
        jitter_s=3e-4,
        tenants=_tenants((250, 12), (30, 70), 0.25),
    ),
)
"""For development: methods may be tried on them as often as one likes."""

TESTS: Final = (
    Physics(  # a 3-B model in bf16 on a card of 16 to 24 GB
        name="small_gpu",
        overhead_s=2.5e-3,
        sequence_s=5e-5,
        weight_bytes=6.2e9,
        kv_bytes=36_864,
        bytes_per_s=2.5e11,
        flop=6.2e9,
        attention_flop=3e5,
        flop_per_s=4e13,
        adapter_s=1.5e-3,
        adapter_watts=14.0,
        idle_watts=14.0,
        busy_watts=30.0,
        joules_per_flop=7e-13,
        joules_per_byte=9e-11,
        budget_tokens=1024,
        tenants=_tenants((800, 30), (80, 160), 0.2),
    ),
    Physics(  # an 8-B model in bf16 on a card of 80 GB and 3.35 TB/s
        name="h100_like",
        overhead_s=1e-3,
        sequence_s=1.5e-5,
        weight_bytes=16e9,
        kv_bytes=131_072,
        bytes_per_s=2.5e12,
        flop=16e9,
        attention_flop=5.2e5,
        flop_per_s=4.5e14,
        adapter_s=4e-4,
        adapter_watts=150.0,
        idle_watts=75.0,
        busy_watts=170.0,
        joules_per_flop=9e-13,
        joules_per_byte=1.0e-10,
        budget_tokens=8192,
        tenants=_tenants((3000, 60), (200, 400), 0.2),
    ),
    Physics(  # half a billion parameters in 8 bits on a few cores
        name="slow_cpu",
        overhead_s=3e-3,
        sequence_s=2e-4,
        weight_bytes=5e8,
        kv_bytes=12_288,
        bytes_per_s=2.5e10,
        flop=1e9,
        attention_flop=8e4,
        flop_per_s=7e11,
        adapter_s=9e-3,
        adapter_watts=12.0,
        idle_watts=18.0,
        busy_watts=32.0,
        joules_per_flop=3e-11,
        joules_per_byte=5e-10,
        budget_tokens=256,
        spread_s=5e-5,
        jitter_s=4e-4,
        tenants=_tenants((90, 8), (15, 50), 0.25),
    ),
)
"""For tests only: no constant of a method was chosen by them."""
