"""Eight 4-bit integers in a 32-bit word, as compressed-tensors' `pack-quantized` has them.

The first value lies in the lowest four bits; each is stored as value + 8.
Source: compressed-tensors, compressors/pack_quantized/helpers.py, `pack_to_int32`.
"""

from __future__ import annotations

from typing import Final

import torch

__all__ = ["LARGEST", "SMALLEST", "VALUES_PER_WORD", "pack", "unpack"]

SMALLEST, LARGEST = -8, 7
VALUES_PER_WORD: Final = 8


def pack(values: torch.Tensor) -> torch.Tensor:
    """(N, K) of whole numbers -8 … 7, K a multiple of 8 → int32 (N, K/8)."""
    # Eight bytes, seen as one little-endian 64-bit number, are pushed together in three steps: far fewer operations
    # than a shift for each of the eight.
    words = (values.to(torch.int8) - SMALLEST).contiguous().view(torch.int64)
    words |= words >> 4
    words &= 0x00FF00FF00FF00FF
    words |= words >> 8
    words &= 0x0000FFFF0000FFFF
    words |= words >> 16
    return words.to(torch.int32)


def unpack(words: torch.Tensor) -> torch.Tensor:
    """int32 (N, K/8) → int8 (N, K) in -8 … 7."""
    pairs = words.contiguous().view(torch.uint8)
    nibbles = torch.stack((pairs & 0x0F, pairs >> 4), dim=-1).flatten(1)
    return nibbles.to(torch.int8) + SMALLEST
