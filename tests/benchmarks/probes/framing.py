"""Requests whose end two readers could see in two places: refused, or understood as RFC 9112 allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.benchmarks.probes.engine import answer
from tests.benchmarks.probes.ground import Cell, Ground, Probe, right_if

__all__ = ["PROBES"]


def _refused(
    title: str, data: Callable[[Ground, bytes], bytes], *, tolerable: bool = False, if_closed: bool = False
) -> Probe:
    """A probe that sends these bytes, given a chat request's body.

    `tolerable`: RFC 9112 lets a recipient understand them; `if_closed`: provided that it then closes the connection.
    """

    async def probe(ground: Ground) -> Cell:
        body = ground.chat()
        ground.engine.begin(answer())
        async with ground.wire() as wire:
            await wire.send(data(ground, body))
            await wire.whole(3.0)
            got = await wire.read(lambda _: False, 0.5)
        reached = ground.engine.exchanges
        refused = not reached and (got.closed or got.status in {400, 411, 431, 501})
        understood = tolerable and len(reached) == 1 and got.status == 200 and (got.closed or not if_closed)
        note = f"{got.shown}, reached the engine" if reached else got.shown
        return right_if(refused or understood, note + (", connection kept" if reached and not got.closed else ""))

    probe.__doc__ = title
    return probe


def _te_and_cl(ground: Ground, body: bytes) -> bytes:
    start = ground.head("Transfer-Encoding: chunked", length=len(body))
    return start + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def _two_lengths(ground: Ground, body: bytes) -> bytes:
    return ground.head(f"Content-Length: {len(body)}", length=len(body) + 7) + body + b"GET / H"


def _plus_sign(ground: Ground, body: bytes) -> bytes:
    return ground.head(f"Content-Length: +{len(body)}") + body


def _chunk_size(ground: Ground, body: bytes) -> bytes:
    return ground.head("Transfer-Encoding: chunked") + b"0x%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def _te_twice(ground: Ground, body: bytes) -> bytes:
    return ground.head("Transfer-Encoding: chunked, identity") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def _space_before_colon(ground: Ground, body: bytes) -> bytes:
    return ground.head(f"Content-Length : {len(body)}") + body


def _bare_lf(ground: Ground, body: bytes) -> bytes:
    return ground.head(length=len(body)).replace(b"\r\n", b"\n") + body


def _obs_fold(ground: Ground, body: bytes) -> bytes:
    return ground.head("X-Folded: one\r\n two", length=len(body)) + body


PROBES: Final = (
    _refused("Transfer-Encoding with Content-Length", _te_and_cl, tolerable=True, if_closed=True),
    _refused("Two Content-Lengths", _two_lengths),
    _refused("Content-Length with a plus sign", _plus_sign),
    _refused("Chunk size with garbage", _chunk_size),
    _refused("Transfer-Encoding: chunked, identity", _te_twice),
    _refused("Space before a colon", _space_before_colon),
    _refused("Bare LF as line end", _bare_lf, tolerable=True),
    _refused("Folded header", _obs_fold, tolerable=True),
)
