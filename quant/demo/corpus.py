"""Token streams for training, and the text that is held out.

Two streams: `plain` (sources and the language reference, documents joined by the end token) and `chat` (dialogues
packed from the start of a sequence, so that the model sees conversations begin at position 0).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from transformers import PreTrainedTokenizerFast

from quant.demo import stdlib
from quant.demo.dialogues import GREETINGS, STYLES, Dialogue, conversation
from quant.demo.tokenizer import END, render_dialogue

__all__ = ["HELDOUT_FILE", "Corpus", "held_out_text", "read_corpus", "texts_for_tokenizer"]

HELDOUT_FILE: Final = Path(__file__).with_name("heldout.txt")
_HELD_OUT_CHARACTERS_EACH: Final = 6_000  # of each held-out module, from its beginning
_GREETING_SHARE: Final = 0.04

_Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What the base model learns from."""

    plain: torch.Tensor  # (tokens,) int32
    entries: Sequence[stdlib.Entry]  # without the held-out ones
    encode: _Encode
    sha256: str  # of the plain text: equal digests mean equal text

    def plain_batch(self, rows: int, length: int, chance: random.Random) -> torch.Tensor:
        """Random windows of the plain stream, (rows, length + 1) int64."""
        starts = [chance.randrange(len(self.plain) - length - 1) for _ in range(rows)]
        return torch.stack([self.plain[start : start + length + 1] for start in starts]).long()

    def chat_batch(self, rows: int, length: int, chance: random.Random) -> torch.Tensor:
        """Packed dialogues, (rows, length + 1) int64."""
        return torch.tensor([self._chat_row(length + 1, chance) for _ in range(rows)])

    def _chat_row(self, length: int, chance: random.Random) -> list[int]:
        row: list[int] = []
        while len(row) < length:
            row += self.encode("".join(render_dialogue(*self._dialogue(chance))))
        return row[:length]

    def _dialogue(self, chance: random.Random) -> Dialogue:
        if chance.random() < _GREETING_SHARE:
            return chance.choice(GREETINGS)
        return conversation(chance.choice(self.entries), STYLES["prose"], chance)


def texts_for_tokenizer() -> Iterator[str]:
    """Everything but the held-out modules: sources, reference, and the dialogues in all three styles."""
    yield from _training_texts()
    chance = random.Random(0)  # noqa: S311 - a fixed seed, no secret
    for entry in stdlib.entries():
        if not entry.held_out:
            yield from (text for style in STYLES.values() for text in conversation(entry, style, chance))


def read_corpus(tokenizer: PreTrainedTokenizerFast) -> Corpus:
    """Encode the training text once (about ten seconds)."""

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    texts = list(_training_texts())
    ids = [token for text in texts for token in encode(text + END)]
    return Corpus(
        plain=torch.tensor(ids, dtype=torch.int32),
        entries=[entry for entry in stdlib.entries() if not entry.held_out],
        encode=encode,
        sha256=hashlib.sha256("\0".join(texts).encode()).hexdigest(),
    )


def held_out_text() -> str:
    """The beginnings of the held-out modules, joined: prose of docstrings and code, a few tens of kilobytes."""
    pieces = [text[:_HELD_OUT_CHARACTERS_EACH] for name, text in stdlib.sources() if name in stdlib.HELD_OUT_MODULES]
    return "\n\n".join(pieces)


def _training_texts() -> Iterator[str]:
    reference = stdlib.topics()
    yield from reference
    for name, text in stdlib.sources():
        if name.split(".")[0] not in stdlib.HELD_OUT_MODULES:
            yield text
    yield from reference  # twice: it is the only long prose there is
