"""Token times of many streams, as columns and as arrays."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.arrivals import Arrivals
from server.errors import WireError
from server.wire import LENGTH_BYTES, Batch, TokenTimes, decode_to_control, encode
from tests.fakes.batches import Stream, batch, packed, tokens, unpacked

TIMES = st.lists(st.floats(0, 1e6), min_size=1, max_size=5).map(sorted)
STREAMS = st.lists(
    st.builds(
        lambda times, previous_at, adapter, tenant: tokens(
            times, previous_at=previous_at, adapter=adapter, tenant=tenant
        ),
        TIMES,
        st.none() | st.floats(0, 1e6),
        st.sampled_from(["none", "json"]),
        st.sampled_from(["alice", "bob"]),
    ),
    max_size=8,
)


@given(STREAMS)
def test_streams_cross_the_wire_whole(streams: list[Stream]) -> None:
    heard = decode_to_control(encode(batch(streams=streams))[LENGTH_BYTES:])
    assert isinstance(heard, Batch)
    assert unpacked(heard.tokens) == streams


@given(STREAMS)
def test_gaps_are_those_within_each_stream_and_to_what_came_before(streams: list[Stream]) -> None:
    arrivals = Arrivals.of(packed(streams))
    expected = []
    for stream in streams:
        known = stream.times if stream.previous_at is None else [stream.previous_at, *stream.times]
        expected += [(stream.source, gap) for gap in np.diff(known).tolist()]
    places, gaps = arrivals.gaps()
    assert [(arrivals.sources[place], gap) for place, gap in zip(places, gaps, strict=True)] == expected


@pytest.mark.parametrize("change", [{"times": b""}, {"counts": np.array([0, 3], "<u4").tobytes()}])
def test_columns_that_do_not_fit_together_are_refused(change: dict[str, bytes]) -> None:
    whole = packed([tokens([1.0, 2.0]), tokens([3.0])])
    broken: TokenTimes = msgspec.structs.replace(whole, **change)
    with pytest.raises(WireError, match="token times"):
        Arrivals.of(broken)
