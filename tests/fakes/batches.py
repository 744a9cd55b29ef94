"""Records, batches and replicas with everything filled in that a test does not care about."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import msgspec

from server.accounts import RecordKey, RequestEnergy
from server.fleet import EngineGauges, EngineState, Replica
from server.models.card import ModelCard
from server.units import Bytes, Microjoules, Seconds
from server.wire import PROTOCOL_VERSION, Batch, Hello, Outcome, RequestRecord, Source, TokenTimes, WorkerGauges

__all__ = ["CARD", "Stream", "batch", "gauges", "packed", "record", "replica", "tokens", "unpacked", "used", "worker"]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What a batch tells of one stream."""

    id: str = "r1"
    tenant: str = "alice"
    model: str = "demo"
    variant: str = "int4"
    precision: str = "int4"
    adapter: str = "none"
    engine: str = "demo-int4"
    sent_at: float = 1000.0
    previous_at: float | None = None
    """None: `times` begin with its first token."""
    times: list[float]

    @property
    def source(self) -> Source:
        return Source(self.tenant, self.model, self.variant, self.precision, self.adapter, self.engine)


CARD = ModelCard(
    architecture="LlamaForCausalLM",
    precision="int4",
    dtype="bfloat16",
    quantization="compressed-tensors",
    scheme="pack-quantized group 128",
    parameters=4_200_000,
    linear_parameters=3_100_000,
    size_bytes=Bytes(4_000_000),
    bits_per_weight=7.6,
    linear_bits_per_weight=4.25,
    kv_bytes_per_token=Bytes(1024),
    max_position=1024,
)

_RECORD = RequestRecord(
    id="r1",
    endpoint="chat",
    tenant="alice",
    requested_model="demo:int4",
    model="demo",
    variant="int4",
    precision="int4",
    adapter="none",
    engine="demo-int4",
    outcome=Outcome.OK,
    status=200,
    streamed=True,
    cancelled_when=None,
    retries=0,
    received_at=1000.0,
    queue_s=0.0,
    sent_at=1000.0,
    first_byte_at=1000.1,
    first_token_at=1000.1,
    last_token_at=1000.5,
    upstream_done_at=1000.5,
    ended_at=1000.5,
    prompt_tokens=10,
    cached_tokens=0,
    output_tokens=5,
    token_chunks=5,
)

_GAUGES = WorkerGauges(in_flight={}, queued=0, loop_lags_s=[], records_dropped=0, rejections={}, retries={})

_REPLICA = Replica(
    name="demo-int4",
    model="demo",
    variant="int4",
    precision="int4",
    task="generate",
    kind="vllm",
    launcher="local",
    state=EngineState.READY,
    since=Seconds(0.0),
    url="http://127.0.0.1:1",
    api_key="secret-of-the-engine",
    upstream_model="demo:int4",
    max_model_len=1024,
    adapters=frozenset(),
    restarts=0,
    pid=100,
    device="gpu:0",
    cores=frozenset(),
    card=CARD,
    engine_version="0.32.0",
    problem=None,
    log_path=None,
    memory_bytes=None,
    gauges=None,
)


def record(**fields: Any) -> RequestRecord:
    return msgspec.structs.replace(_RECORD, **fields)


def tokens(times: Sequence[float], **fields: Any) -> Stream:
    return replace(Stream(times=list(times)), **fields)


def packed(streams: Sequence[Stream]) -> TokenTimes:
    """As a worker sends them; those without times are left out."""
    streams = [stream for stream in streams if stream.times]
    sources = list(dict.fromkeys(stream.source for stream in streams))
    return TokenTimes(
        sources=sources,
        ids=[stream.id for stream in streams],
        source_of=array("I", [sources.index(stream.source) for stream in streams]).tobytes(),
        counts=array("I", [len(stream.times) for stream in streams]).tobytes(),
        sent_at=array("d", [stream.sent_at for stream in streams]).tobytes(),
        previous_at=array(
            "d", [nan if stream.previous_at is None else stream.previous_at for stream in streams]
        ).tobytes(),
        times=array("d", [at for stream in streams for at in stream.times]).tobytes(),
    )


def unpacked(tokens: TokenTimes) -> list[Stream]:
    """What `packed` packs."""
    times = iter(array("d", tokens.times))
    return [
        Stream(
            id=id_,
            sent_at=sent_at,
            previous_at=None if previous_at != previous_at else previous_at,
            times=[next(times) for _ in range(count)],
            **msgspec.structs.asdict(tokens.sources[source]),
        )
        for id_, source, count, sent_at, previous_at in zip(
            tokens.ids,
            array("I", tokens.source_of),
            array("I", tokens.counts),
            array("d", tokens.sent_at),
            array("d", tokens.previous_at),
            strict=True,
        )
    ]


def gauges(**fields: Any) -> WorkerGauges:
    return msgspec.structs.replace(_GAUGES, **fields)


def batch(
    seq: int = 1,
    *,
    at: float = 1001.0,
    records: Sequence[RequestRecord] = (),
    streams: Sequence[Stream] = (),
    **fields: Any,
) -> Batch:
    """`fields` are the gauges'."""
    return Batch(seq=seq, at=at, records=list(records), tokens=packed(streams), gauges=gauges(**fields))


def used(id_: str, energy: int, *, adapter: str = "none", **fields: Any) -> RequestEnergy:
    """What a request has used, all of it for its output."""
    one = RequestEnergy(
        key=RecordKey("boot-1", 1, 0),
        id=id_,
        labels=("demo-int4", "demo", "int4", "int4", adapter),
        prefill=Microjoules(0),
        decode=Microjoules(energy),
        scope="gpu",
        method="token_share",
        confidence=0.3,
        completed=True,
        whole=True,
    )
    return one._replace(**fields)


def worker(boot: str = "boot-1", slot: int = 0) -> Hello:
    return Hello(version=PROTOCOL_VERSION, slot=slot, pid=1, boot=boot)


def replica(**fields: Any) -> Replica:
    """`gauges` may be a dictionary: what it leaves out is None."""
    said = fields.pop("gauges", None)
    if isinstance(said, dict):
        said = EngineGauges(**(dict.fromkeys(EngineGauges.__slots__) | said))
    return replace(_REPLICA, gauges=said, **fields)
