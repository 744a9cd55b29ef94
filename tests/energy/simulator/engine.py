"""Continuous batching with chunked prefill, step by step, as vLLM's scheduler does it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tests.energy.simulator.physics import Physics
from tests.energy.simulator.shapley import step, step_shares

__all__ = ["Asked", "Done", "Steps", "arrivals", "serve"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it is sent."""

    sent_at: float
    tenant: str
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    adapter: bool = False
    streamed: bool = True


@dataclass(slots=True, kw_only=True)
class Done:
    """A request, what became of it, and the truth about it."""

    asked: Asked
    computed: int = 0
    """Prompt tokens so far, those from the prefix cache included."""
    written: int = 0
    token_times: list[float] = field(default_factory=list)
    """At the gateway."""
    done_at: float = math.nan
    prefill_joules: float = 0.0
    decode_joules: float = 0.0

    @property
    def joules(self) -> float:
        return self.prefill_joules + self.decode_joules

    @property
    def context(self) -> int:
        return self.computed + self.written


@dataclass(slots=True, kw_only=True)
class Steps:
    """When the engine worked, and how much it used."""

    start: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    computed: list[int] = field(default_factory=list)
    """Prompt tokens of the step."""
    written: list[int] = field(default_factory=list)


def arrivals(physics: Physics, *, rate: float, seconds: float, seed: int) -> list[Asked]:
    """Poisson arrivals, the tenants in turn by chance; lengths log-normal."""
    random = np.random.default_rng(seed)
    asked, at = [], 0.0
    while (at := at + random.exponential(1.0 / rate)) < seconds:
        tenant = physics.tenants[random.integers(len(physics.tenants))]
        prompt, output = (
            max(2, round(median * random.lognormal(0.0, 0.4)))
            for median in (tenant.prompt_tokens, tenant.output_tokens)
        )
        cached = random.random() < tenant.cached_share
        asked.append(
            Asked(
                sent_at=at,
                tenant=tenant.name,
                prompt_tokens=prompt,
                output_tokens=output,
                cached_tokens=prompt // 32 * 16 if cached else 0,
                adapter=random.random() < tenant.adapter_share,
            )
        )
    return asked


def serve(physics: Physics, asked: Sequence[Asked], *, seed: int = 0) -> tuple[list[Done], Steps]:
    """All requests, served to their end."""
    random = np.random.default_rng(seed)
    requests = [Done(asked=one, computed=one.cached_tokens) for one in sorted(asked, key=lambda one: one.sent_at)]
    coming, running, steps, now = deque(requests), list[Done](), Steps(), 0.0
    while coming or running:
        if not running:
            now = max(now, coming[0].asked.sent_at)
        chunks = _schedule(physics, running, coming, now)
        seconds, joules = _account(physics, running, chunks, random)
        steps.start.append(now)
        now += seconds
        steps.end.append(now)
        steps.joules.append(joules)
        steps.computed.append(sum(chunk for chunk in chunks if chunk > 0))
        running, told = _advance(running, chunks)
        steps.written.append(len(told))
        _tell(physics, told, now, random)
    return requests, steps


def _schedule(physics: Physics, running: list[Done], coming: deque[Done], now: float) -> list[int]:
    """Prompt tokens that each of `running` computes in this step, 0: it decodes, -1: nothing; admits who waits."""
    budget = physics.budget_tokens - sum(one.computed >= one.asked.prompt_tokens for one in running)
    chunks = []
    for one in running:
        left = one.asked.prompt_tokens - one.computed
        chunks.append(min(left, budget) or (-1 if left else 0))
        budget -= max(0, chunks[-1])
    while coming and coming[0].asked.sent_at <= now and budget > 0 and len(running) < physics.most_sequences:
        running.append(coming.popleft())
        chunks.append(min(running[-1].asked.prompt_tokens - running[-1].computed, budget))
        budget -= chunks[-1]
    return chunks


def _account(
    physics: Physics, running: Sequence[Done], chunks: Sequence[int], random: np.random.Generator
) -> tuple[float, float]:
    """Charge the participants; returns the step's seconds and joules."""
    took_part = [(one, chunk) for one, chunk in zip(running, chunks, strict=True) if chunk >= 0]
    chunk = np.array([chunk for _, chunk in took_part], np.float64)
    context = np.array([one.context for one, _ in took_part], np.float64)
    adapter = np.array([one.asked.adapter for one, _ in took_part], np.bool_)
    tokens = np.maximum(1.0, chunk)
    flop = tokens * physics.flop + physics.attention_flop * tokens * (context + tokens / 2)
    kv_bytes = (context + tokens) * physics.kv_bytes
    shares = step_shares(physics, flop, kv_bytes, adapter, random)
    for (one, of_prompt), share in zip(took_part, shares.tolist(), strict=True):
        if of_prompt:
            one.prefill_joules += share
        else:
            one.decode_joules += share
    return step(physics, flop, kv_bytes, bool(adapter.any()))


def _advance(running: Sequence[Done], chunks: Sequence[int]) -> tuple[list[Done], list[Done]]:
    """Those that go on, and those that wrote a token."""
    told = []
    for one, chunk in zip(running, chunks, strict=True):
        one.computed += max(0, chunk)
        if chunk >= 0 and one.computed == one.asked.prompt_tokens:
            one.written += 1
            told.append(one)
    return [one for one in running if one.written < one.asked.output_tokens], told


def _tell(physics: Physics, told: Sequence[Done], now: float, random: np.random.Generator) -> None:
    late = np.abs(random.normal(0.0, physics.jitter_s, len(told))) + physics.spread_s * np.arange(len(told))
    for one, at in zip(told, (now + physics.arrival_s + late).tolist(), strict=True):
        before = one.token_times[-1] if one.token_times else one.asked.sent_at
        one.token_times.append(max(at, before))
        if one.written == one.asked.output_tokens:
            one.done_at = one.token_times[-1] + physics.spread_s
