"""What a hostile or a broken peer makes of valid bytes; the same every time for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random

__all__ = ["mutated", "pieces_of"]

_LETTERS = b"\x00\x09\x0a\x0d\x20\x22\x25\x2c\x2f\x3a\x3b\x7f\x80\xff0aZ{}"


def mutated(random: Random, corpus: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One of the corpus after one to four changes; `words` are what is worth putting in."""
    data = random.choice(corpus)
    for _ in range(random.randint(1, 4)):
        change = random.choice((_replaced, _shortened, _repeated, _cut, _with_word, _with_line, _spliced, _followed))
        data = change(random, data, words if change in {_with_word, _with_line} else corpus)
    return data


def pieces_of(random: Random, data: bytes) -> list[bytes]:
    """The bytes in one piece or in a few."""
    edges = sorted({0, len(data), *(_place(random, data) for _ in range(random.choice([0, 0, 1, 4])))})
    return [data[start:end] for start, end in pairwise(edges)]


def _place(random: Random, data: bytes) -> int:
    return random.randrange(len(data) + 1)


def _range(random: Random, data: bytes) -> tuple[int, int]:
    start = _place(random, data)
    return start, min(len(data), start + random.choice([1, 2, 8, 60]))


def _replaced(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(random, data)
    letter = random.choice(_LETTERS) if random.random() < 0.5 else random.randrange(256)
    return data[:at] + bytes([letter]) + data[at + 1 :]


def _shortened(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _range(random, data)
    return data[:start] + data[end:]


def _repeated(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _range(random, data)
    return data[:end] + data[start:end] * random.choice([1, 2, 50]) + data[end:]


def _cut(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: _place(random, data)]


def _with_word(random: Random, data: bytes, words: Sequence[bytes]) -> bytes:
    at = _place(random, data)
    return data[:at] + random.choice(words) + data[at:]


def _with_line(random: Random, data: bytes, words: Sequence[bytes]) -> bytes:
    lines = data.split(b"\r\n")
    lines.insert(random.randint(1, min(len(lines), 8)), random.choice(words))
    return b"\r\n".join(lines)


def _spliced(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    other = random.choice(corpus)
    return data[: _place(random, data)] + other[_place(random, other) :]


def _followed(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    return data + random.choice(corpus)
