"""Scales by the largest magnitude, to the bit as compressed-tensors' min-max observer computes them.

Everything is computed in the weight's own type: a bf16 weight has bf16 quotients, and ties among those are rounded to
even. Source: compressed-tensors, quantization/utils/helpers.py, `calculate_qparams`.
"""

from __future__ import annotations

import torch

__all__ = ["largest", "scale_of"]


def largest(values: torch.Tensor) -> torch.Tensor:
    """max |v| over the last dimension, which stays as one; in the type of `values`."""
    # In float32, exact for every narrower type: the reduction over bf16 is several times slower.
    wide = values.float()
    magnitudes = wide.abs() if wide is values else wide.abs_()  # never in the caller's own memory
    return magnitudes.amax(dim=-1, keepdim=True).to(values.dtype)


def scale_of(extent: torch.Tensor, steps: float) -> torch.Tensor:
    """extent / steps; where that is 0, the type's epsilon, so that zeros stay zeros."""
    scale = extent / steps
    return scale.where(scale != 0, torch.finfo(scale.dtype).eps)
