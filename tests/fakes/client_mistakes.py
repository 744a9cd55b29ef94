"""Bodies as clients should send them, and as they do."""

from __future__ import annotations

from random import Random
from typing import Any, Final

__all__ = ["VALID", "mutated"]

VALID: Final[dict[str, dict[str, Any]]] = {
    "openai": {"model": "demo", "prompt": "Hi", "stream": True, "stream_options": {"include_usage": False, "x": [1]}},
    "openai_chat": {"model": "demo", "messages": [{"role": "user", "content": "ä"}], "stream": None},
    "responses": {"model": "demo", "input": [{"role": "user", "content": "Hi"}], "store": False, "stream": True},
    "messages": {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "stream": True},
    "messages_count": {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "system": "s"},
}
"""By grammar."""

TOKENS: Final = (
    b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"-1e999", b"9" * 40, b"\xff", b"\x00", b" \n",
    b'"model"', b'"mod\\u0065l"', b'"model":"x",', b'"stream":', b'"stream_options":', b'{"include_usage":1}',
    b"\\ud800", b'"store":true,', b'"messages":[],', b"[" * 3000, b'{"a":' * 3000, b"\xef\xbb\xbf", "ä€😀".encode(),
)  # fmt: skip


def mutated(body: bytes, random: Random) -> bytes:
    """Cut, doubled, overwritten, with pieces of JSON where they do not belong."""
    for _ in range(random.choice((1, 1, 2, 5))):
        start, end = sorted(random.randrange(len(body) + 1) for _ in range(2))
        body = random.choice(
            (
                body[:start] + body[end:],
                body[:start] + random.choice(TOKENS) + body[start:],
                body[:start] + random.choice(TOKENS) + body[end:],
                body[:end] + body[start:],
                body[:start] + bytes([random.randrange(256)]) + body[start + 1 :],
                body[: start + 1].replace(b"{", b"{" + random.choice(TOKENS)) + body[start + 1 :],
            )
        )
    return body
