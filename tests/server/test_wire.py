"""Frames on the bus."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import WireError
from server.wire import (
    LENGTH_BYTES,
    MAX_FRAME_BYTES,
    Ack,
    Hello,
    Recall,
    decode_to_control,
    decode_to_worker,
    encode,
    frame_length,
)


@given(st.integers(0, 2**63 - 1))
def test_frame_reads_back(seq: int) -> None:
    frame = encode(Ack(seq=seq))
    assert frame_length(frame[:LENGTH_BYTES]) == len(frame) - LENGTH_BYTES
    assert decode_to_worker(frame[LENGTH_BYTES:]) == Ack(seq=seq)


@given(st.binary(max_size=200))
def test_nonsense_is_a_wire_error_and_nothing_else(body: bytes) -> None:
    for decode in (decode_to_control, decode_to_worker):
        with contextlib.suppress(WireError):
            decode(body)


def test_message_of_the_wrong_direction_is_refused() -> None:
    with pytest.raises(WireError):
        decode_to_control(encode(Recall(key="x"))[LENGTH_BYTES:])
    with pytest.raises(WireError):
        decode_to_worker(encode(Hello(version=1, slot=0, pid=1, boot="x"))[LENGTH_BYTES:])


def test_announced_length_over_the_bound_is_refused_before_it_is_read() -> None:
    with pytest.raises(WireError, match="announces"):
        frame_length((MAX_FRAME_BYTES + 1).to_bytes(4, "little"))
