"""Which checkpoints vLLM cannot serve on which device.

Sources: tried with vLLM 0.32 on the CPU (weight-only int8, NVFP4, W8A8 with adapters; without AVX-512 int4, an FP8 KV
cache, FP8 with scales of blocks and of tensors), else read in its kernel tables (`model_executor/kernels/linear`) and
in the `get_min_capability` of its quantization schemes.

For x86-64 CPUs it has a library with AVX-512 and one without; of the kernels of linear layers the second lacks
`cpu_gemm_wna16` alone, which serves W4A16, GPTQ and AWQ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from server.models.card import ModelCard
from server.models.checkpoint import Checkpoint
from server.models.device import DeviceFacts
from server.models.quantization import UNQUANTIZED_BITS
from server.models.rule import Finding, Rule
from server.models.weights import LayerKind

__all__ = ["CheckpointCase"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCase:
    """A checkpoint that is to be served on a device."""

    card: ModelCard
    checkpoint: Checkpoint | None
    """None: layer shapes are unknown."""
    device: DeviceFacts
    dtype: str | None
    """The engine's option; None: the checkpoint's own."""
    adapters: bool


_NOT_LOADED: Final = frozenset({"aqlm", "bitnet", "eetq", "higgs", "hqq", "quanto", "quip", "spqr", "vptq"})
_CPU_INT_BITS: Final = frozenset({"int4"})
_CPU_MULTIPLE: Final = 32
_FUSED: Final[Mapping[str, str]] = {
    "q_proj": "qkv_proj",
    "k_proj": "qkv_proj",
    "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
}
"""Layers that vLLM joins along their outputs."""
_LEAST_CAPABILITY: Final[Mapping[str, tuple[int, int]]] = {
    "int8": (7, 5),
    "int4": (7, 5),
    "fp8": (7, 5),  # native from 8.9 on; older GPUs keep FP8 weights and compute in 16 bits (Marlin)
    "nvfp4": (7, 5),
    "mxfp4": (8, 0),
}
_BF16_CAPABILITY: Final = (8, 0)
_KV_FP8_BITS: Final = 8
_TENSOR_SCALES_BYTES: Final = 8  # a float32 scale of the weight and one of its inputs
_SCALE_BYTES: Final = 2  # the narrowest type a scale is stored in


def _no_loader(case: CheckpointCase) -> Finding | None:
    method = case.card.quantization
    return Finding(found=f"quantization method {method}") if method in _NOT_LOADED else None


def _sparse_weights(case: CheckpointCase) -> Finding | None:
    sparse = case.checkpoint is not None and case.checkpoint.sparse
    return Finding(found="a `sparsity_config`") if sparse else None


def _cpu_fp4(case: CheckpointCase) -> Finding | None:
    fp4 = case.card.precision in {"nvfp4", "mxfp4"}
    return Finding(found=_scheme(case.card)) if _on_cpu(case) and fp4 else None


def _cpu_weight_only_int(case: CheckpointCase) -> Finding | None:
    card = case.card
    weight_only = card.activation_bits == UNQUANTIZED_BITS and card.precision.startswith("int")
    refused = _on_cpu(case) and weight_only and card.precision not in _CPU_INT_BITS
    return Finding(found=_scheme(card)) if refused else None


def _cpu_weight_only_fp8(case: CheckpointCase) -> Finding | None:
    weight_only = case.card.precision == "fp8" and case.card.activation_bits == UNQUANTIZED_BITS
    return Finding(found=_scheme(case.card)) if _on_cpu(case) and weight_only else None


def _cpu_int4_avx512(case: CheckpointCase) -> Finding | None:
    card = case.card
    # False, not None: unknown, and no x86-64 CPU, refuse nothing.
    without = _on_cpu(case) and case.device.avx512 is False
    refused = without and card.precision == "int4" and card.activation_bits == UNQUANTIZED_BITS
    return Finding(found=f"{_scheme(card)}, and this CPU has no `avx512f`") if refused else None


def _cpu_int4_shape(case: CheckpointCase) -> Finding | None:
    if not _on_cpu(case) or case.card.precision != "int4" or case.checkpoint is None:
        return None
    odd = [
        f"{name} with K {inputs}, N {outputs}"
        for name, (outputs, inputs) in _fused_shapes(case.checkpoint).items()
        if inputs % _CPU_MULTIPLE or outputs % _CPU_MULTIPLE
    ]
    return Finding(found=f"{len(odd)} layer(s), the first is {odd[0]}") if odd else None


def _fused_shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of the packed layers as vLLM joins them; experts have kernels of their own."""
    shapes: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for layer in checkpoint.layers.values():
        if layer.kind is LayerKind.LINEAR and layer.packed and layer.shape and ".experts." not in layer.name:
            parent, _, last = layer.name.rpartition(".")
            name = f"{parent}.{_FUSED.get(last, last)}"
            shapes[name] = (shapes[name][0] + layer.shape[0], layer.shape[1])
    return shapes


def _cpu_w8a8_adapters(case: CheckpointCase) -> Finding | None:
    refused = _on_cpu(case) and case.adapters and case.card.precision == "int8"
    return Finding(found=f"{_scheme(case.card)} and an `adapters:` section") if refused else None


def _cpu_fp8_scales(case: CheckpointCase) -> Finding | None:
    # False, not None: unknown refuses nothing.
    if not _on_cpu(case) or case.device.amx is not False or case.card.precision != "fp8":
        return None
    scales = _coarse_scales(case)
    return (
        Finding(found=f"{_scheme(case.card)} with a scale a {scales}, and this CPU has no `amx_tile`")
        if scales
        else None
    )


def _coarse_scales(case: CheckpointCase) -> str | None:
    """What one FP8 scale belongs to: `tensor` or `block`; None if every output has its own, or nobody can tell."""
    if "block" in (case.card.scheme or ""):
        return "block"
    quantized = [
        (layer.weight_bytes - layer.parameters, layer.shape[0])
        for layer in (case.checkpoint.layers.values() if case.checkpoint else ())
        if layer.kind is LayerKind.LINEAR and layer.shape and layer.weight_bytes < 2 * layer.parameters
    ]
    if not quantized or any(scales >= _SCALE_BYTES * outputs for scales, outputs in quantized):
        return None
    return "tensor" if all(scales <= _TENSOR_SCALES_BYTES for scales, _ in quantized) else "block"


def _cpu_fp8_kv(case: CheckpointCase) -> Finding | None:
    without = _on_cpu(case) and case.device.avx512 is False and case.device.amx is not True
    refused = without and case.card.kv_bits == _KV_FP8_BITS
    return Finding(found="a `kv_cache_scheme` of 8 bits, and this CPU has no `avx512f`") if refused else None


def _cuda_capability(case: CheckpointCase) -> Finding | None:
    has, least = case.device.compute_capability, _LEAST_CAPABILITY.get(case.card.precision)
    if case.device.kind != "cuda" or has is None or least is None or has >= least or case.card.quantization == "gptq":
        return None
    return Finding(found=f"{case.card.precision} needs {_version(least)}, the GPU has {_version(has)}")


def _cuda_bf16(case: CheckpointCase) -> Finding | None:
    has = case.device.compute_capability
    if case.device.kind != "cuda" or has is None or has >= _BF16_CAPABILITY:
        return None
    # A quantized checkpoint's dtype is only what its activations are in: there, float16 is as good.
    asked = case.dtype == "bfloat16" or (case.dtype is None and case.card.precision == "bf16")
    return Finding(found=f"dtype bfloat16, and the GPU has {_version(has)}") if asked else None


def _cuda_memory(case: CheckpointCase) -> Finding | None:
    room = case.device.memory_bytes
    # vLLM serves float32 checkpoints in 16 bits unless told otherwise.
    halved = case.card.quantization == "none" and case.card.dtype == "float32" and case.dtype != "float32"
    needed = case.card.size_bytes // 2 if halved else case.card.size_bytes
    if case.device.kind != "cuda" or room is None or needed <= room:
        return None
    return Finding(found=f"weights of {needed / 2**30:.1f} GiB, memory of {room / 2**30:.1f} GiB")


def _on_cpu(case: CheckpointCase) -> bool:
    return case.device.kind == "cpu"


def _scheme(card: ModelCard) -> str:
    return f"{card.quantization} {card.scheme or card.precision}"


def _version(capability: tuple[int, int]) -> str:
    return f"compute capability {capability[0]}.{capability[1]}"


NO_LOADER: Final = Rule(
    sentence="vLLM has no loader for this quantization method.",
    instead="quantize the original weights again with compressed-tensors (W8A8, W4A16 or FP8).",
    find=_no_loader,
)
SPARSE_WEIGHTS: Final = Rule(
    sentence="vLLM no longer loads sparse weights.",
    instead="serve the dense checkpoint, or quantize it (W4A16 is smaller than 2:4 at 16 bits).",
    find=_sparse_weights,
)
CPU_FP4: Final = Rule(
    sentence="The CPU engine has no kernel for 4-bit floating-point weights.",
    instead="serve a W8A8 (int8) or, with AVX-512, a W4A16 (int4) variant on the CPU, or this one on a GPU.",
    find=_cpu_fp4,
)
CPU_WEIGHT_ONLY_INT: Final = Rule(
    sentence="The CPU engine's weight-only kernel takes 4-bit integers and no other width (W8A16 has none).",
    instead="quantize to W8A8 (activations as well) or, with AVX-512, to W4A16, or serve this variant on a GPU.",
    find=_cpu_weight_only_int,
)
CPU_WEIGHT_ONLY_FP8: Final = Rule(
    sentence="The CPU engine has no kernel for FP8 weights with 16-bit activations.",
    instead="quantize with FP8_DYNAMIC (activations as well), or serve this variant on a GPU.",
    find=_cpu_weight_only_fp8,
)
CPU_INT4_AVX512: Final = Rule(
    sentence="On an x86-64 CPU vLLM has its W4A16 (int4) kernel for AVX-512 only; without it an engine starts, "
    "and dies on its first request.",
    instead="serve a bf16, fp16 or W8A8 (int8) variant here, or this one on a GPU or on a CPU with AVX-512.",
    find=_cpu_int4_avx512,
)
CPU_INT4_SHAPE: Final = Rule(
    sentence="The CPU engine's int4 kernel needs inputs (K) and fused outputs (N) that are multiples of 32.",
    instead="leave those layers out when quantizing (`ignore`), or quantize to W8A8.",
    find=_cpu_int4_shape,
)
CPU_FP8_SCALES: Final = Rule(
    sentence="Without AMX the CPU engine computes with FP8 weights only if every output has a scale of its own; "
    "with scales of blocks or of whole tensors it dies.",
    instead="quantize with FP8_DYNAMIC (a scale an output), or serve this variant on a GPU or on a CPU with AMX.",
    find=_cpu_fp8_scales,
)
CPU_FP8_KV: Final = Rule(
    sentence="On an x86-64 CPU vLLM keeps an FP8 key-value cache only with AVX-512 or AMX.",
    instead="serve the variant without KV-cache scales here, or this one on a GPU or on a CPU with AVX-512.",
    find=_cpu_fp8_kv,
)
CPU_W8A8_ADAPTERS: Final = Rule(
    sentence="A W8A8 engine on the CPU dies when it is started with adapters.",
    instead="remove `adapters:` from this engine and load adapters on the bf16, fp16 or int4 variant, "
    "or merge the adapter into the base model and quantize the result.",
    find=_cpu_w8a8_adapters,
)
CUDA_CAPABILITY: Final = Rule(
    sentence="This GPU is too old for vLLM's kernels of this precision.",
    instead="serve a float16 variant on this GPU, or this one on a newer GPU.",
    find=_cuda_capability,
)
CUDA_BF16: Final = Rule(
    sentence="bfloat16 needs compute capability 8.0 (Ampere); left to itself vLLM would quietly compute in float16.",
    instead="set `options.dtype: float16` and call the variant fp16, or use a newer GPU.",
    find=_cuda_bf16,
)
CUDA_MEMORY: Final = Rule(
    sentence="The weights alone are larger than the memory they may take.",
    instead="serve a variant of fewer bits, share it over more GPUs (`options.tensor_parallel_size`), "
    "or set `options.cpu_offload_gb`.",
    find=_cuda_memory,
)
