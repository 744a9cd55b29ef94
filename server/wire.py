"""What workers and the control plane tell each other, and how it is framed.

A frame is a little-endian uint32 length and that many bytes of msgpack. The first frame on a connection is the
worker's `Hello`; a control plane of another `PROTOCOL_VERSION` closes the connection. Then, as they occur:

    worker → control   Batch      records of ended requests, token arrival times, gauges of the worker
                       LeaseWanted  a part of a key's limits, or some of it back
    control → worker   Snapshot   the whole routing table and the keys, numbered by its control plane
                       Prices     what tokens cost in joules lately, by engine
                       Budgets    which tenants have used up what they may use, or nearly
                       Lease      what the worker may spend of a key's limits, or that there is no more
                       Recall     give back what is not in use of a key's limits
                       Ack        the control plane holds this batch and all before it; the worker may forget them

A worker keeps every batch until it is acknowledged and sends what is not again to the next control plane, so a killed
control plane loses no record; what exceeds the worker's bound is dropped, oldest first, and counted.
All times are CLOCK_MONOTONIC seconds of the host that both run on.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import Any, Final

import msgspec

from server.errors import WireError
from server.units import Seconds

__all__ = [
    "LEASE_PATIENCE",
    "LENGTH_BYTES",
    "MAX_FRAME_BYTES",
    "NO_ADAPTER",
    "PROTOCOL_VERSION",
    "Ack",
    "Amounts",
    "Batch",
    "BudgetState",
    "Budgets",
    "Candidate",
    "Hello",
    "KeyGrant",
    "Lease",
    "LeaseWanted",
    "News",
    "Outcome",
    "Price",
    "Prices",
    "Recall",
    "ReplicaAddress",
    "ReplicaSeen",
    "RequestRecord",
    "Route",
    "Snapshot",
    "Source",
    "ToControl",
    "ToWorker",
    "TokenTimes",
    "WorkerGauges",
    "decode_to_control",
    "decode_to_worker",
    "encode",
    "frame_length",
]

PROTOCOL_VERSION: Final = 3
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
NO_ADAPTER: Final = "none"
"""The adapter's name where there is none, as it stands on metrics."""

LEASE_PATIENCE: Final = Seconds(0.25)
"""Longest that a request waits for a lease."""

_LENGTH = struct.Struct("<I")


class Outcome(StrEnum):
    """How a request ended; a closed vocabulary, it is a metric label."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    """The gateway or the engine answered 4xx other than 429."""
    REJECTED = "rejected"
    """Refused for load: 429, or 503 before any engine was tried."""
    CANCELLED = "cancelled"
    """The client left before the last byte."""
    UPSTREAM_ERROR = "upstream_error"
    """The engine answered 5xx, refused the connection or died before the first byte."""
    UPSTREAM_TIMEOUT = "upstream_timeout"
    TRUNCATED = "truncated"
    """The engine died in the middle of the answer."""
    INTERNAL_ERROR = "internal_error"
    """A defect of the gateway."""


# --- up: worker → control ---------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """The first frame of a worker."""

    version: int
    slot: int
    """Which of the launcher's listening sockets this worker serves, from 0."""
    pid: int
    boot: str
    """A random name of this worker's life; with a batch's number it makes the batch unique."""


class RequestRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request, once it has ended. `None` means unknown or never reached, never zero.

    There is one for every request: on the wire it is an array without names, and it may be built by position, which
    takes a quarter of the time.
    """

    id: str
    endpoint: str
    """The route's short name: `chat`, `completions`, `embeddings`, `tokenize`, …"""
    tenant: str
    requested_model: str | None
    model: str | None
    """The base model's id; like `variant`, `precision`, `engine` None if the request was never routed."""
    variant: str | None
    precision: str | None
    adapter: str
    engine: str | None
    outcome: Outcome
    status: int
    """The HTTP status sent to the client (499 if it left before one was sent)."""
    streamed: bool
    cancelled_when: str | None
    """`queued`, `before_first_token` or `streaming`; None unless cancelled."""
    retries: int
    received_at: float
    """The request's headers had arrived."""
    queue_s: float
    """Waited for admission."""
    sent_at: float | None
    """The last byte of the request left for the engine."""
    first_byte_at: float | None
    first_token_at: float | None
    """The first content, reasoning or tool-call token (streams), else None."""
    last_token_at: float | None
    upstream_done_at: float | None
    """The engine's last byte had arrived."""
    ended_at: float
    prompt_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    token_chunks: int
    """Streamed chunks that carried tokens; equal to `output_tokens` where the engine sends one token a chunk."""
    tokens_spared: int | None = None
    """Of a cancelled request: tokens that it allowed the engine to write and that were not written.

    None where it set no bound, or where nobody knows how many were written because the answer was to come whole.
    """


class Source(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Whose tokens they are: a tenant's, from a model as one replica serves it."""

    tenant: str
    model: str
    variant: str
    precision: str
    adapter: str
    engine: str


class TokenTimes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Arrival times of token chunks since this worker's last batch; each time is sent exactly once.

    There may be thousands of streams, so they are columns: `ids` and what is packed beside it have one entry for each
    stream of which a chunk came, all little-endian. `server.arrivals` makes arrays of them.
    """

    sources: list[Source] = []
    """Each once."""
    ids: list[str] = []
    """The requests'."""
    source_of: bytes = b""
    """uint32: the place in `sources`."""
    counts: bytes = b""
    """uint32, at least 1: how many of `times` are the stream's."""
    sent_at: bytes = b""
    """float64."""
    previous_at: bytes = b""
    """float64: the stream's last token chunk before these; NaN if these are its first."""
    times: bytes = b""
    """float64, stream after stream, ascending within each."""


class ReplicaSeen(msgspec.Struct, array_like=True):
    """What one worker saw at one replica since its last batch, attempts counted by how they went.

    Counted up by the worker, the only one to write it.
    """

    answered: int = 0
    """The head of an answer came, with a status that is none of the following."""
    unreachable: int = 0
    lost: int = 0
    """The connection broke, or what came was nonsense."""
    timed_out: int = 0
    """The request was taken, and then there was silence."""
    broken: int = 0
    """502, 504."""
    refused: int = 0
    """429, 503."""
    erred: int = 0
    """500 and what else says that the engine failed: perhaps by the request's fault."""

    @property
    def failed(self) -> int:
        return self.unreachable + self.lost + self.timed_out + self.broken


class WorkerGauges(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is doing now."""

    in_flight: dict[str, int]
    """Requests sent and not ended, by engine."""
    queued: int
    loop_lags_s: list[float]
    """By how much the event loop was late, each time that it was measured since the last batch."""
    records_dropped: int
    """Records given up since this worker started, because no control plane took them."""
    rejections: dict[str, int]
    """Admission refusals since this worker started, by reason."""
    retries: dict[str, int]
    """Retries since this worker started, by reason."""
    table: int = 0
    """The version of the snapshot by which it routes; 0: it has none yet."""
    seen: dict[str, ReplicaSeen] = {}
    """Since the last batch, by engine; where nothing was seen, nothing."""


class Batch(msgspec.Struct, frozen=True, kw_only=True, tag="batch"):
    """What happened in a worker since the batch before."""

    seq: int
    """Counts from 1 in each life of a worker."""
    at: float
    records: list[RequestRecord]
    tokens: TokenTimes
    gauges: WorkerGauges


class Amounts(msgspec.Struct, frozen=True, array_like=True):
    """Of each limit of a key. Where the key has no such limit the number means nothing and is 0."""

    requests: int = 0
    tokens: int = 0
    seats: int = 0
    """Requests at the same time."""


class LeaseWanted(msgspec.Struct, frozen=True, kw_only=True, tag="lease_wanted"):
    """A worker asks for a part of a key's limits, gives some back, or both.

    A `Lease` answers unless `most` is nothing.
    """

    key: str
    """The grant's id."""
    least: Amounts = Amounts()
    """Less than this is of no use: then grant nothing."""
    most: Amounts = Amounts()
    back: Amounts = Amounts()
    """Not used; negative: used without a lease (a debt, or the share taken while no control plane answered)."""
    recalled: bool = False
    """This answers a `Recall`."""


ToControl = Hello | Batch | LeaseWanted


# --- down: control → worker -------------------------------------------------------------------------------------------


class ReplicaAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replica is reached."""

    name: str
    host: str
    port: int
    tls: bool
    path_prefix: str
    """Stands before `/v1/…`; empty or `/something` without a trailing slash."""
    api_key: str | None
    healthy: bool
    rewrite_model: bool
    """The replica calls itself other than clients do: the answer's `model` must be rewritten to `answer_model`."""
    max_in_flight: int | None = None
    """Requests that a worker may have there at a time; None: no bound."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One replica that can serve a public id, and as what."""

    replica: str
    model: str
    variant: str
    precision: str
    adapter: str
    upstream_model: str
    """The name to send in the body's `model`."""
    answer_model: str
    """The public id of what serves: `demo:int4`, `json:int4`."""
    weight: float = 1.0
    """Its share of the requests, to policies that look at it."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One public id: what clients may write into `model`."""

    id: str
    task: str
    """`generate`, `embed` or `score`: decides which endpoints accept the id."""
    policy: str
    """The routing policy that picks among `candidates`."""
    candidates: list[Candidate]
    listed: bool
    """Stands in `GET /v1/models`: every replica that should serve it can."""
    card: dict[str, Any]
    """The extra fields of `GET /v1/models`: precision, parameters, size_bytes, …"""
    starting: bool = False
    """A replica of it is about to start or starts: a request may wait for it."""


class KeyGrant(msgspec.Struct, frozen=True, kw_only=True):
    """What an API key allows. None is no bound."""

    id: str
    """Names the key in lists and logs; the key itself is never sent."""
    tenant: str
    models: list[str] | None = None
    """The public ids that it may ask for."""
    priority: int = 0
    """The band of admission: 0 waits as everybody does, lower goes first, higher goes last."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    """All that a worker must know; it replaces what the worker had."""

    version: int
    replicas: dict[str, ReplicaAddress]
    routes: dict[str, Route]
    keys: dict[str, KeyGrant] | None = None
    """By the hex digest of the key; None: there are no keys, and everybody who reaches the gateway is served."""


class Price(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What tokens cost at one engine lately, µJ. None: nothing was measured."""

    prompt_token: float | None
    """A computed prompt token: one that the prefix cache did not hold."""
    output_token: float | None
    method: str
    scope: str


class Prices(msgspec.Struct, frozen=True, kw_only=True, tag="prices"):
    """Joule prices, for provisional figures; they replace what the worker had."""

    engines: dict[str, Price]


class BudgetState(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant that is over a bound of its budget."""

    spent: bool
    """A hard bound is reached: refuse. Else a soft one: say so in a header."""
    reason: str
    """Which bound, in words: `1000 J a day`."""
    ends_at: float
    """When its period ends: then it begins anew, whoever says so or not."""


class Budgets(msgspec.Struct, frozen=True, kw_only=True, tag="budgets"):
    """The tenants over a bound; it replaces what the worker had."""

    tenants: dict[str, BudgetState]


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag="ack"):
    """The control plane holds the batch `seq` and all before it."""

    seq: int


class Lease(msgspec.Struct, frozen=True, kw_only=True, tag="lease"):
    """What the worker holds of a key's limits from now on, besides what it held before."""

    key: str
    granted: Amounts
    left: Amounts
    """What the control plane still has; requests and tokens come back at the limit's rate."""
    more: bool = False
    """Nothing yet, but others were asked to give back: another lease follows within `LEASE_PATIENCE`, or none."""


class Recall(msgspec.Struct, frozen=True, kw_only=True, tag="recall"):
    """Another worker needs it: give back what is not in use, and for `LEASE_PATIENCE` what comes free."""

    key: str


News = Snapshot | Prices | Budgets
"""What a control plane says to all workers; of each kind the newest counts."""

ToWorker = News | Ack | Lease | Recall


# --- framing ----------------------------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_to_control: msgspec.msgpack.Decoder[ToControl] = msgspec.msgpack.Decoder(ToControl)
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)

LENGTH_BYTES: Final = _LENGTH.size


def encode(message: ToControl | ToWorker) -> bytes:
    """A whole frame: length, then msgpack."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"A frame of {len(body)} bytes is over the bus's bound of {MAX_FRAME_BYTES}.")
    return _LENGTH.pack(len(body)) + body


def frame_length(header: bytes) -> int:
    """The length that a frame's first four bytes announce; raises `WireError` if it is over the bound."""
    (length,) = _LENGTH.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise WireError(f"A frame announces {length} bytes, the bus's bound is {MAX_FRAME_BYTES}.")
    return int(length)


def decode_to_control(body: bytes) -> ToControl:
    """A worker's message; raises `WireError` if it is none."""
    try:
        return _to_control.decode(body)
    except msgspec.MsgspecError as exc:
        raise WireError(f"A worker sent what this control plane cannot read: {exc}.") from exc


def decode_to_worker(body: bytes) -> ToWorker:
    """A control plane's message; raises `WireError` if it is none."""
    try:
        return _to_worker.decode(body)
    except msgspec.MsgspecError as exc:
        raise WireError(f"The control plane sent what this worker cannot read: {exc}.") from exc
