"""Peak rates of well-known GPUs, by the name that NVML gives them.

Dense matrix products (no structured sparsity), accumulated in 32 bits, as vendors state them at boost clock: what a GPU
sustains is less, so a utilization of 1 cannot be reached. A name that is not here is unknown: a slice of a GPU (MIG), a
cloud's own version (A10G) or a derated one (H20, A800) has another peak than the name it resembles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from server.models.card import ModelCard

__all__ = ["Arithmetic", "HardwarePeaks", "arithmetic_of", "peaks_of"]


class Arithmetic(StrEnum):
    """Type in which a matrix product is computed: not always the type in which weights are stored."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    INT8 = "int8"
    FP4 = "fp4"


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwarePeaks:
    """The most a device can do in a second."""

    flops_per_s: Mapping[Arithmetic, float]
    """A type that is not here is one the device has no fast path for, or nobody has measured."""
    bytes_per_s: float | None
    """Between the device's memory and its chip."""
    source: str
    """The document it is from; `measured`, `configured`."""

    def times(self, devices: int) -> HardwarePeaks:
        """Of several such devices together (tensor or pipeline parallel)."""
        return HardwarePeaks(
            flops_per_s={kind: rate * devices for kind, rate in self.flops_per_s.items()},
            bytes_per_s=None if self.bytes_per_s is None else self.bytes_per_s * devices,
            source=self.source,
        )


def peaks_of(device_name: str) -> HardwarePeaks | None:
    """By NVML's name (`nvmlDeviceGetName`); None if it is none of those in the table."""
    return _BY_NAME.get(_plain(device_name))


def arithmetic_of(card: ModelCard, peaks: HardwarePeaks, *, dtype: str | None = None) -> Arithmetic | None:
    """Type in which the engine multiplies this checkpoint's matrices on this device; None: unknown.

    W8A8 multiplies in int8, FP8 in fp8 where the device has it; weight-only formats (W4A16, GPTQ, AWQ, FP8 on a device
    without it) unpack to the engine's `dtype` (None or `auto`: the checkpoint's). Attention itself stays in `dtype`.
    """
    plain = _DTYPES.get(card.dtype if dtype in {None, "auto"} else dtype or "")
    if card.activation_bits == 16:
        return plain
    narrow = _NARROW.get((card.precision, card.activation_bits))
    if narrow is Arithmetic.FP8 and narrow not in peaks.flops_per_s:
        return plain
    return narrow


_DTYPES: Final[Mapping[str, Arithmetic]] = {
    "bfloat16": Arithmetic.BF16,
    "float16": Arithmetic.FP16,
    "half": Arithmetic.FP16,
    "float32": Arithmetic.FP32,
    "float": Arithmetic.FP32,
}
_NARROW: Final[Mapping[tuple[str, int | None], Arithmetic]] = {
    ("int8", 8): Arithmetic.INT8,
    ("fp8", 8): Arithmetic.FP8,
    ("mxfp8", 8): Arithmetic.FP8,
    ("nvfp4", 4): Arithmetic.FP4,
    ("mxfp4", 4): Arithmetic.FP4,
}
"""(precision, bits of activations) → arithmetic."""

_TERA: Final = 1e12
_GIGA: Final = 1e9


def _gpu(  # noqa: PLR0913  # the columns of a table
    source: str,
    gigabytes_per_s: float,
    *,
    fp32: float | None = None,
    half: float | None = None,
    bf16: bool = True,
    fp8: float | None = None,
    int8: float | None = None,
    fp4: float | None = None,
) -> HardwarePeaks:
    """Rates in 10¹² a second; `half`: of fp16, and of bf16 where there is one."""
    rates = {
        Arithmetic.FP32: fp32,
        Arithmetic.BF16: half if bf16 else None,
        Arithmetic.FP16: half,
        Arithmetic.FP8: fp8,
        Arithmetic.INT8: int8,
        Arithmetic.FP4: fp4,
    }
    return HardwarePeaks(
        flops_per_s={kind: rate * _TERA for kind, rate in rates.items() if rate is not None},
        bytes_per_s=gigabytes_per_s * _GIGA,
        source=source,
    )


_A100: Final = "NVIDIA A100 Tensor Core GPU, data sheet"
_H100: Final = "NVIDIA H100 Tensor Core GPU, data sheet"
_H200: Final = "NVIDIA H200 Tensor Core GPU, data sheet"
_GH200: Final = "NVIDIA GH200 Grace Hopper Superchip, data sheet"
_V100: Final = "NVIDIA V100 Tensor Core GPU, data sheet"

_TABLE: Final[tuple[tuple[tuple[str, ...], HardwarePeaks], ...]] = (
    (("A100-SXM4-40GB", "A100-PCIE-40GB"), _gpu(_A100, 1555, fp32=19.5, half=312, int8=624)),
    (("A100-SXM4-80GB",), _gpu(_A100, 2039, fp32=19.5, half=312, int8=624)),
    (("A100 80GB PCIe",), _gpu(_A100, 1935, fp32=19.5, half=312, int8=624)),
    (("H100 80GB HBM3",), _gpu(_H100, 3350, fp32=67, half=989.5, fp8=1979, int8=1979)),
    (("H100 PCIe",), _gpu(_H100, 2000, fp32=51, half=756.5, fp8=1513, int8=1513)),
    (("H100 NVL",), _gpu(_H100, 3900, fp32=60, half=835.5, fp8=1670.5, int8=1670.5)),
    (("H200",), _gpu(_H200, 4800, fp32=67, half=989.5, fp8=1979, int8=1979)),
    (("H200 NVL",), _gpu(_H200, 4800, fp32=60, half=835.5, fp8=1670.5, int8=1670.5)),
    (("GH200 480GB", "GH200 120GB"), _gpu(_GH200, 4000, fp32=67, half=989.5, fp8=1979, int8=1979)),
    (("GH200 144G HBM3e",), _gpu(_GH200, 4900, fp32=67, half=989.5, fp8=1979, int8=1979)),
    (("B200",), _gpu("NVIDIA DGX B200, data sheet, an eighth", 8000, half=2250, fp8=4500, int8=4500, fp4=9000)),
    (("L4",), _gpu("NVIDIA L4 Tensor Core GPU, data sheet", 300, fp32=30.3, half=121, fp8=242.5, int8=242.5)),
    (("L40S",), _gpu("NVIDIA L40S, data sheet", 864, fp32=91.6, half=362.05, fp8=733, int8=733)),
    (("A10",), _gpu("NVIDIA A10 Tensor Core GPU, data sheet", 600, fp32=31.2, half=125, int8=250)),
    (("Tesla T4", "T4"), _gpu("NVIDIA T4, product brief", 320, fp32=8.1, half=65, bf16=False, int8=130)),
    (
        ("Tesla V100-SXM2-16GB", "Tesla V100-SXM2-32GB"),
        _gpu(_V100, 900, fp32=15.7, half=125, bf16=False),
    ),
    (
        ("Tesla V100-PCIE-16GB", "Tesla V100-PCIE-32GB"),
        _gpu(_V100, 900, fp32=14, half=112, bf16=False),
    ),
    (
        ("GeForce RTX 4090",),
        _gpu("NVIDIA Ada GPU Architecture, white paper", 1008, fp32=82.6, half=165.2, fp8=330.3, int8=660.6),
    ),
    (
        ("GeForce RTX 3090",),
        _gpu("NVIDIA Ampere GA102 GPU Architecture, white paper", 936, fp32=35.6, half=71, int8=284),
    ),
)


def _plain(name: str) -> str:
    """Drivers before 470 left the vendor's name out."""
    return name.removeprefix("NVIDIA ")


_BY_NAME: Final[Mapping[str, HardwarePeaks]] = {_plain(name): peaks for names, peaks in _TABLE for name in names}
