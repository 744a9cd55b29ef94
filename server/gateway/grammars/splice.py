"""Changes single members of a JSON object and leaves every other byte.

Works on objects that a JSON parser has accepted already. Only members of the outermost object are seen; a `"model"`
that stands deeper, or inside a string, is not. Where a key stands twice, both values are replaced, so that readers that
take the first and readers that take the last agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import msgspec

from server.errors import BadRequestError

__all__ = ["append_member", "change_inner", "replace_inner_member", "replace_member", "set_member"]

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_OUTER = re.compile(_STRING + rb"|[{}\[\],:]", re.DOTALL)
_INNER = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_TEXT_MEMBER = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(" + _STRING + rb")", re.DOTALL)
_OPENING, _CLOSING = frozenset(b"{["), frozenset(b"}]")
_WHITESPACE = frozenset(b" \t\r\n")
_QUOTE, _BRACE, _COLON, _BACKSLASH = ord('"'), ord("{"), ord(":"), ord("\\")


def append_member(body: bytes, key: str, value: bytes) -> bytes:
    """Put a member that is not there yet at the object's end."""
    end = body.rfind(b"}")
    if end < 0:
        raise BadRequestError("The body is not a JSON object; send one.")
    before = end - 1
    while before > 0 and body[before] in _WHITESPACE:
        before -= 1
    comma = b"" if body[before] == _BRACE else b","
    return b'%b%b"%b":%b%b' % (body[:end], comma, key.encode(), value, body[end:])


def replace_member(body: bytes, key: str, value: bytes, *, is_text: bool = False) -> bytes:
    """Give a member another value; without such a member nothing changes.

    `is_text`: the caller knows that the member is there and is a string, which makes it quick to find.
    """
    if is_text and (span := _only_text(body, key.encode())) is not None:
        return b"%b%b%b" % (body[: span[0]], value, body[span[1] :])
    pieces: list[bytes] = []
    kept_from = 0
    for start, end in _spans(body, key):
        pieces += (body[kept_from:start], value)
        kept_from = end
    if not pieces:
        return body
    pieces.append(body[kept_from:])
    return b"".join(pieces)


def set_member(body: bytes, key: str, value: bytes) -> bytes:
    """Give an object this member, whether or not it has it."""
    replaced = replace_member(body, key, value)
    return append_member(body, key, value) if replaced is body else replaced


def replace_inner_member(body: bytes, outer: str, key: str, value: bytes) -> bytes:
    """Give a member of the object that is the value of `outer` another value."""
    return change_inner(body, outer, lambda inner: replace_member(inner, key, value))


def change_inner(body: bytes, outer: str, change: Callable[[bytes], bytes]) -> bytes:
    """Put `change` of it in the place of the object that is the value of `outer`."""
    pieces: list[bytes] = []
    kept_from = 0
    for start, end in _spans(body, outer):
        if body[start] == _BRACE:
            pieces += (body[kept_from:start], change(body[start:end]))
            kept_from = end
    pieces.append(body[kept_from:])
    return b"".join(pieces)


def _only_text(body: bytes, key: bytes) -> tuple[int, int] | None:
    """Where the string of the member `key` stands if that is plain to see; the member is known to be there.

    A key that is spelled once, in a body that cannot spell letters as escapes, is the one that is there.
    """
    name = b'"%b"' % key
    at = body.find(name)
    if at < 0 or body.find(b"\\u00") >= 0 or body.find(name, at + 1) >= 0:
        return None
    member = _TEXT_MEMBER.match(body, at + len(name))
    return member.span(1) if member else None


def _spans(body: bytes, key: str) -> Iterator[tuple[int, int]]:
    """Where the values of `key` in the outermost object start and end."""
    wanted = key.encode()
    position = body.index(b"{") + 1
    name: bytes | None = None
    value_from = -1
    while token := _OUTER.search(body, position):
        position = token.end()
        mark = body[token.start()]
        if mark == _QUOTE:
            name = token[0] if value_from < 0 else name
        elif mark == _COLON:
            value_from = position
        elif mark in _OPENING:
            position = _after_container(body, position)
        else:  # a comma, or the object's end
            if name is not None and _is(name, wanted):
                yield _trimmed(body, value_from, token.start())
            if mark in _CLOSING:
                return
            name, value_from = None, -1


def _after_container(body: bytes, position: int) -> int:
    """The position behind the bracket that closes the container opened just before `position`."""
    depth = 1
    while token := _INNER.search(body, position):
        position = token.end()
        mark = body[token.start()]
        if mark in _OPENING:
            depth += 1
        elif mark in _CLOSING:
            depth -= 1
            if depth == 0:
                break
    return position


def _is(name: bytes, wanted: bytes) -> bool:
    if _BACKSLASH in name:  # `"mod\\u0065l"` is the key `model` as well
        return bool(msgspec.json.decode(name, type=str).encode() == wanted)
    return name[1:-1] == wanted


def _trimmed(body: bytes, start: int, end: int) -> tuple[int, int]:
    while body[start] in _WHITESPACE:
        start += 1
    while body[end - 1] in _WHITESPACE:
        end -= 1
    return start, end
