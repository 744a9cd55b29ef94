"""What a hostile or a broken peer makes of valid bytes; the same every time for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

__all__ = ["mutated", "pieces_of"]

_LETTERS = b"\x00\x09\x0a\x0d\x20\x22\x25\x2c\x2f\x3a\x3b\x7f\x80\xff0aZ{}"


def mutated(random: Random, corpus: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One of the corpus after one to four changes; `words` are what is worth putting in."""
    data = random.choice(corpus)
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(data) + 1)
        end = min(len(data), start + random.choice([1, 2, 8, 60]))
        match random.randrange(8):
            case 0:
                letter = random.choice(_LETTERS) if random.random() < 0.5 else random.randrange(256)
                data = data[:start] + bytes([letter]) + data[start + 1 :]
            case 1:
                data = data[:start] + data[end:]
            case 2:
                data = data[:end] + data[start:end] * random.choice([1, 2, 50]) + data[end:]
            case 3:
                data = data[:start] + random.choice(words) + data[start:]
            case 4:
                lines = data.split(b"\r\n")
                lines.insert(random.randrange(1, min(len(lines), 8) + 1), random.choice(words))
                data = b"\r\n".join(lines)
            case 5:
                other = random.choice(corpus)
                data = data[:start] + other[random.randrange(len(other) + 1) :]
            case 6:
                data = data[:start]
            case _:
                data += random.choice(corpus)
    return data


def pieces_of(random: Random, data: bytes) -> list[bytes]:
    """The bytes in one piece or in a few."""
    edges = sorted({0, len(data), *(random.randrange(len(data) + 1) for _ in range(random.choice([0, 0, 1, 4])))})
    return [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]
