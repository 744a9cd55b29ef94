"""Peaks of GPUs by their name, and the arithmetic that a checkpoint uses on them."""

from __future__ import annotations

import pytest

from server.models import Arithmetic, ModelCard, arithmetic_of, peaks_of
from server.units import Bytes

H200 = "NVIDIA H200"
A100 = "NVIDIA A100-SXM4-80GB"
T4 = "Tesla T4"


def card(precision: str, activation_bits: int | None, dtype: str = "bfloat16") -> ModelCard:
    return ModelCard(
        architecture=None,
        precision=precision,
        dtype=dtype,
        quantization="none",
        scheme=None,
        parameters=1,
        linear_parameters=1,
        size_bytes=Bytes(1),
        bits_per_weight=8.0,
        linear_bits_per_weight=8.0,
        kv_bytes_per_token=None,
        max_position=None,
        activation_bits=activation_bits,
    )


@pytest.mark.parametrize(
    ("name", "bf16", "gigabytes_per_s"),
    [
        ("NVIDIA A100-PCIE-40GB", 312e12, 1555),
        (A100, 312e12, 2039),
        ("A100-SXM4-80GB", 312e12, 2039),
        ("NVIDIA A100 80GB PCIe", 312e12, 1935),
        ("NVIDIA H100 80GB HBM3", 989.5e12, 3350),
        ("NVIDIA H100 PCIe", 756.5e12, 2000),
        (H200, 989.5e12, 4800),
        ("NVIDIA L4", 121e12, 300),
        (T4, None, 320),
    ],
)
def test_a_gpu_is_found_by_the_name_that_nvml_gives_it(name, bf16, gigabytes_per_s):
    peaks = peaks_of(name)
    assert peaks is not None
    assert peaks.flops_per_s.get(Arithmetic.BF16) == bf16
    assert peaks.bytes_per_s == gigabytes_per_s * 1e9
    assert "data sheet" in peaks.source or "product brief" in peaks.source


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA A10G",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA A800-SXM4-80GB",
        "NVIDIA H20",
        "NVIDIA H100",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "Tesla V100-SXM3-32GB",
        "AMD Instinct MI300X",
        "",
    ],
)
def test_a_name_that_only_resembles_a_known_one_is_unknown(name):
    assert peaks_of(name) is None


@pytest.mark.parametrize("name", [A100, H200, "NVIDIA L40S", "NVIDIA B200", "NVIDIA GeForce RTX 3090"])
def test_narrower_arithmetic_is_faster(name):
    peaks = peaks_of(name)
    assert peaks is not None
    rates = [peaks.flops_per_s[kind] for kind in ("fp32", "bf16", "fp8", "fp4") if kind in peaks.flops_per_s]
    assert rates == sorted(rates)
    assert peaks.flops_per_s[Arithmetic.INT8] > peaks.flops_per_s[Arithmetic.BF16]


def test_several_devices_do_several_times_as_much():
    one = peaks_of(H200)
    assert one is not None
    four = one.times(4)
    assert four.flops_per_s[Arithmetic.FP8] == 4 * one.flops_per_s[Arithmetic.FP8]
    assert four.bytes_per_s == 4 * (one.bytes_per_s or 0)


@pytest.mark.parametrize(
    ("device", "precision", "activation_bits", "arithmetic"),
    [
        (H200, "bf16", 16, Arithmetic.BF16),
        (H200, "int4", 16, Arithmetic.BF16),
        (H200, "int8", 8, Arithmetic.INT8),
        (H200, "int8", 16, Arithmetic.BF16),
        (H200, "fp8", 8, Arithmetic.FP8),
        (A100, "fp8", 8, Arithmetic.BF16),
        (H200, "nvfp4", 4, Arithmetic.FP4),
        (H200, "int8", None, None),
        (H200, "mixed", None, None),
    ],
)
def test_matrices_are_multiplied_in_the_arithmetic_of_activations(device, precision, activation_bits, arithmetic):
    peaks = peaks_of(device)
    assert peaks is not None
    assert arithmetic_of(card(precision, activation_bits), peaks) == arithmetic


def test_the_engines_dtype_goes_before_the_checkpoints():
    peaks = peaks_of(T4)
    assert peaks is not None
    assert arithmetic_of(card("bf16", 16), peaks) is Arithmetic.BF16
    assert Arithmetic.BF16 not in peaks.flops_per_s
    assert arithmetic_of(card("bf16", 16), peaks, dtype="half") is Arithmetic.FP16
    assert arithmetic_of(card("int4", 16), peaks, dtype="auto") is Arithmetic.BF16
    assert arithmetic_of(card("bf16", 16), peaks, dtype="of_tomorrow") is None
