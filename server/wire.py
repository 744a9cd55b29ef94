"""What workers and the control plane tell each other, and how it is framed.

A frame is a little-endian uint32 length and that many bytes of msgpack. The first frame on a connection is the
worker's `Hello`; a control plane of another `PROTOCOL_VERSION` closes the connection. Then, as they occur:

    worker → control   Batch      records of ended requests, token arrival times, gauges of the worker
    control → worker   Snapshot   the whole routing table, numbered by its control plane
                       Ack        the control plane holds this batch and all before it; the worker may forget them
                       Drain      finish what runs, accept nothing new

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

__all__ = [
    "LENGTH_BYTES",
    "MAX_FRAME_BYTES",
    "NO_ADAPTER",
    "PROTOCOL_VERSION",
    "Ack",
    "Batch",
    "Candidate",
    "Drain",
    "Hello",
    "Outcome",
    "ReplicaAddress",
    "RequestRecord",
    "Route",
    "Snapshot",
    "ToControl",
    "ToWorker",
    "TokenTimes",
    "WorkerGauges",
    "decode_to_control",
    "decode_to_worker",
    "encode",
    "frame_length",
]

PROTOCOL_VERSION: Final = 1
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
NO_ADAPTER: Final = "none"
"""The adapter's name where there is none, as it stands on metrics."""

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


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request, once it has ended. `None` means unknown or never reached, never zero."""

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


class TokenTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Arrival times of one stream's token chunks since this worker's last batch; each time is sent exactly once."""

    id: str
    tenant: str
    model: str
    variant: str
    precision: str
    adapter: str
    engine: str
    sent_at: float
    previous_at: float | None
    """The last token chunk before these; None if the first of `times` is the stream's first."""
    times: bytes
    """float64 little-endian, ascending."""


class WorkerGauges(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is doing now."""

    in_flight: dict[str, int]
    """Requests sent and not ended, by engine."""
    queued: int
    loop_lag_s: float
    """The longest that the event loop was late since the last batch."""
    records_dropped: int
    """Records given up since this worker started, because no control plane took them."""
    rejections: dict[str, int]
    """Admission refusals since this worker started, by reason."""
    retries: dict[str, int]
    """Retries since this worker started, by reason."""


class Batch(msgspec.Struct, frozen=True, kw_only=True, tag="batch"):
    """What happened in a worker since the batch before."""

    seq: int
    """Counts from 1 in each life of a worker."""
    at: float
    records: list[RequestRecord]
    tokens: list[TokenTimes]
    gauges: WorkerGauges


ToControl = Hello | Batch


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


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    """All that a worker must know; it replaces what the worker had."""

    version: int
    replicas: dict[str, ReplicaAddress]
    routes: dict[str, Route]


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag="ack"):
    """The control plane holds the batch `seq` and all before it."""

    seq: int


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag="drain"):
    """Finish what runs within `timeout_s`, accept nothing new."""

    timeout_s: float


ToWorker = Snapshot | Ack | Drain


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
