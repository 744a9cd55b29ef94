"""What each configuration has served: sums over its requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import add, attrgetter, sub
from typing import Any, Final, NamedTuple

from server.config.efficiency import SloSettings
from server.models.flops import Work
from server.telemetry.labels import NONE, LabelCap, refold
from server.telemetry.observations import is_inference
from server.wire import Outcome, RequestRecord

__all__ = ["NOTHING", "Configuration", "Served", "ServedTally"]

Configuration = tuple[str, ...]
"""(engine, model, variant, precision, adapter), the adapter capped."""

_ADAPTER: Final = 4
_ENGINE_FAILED: Final = frozenset(
    {Outcome.UPSTREAM_ERROR, Outcome.UPSTREAM_TIMEOUT, Outcome.TRUNCATED, Outcome.INTERNAL_ERROR}
)
_KIND: Final = attrgetter("endpoint", "engine", "model", "variant", "precision", "adapter")
_MUCH: Final = 4000
"""Records put aside before they are counted without being asked for."""


class Served(NamedTuple):
    """Sums since the tally began; they only grow. "Completed": the answer came whole, by outcome `ok`."""

    requests: int = 0
    """Completed."""
    latency_s: float = 0.0
    """Of those, from the request's arrival to its last byte: queue, computation and network."""
    told_latency_s: float = 0.0
    """Of the completed ones whose output tokens are known."""
    told_output_tokens: int = 0
    output_tokens: int = 0
    """Of all requests, cancelled ones too where the engine told."""
    prompt_tokens: int = 0
    computed_prompt_tokens: int = 0
    """Those that the prefix cache did not hold."""
    prompt_pairs: int = 0
    """Σ over these of how many tokens each attends to, itself included."""
    prompts: int = 0
    """That came to their end and sampled a first token."""
    decode_tokens: int = 0
    """Output tokens that were fed back: all of a request but the last."""
    decode_pairs: int = 0
    """Σ over these of how many tokens each attends to."""
    judged: int = 0
    """Requests of which is known whether they kept the SLO: completed streams, and those that the engine failed."""
    good: int = 0

    def __add__(self, other: object) -> Served:
        assert isinstance(other, Served)
        return Served._make(map(add, self, other))

    def since(self, earlier: Served) -> Served:
        """What came after `earlier`."""
        return Served._make(map(sub, self, earlier))

    @property
    def work(self) -> Work:
        """What was computed for it."""
        return Work(
            prompt_tokens=self.computed_prompt_tokens,
            prompt_pairs=self.prompt_pairs,
            prompts=self.prompts,
            decode_tokens=self.decode_tokens,
            decode_pairs=self.decode_pairs,
        )


NOTHING: Final = Served()


class ServedTally:
    """Counts records; what comes is put aside until somebody asks. The caller holds the caps' lock."""

    def __init__(self, adapters: LabelCap, slo: SloSettings | None) -> None:
        self._adapters = adapters
        self._slo = slo
        self._waiting: list[RequestRecord] = []
        self._served: dict[Configuration, Served] = {}

    def take(self, records: Iterable[RequestRecord]) -> None:
        self._waiting += records
        if len(self._waiting) > _MUCH:
            self._catch_up()

    def now(self) -> dict[Configuration, Served]:
        """A copy, whose values nobody changes."""
        self._catch_up()
        return dict(self._served)

    def forget_adapter(self, name: str) -> None:
        """Its label was given away: what stands under it belongs to `other`."""
        self._catch_up()
        refold(self._served, _ADAPTER, name)

    def _catch_up(self) -> None:
        records, self._waiting = self._waiting, []
        kinds: defaultdict[tuple[Any, ...], list[RequestRecord]] = defaultdict(list)
        for record in records:
            kinds[_KIND(record)].append(record)
        for (endpoint, *engine, adapter), alike in kinds.items():
            if engine[0] is None or not is_inference(endpoint):
                continue
            key = (*(label or NONE for label in engine), self._adapters(adapter))
            sums = _sum(alike)
            if self._slo is not None:
                judged, good = _judge(alike, self._slo)
                sums = sums._replace(judged=judged, good=good)
            self._served[key] = self._served.get(key, NOTHING) + sums


def _sum(records: Sequence[RequestRecord]) -> Served:
    """Plain integers in one loop: there may be thousands of records a second.

    Tokens attended to: Σ i, i = cached + 1 … prompt, and Σ (prompt + j), j = 1 … output - 1; twice that is an integer.
    """
    requests = told_tokens = tokens = prompts = prompt_sum = computed = prompt_pairs = decoded = decode_pairs = 0
    latency_s = told_latency_s = 0.0
    for record in records:
        prompt, output = record.prompt_tokens or 0, record.output_tokens or 0
        if record.outcome is Outcome.OK:
            latency = record.ended_at - record.received_at
            requests += 1
            latency_s += latency
            if output:
                told_latency_s += latency
                told_tokens += output
        # An engine that says nothing of cached tokens has found none: usage leaves the detail out then.
        cached = min(record.cached_tokens or 0, prompt)
        prompt_sum += prompt
        computed += prompt - cached
        prompt_pairs += prompt * (prompt + 1) - cached * (cached + 1)
        if output:
            tokens += output
            prompts += 1
            decoded += output - 1
            decode_pairs += (output - 1) * (2 * prompt + output)
    return Served(
        requests=requests,
        latency_s=latency_s,
        told_latency_s=told_latency_s,
        told_output_tokens=told_tokens,
        output_tokens=tokens,
        prompt_tokens=prompt_sum,
        computed_prompt_tokens=computed,
        prompt_pairs=prompt_pairs // 2,
        prompts=prompts,
        decode_tokens=decoded,
        decode_pairs=decode_pairs // 2,
    )


def _judge(records: Iterable[RequestRecord], slo: SloSettings) -> tuple[int, int]:
    """How many are judged, and how many of those are good."""
    judged = good = 0
    for record in records:
        if record.outcome in _ENGINE_FAILED:
            judged += 1
        elif record.outcome is Outcome.OK and record.first_token_at is not None and record.output_tokens:
            judged += 1
            gaps = record.output_tokens - 1
            in_time = record.first_token_at - record.received_at <= slo.ttft_s
            good += in_time and (gaps == 0 or (record.ended_at - record.first_token_at) / gaps <= slo.itl_s)
    return judged, good
