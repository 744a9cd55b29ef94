"""Calibration text as windows of tokens.

Windows do not overlap and are drawn by a seeded generator, so equal text and options give equal windows.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch.utils.data import DataLoader

from quant.compressor.options import CompressorOptions
from quant.demo import stdlib
from quant.errors import SourceError

__all__ = ["Calibration", "read_calibration"]

_CHOICE: Final = 4  # of the corpus, this many times the tokens asked for are read, and windows drawn from them
_LONGEST_FILE_BYTES: Final = 64_000_000  # minutes of tokenizing; calibration needs a hundredth of it
_BATCH_TOKENS: Final = 4096  # a forward pass: enough to hide what every pass costs besides, small beside the weights

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a method looks at."""

    windows: torch.Tensor
    """(samples, length) int64: token ids."""
    sha256: str
    """Of the windows: equal digests mean equal calibration."""

    def loader(self) -> DataLoader[Any]:
        """Batches in order, as llm-compressor reads them; all windows are of one length, so nothing is padded."""
        rows: Any = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in self.windows]
        return DataLoader(rows, batch_size=max(1, _BATCH_TOKENS // self.windows.shape[1]), shuffle=False)


def read_calibration(options: CompressorOptions, encode: Encode, end: int | None) -> Calibration:
    """Draw the windows; `end` joins documents. Raises `SourceError` if the text is missing or too short."""
    wanted = options.samples * options.length
    if options.calibration is None:
        ids = _take(_corpus(options.seed), encode, end, _CHOICE * wanted)
        name = "The demo's corpus"
    else:
        ids = encode(_read(options.calibration))
        name = str(options.calibration)
    count = len(ids) // options.length
    if count < options.samples:
        raise SourceError(
            f"{name} holds {len(ids)} tokens, which is {count} samples of {options.length}; {options.samples} are "
            "asked for. Give a longer text, or smaller `samples` or `length`."
        )
    chance = random.Random(options.seed)  # noqa: S311 - a draw that repeats, no secret
    starts = sorted(chance.sample(range(count), options.samples))
    windows = torch.tensor([ids[start * options.length : (start + 1) * options.length] for start in starts])
    return Calibration(windows=windows, sha256=hashlib.sha256(windows.numpy().tobytes()).hexdigest())


def _corpus(seed: int) -> Sequence[str]:
    """The texts that the demo model was trained on, shuffled; never those that quality is measured on."""
    texts = [text for name, text in stdlib.sources() if name.split(".")[0] not in stdlib.HELD_OUT_MODULES]
    texts += stdlib.topics()
    random.Random(seed).shuffle(texts)  # noqa: S311 - a draw that repeats, no secret
    return texts


def _take(texts: Sequence[str], encode: Encode, end: int | None, count: int) -> list[int]:
    ids: list[int] = []
    for piece in _encoded(texts, encode, end):
        ids += piece
        if len(ids) >= count:
            break
    return ids


def _encoded(texts: Sequence[str], encode: Encode, end: int | None) -> Iterator[list[int]]:
    for text in texts:
        yield [*encode(text), end] if end is not None else encode(text)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LONGEST_FILE_BYTES:
            raise SourceError(f"{path} is larger than 64 MB. Give a part of it: calibration needs far less.")
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        reason = exc.strerror or exc
        raise SourceError(f"The calibration text {path} cannot be read: {reason}. Check the path.") from exc
    except UnicodeDecodeError as exc:
        raise SourceError(f"{path} is not UTF-8 text: {exc.reason} at byte {exc.start}. Give a text file.") from exc
