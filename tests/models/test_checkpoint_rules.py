"""Every rule for checkpoints is broken by one case and kept by its neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from server.errors import IncompatibleError
from server.models import (
    ADAPTER_RULES,
    CHECKPOINT_RULES,
    Checkpoint,
    DeviceFacts,
    check_checkpoint,
    read_checkpoint,
)
from server.units import Bytes
from tests.fakes.safetensors_file import (
    LINEARS,
    W8A8,
    weight_only,
    write_checkpoint,
    write_int4,
)

CPU = DeviceFacts(kind="cpu")
AVX2 = DeviceFacts(kind="cpu", avx512=False)
AVX512 = DeviceFacts(kind="cpu", avx512=True)
NO_AMX = DeviceFacts(kind="cpu", avx512=True, amx=False)
TURING = DeviceFacts(kind="cuda", compute_capability=(7, 5))
AMPERE = DeviceFacts(kind="cuda", compute_capability=(8, 0), memory_bytes=Bytes(24 * 2**30))
VOLTA = DeviceFacts(kind="cuda", compute_capability=(7, 0))
UNKNOWN_GPU = DeviceFacts(kind="cuda")
TINY_GPU = replace(AMPERE, memory_bytes=Bytes(1000))

FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
FP8_BLOCK = {**FP8, "weight_block_size": [128, 128]}
KV_FP8 = {
    "quant_method": "compressed-tensors",
    "config_groups": {},
    "kv_cache_scheme": {"num_bits": 8, "type": "float"},
}
FP8_WEIGHT_ONLY = weight_only(8, kind="float", layout="float-quantized")
NVFP4 = weight_only(4, kind="float", layout="nvfp4-pack-quantized", group=16)
HQQ = {"quant_method": "hqq", "nbits": 4}
SPARSE = {**weight_only(4), "sparsity_config": {"sparsity_structure": "2:4", "targets": ["Linear"]}}
DENSE = {**weight_only(4), "sparsity_config": {"sparsity_structure": "0:0", "targets": []}}
FP8_DYNAMIC = {
    **FP8_WEIGHT_ONLY,
    "config_groups": {
        "group_0": {
            **FP8_WEIGHT_ONLY["config_groups"]["group_0"],
            "input_activations": {"num_bits": 8, "type": "float", "dynamic": True},
        }
    },
}
ODD_ALONE = {**LINEARS, "self_attn.q_proj": (64, 64), "self_attn.k_proj": (16, 64), "self_attn.v_proj": (16, 64)}
ODD_FUSED = {**ODD_ALONE, "self_attn.v_proj": (32, 64)}
BF16: dict[str, Any] = {}


def quantized(folder: Path, section: dict[str, Any]) -> Checkpoint:
    keys = {"quantization_config": section} if section else {}
    return read_checkpoint(write_checkpoint(folder, **keys))


@dataclass
class Case:
    section: dict[str, Any]
    device: DeviceFacts
    linears: Any = None
    options: Any = ()

    def check(self, folder: Path) -> None:
        checkpoint = (
            read_checkpoint(write_int4(folder, self.linears)) if self.linears else quantized(folder, self.section)
        )
        check_checkpoint(checkpoint, self.device, **dict(self.options))


CHECKPOINTS: dict[str, tuple[Case, list[Case]]] = {
    "no-loader": (Case(HQQ, AMPERE), [Case(weight_only(4), AMPERE)]),
    "sparse-weights": (Case(SPARSE, AMPERE), [Case(DENSE, AMPERE)]),
    "cpu-fp8-scales": (
        Case(FP8_BLOCK, NO_AMX),
        [Case(FP8_BLOCK, CPU), Case(FP8_BLOCK, AMPERE), Case(FP8_DYNAMIC, NO_AMX)],
    ),
    "cpu-fp8-kv": (Case(KV_FP8, AVX2), [Case(KV_FP8, AVX512), Case(KV_FP8, CPU), Case(KV_FP8, AMPERE)]),
    "cpu-fp4": (Case(NVFP4, CPU), [Case(NVFP4, AMPERE), Case(weight_only(4), CPU)]),
    "cpu-weight-only-int": (
        Case(weight_only(8), CPU),
        [Case(weight_only(8), AMPERE), Case(W8A8, CPU), Case(weight_only(4), CPU)],
    ),
    "cpu-weight-only-fp8": (Case(FP8_WEIGHT_ONLY, CPU), [Case(FP8_WEIGHT_ONLY, TURING), Case(FP8_DYNAMIC, CPU)]),
    "cpu-int4-avx512": (
        Case(weight_only(4), AVX2),
        [
            Case(weight_only(4), AVX512),
            Case(weight_only(4), CPU),
            Case(weight_only(4), AMPERE),
            Case(W8A8, AVX2),
            Case(BF16, AVX2, options={"dtype": "float16", "adapters": True}),
        ],
    ),
    "cpu-int4-shape": (
        Case({}, CPU, linears=ODD_FUSED),
        [Case({}, CPU, linears=ODD_ALONE), Case({}, CPU, linears=LINEARS), Case({}, AMPERE, linears=ODD_FUSED)],
    ),
    "cpu-w8a8-adapters": (
        Case(W8A8, CPU, options={"adapters": True}),
        [Case(W8A8, CPU), Case(W8A8, AMPERE, options={"adapters": True}), Case(BF16, CPU, options={"adapters": True})],
    ),
    "cuda-capability": (Case(FP8, VOLTA), [Case(FP8, AMPERE), Case(FP8, UNKNOWN_GPU), Case(FP8, CPU)]),
    "cuda-bf16": (
        Case(BF16, TURING),
        [
            Case(BF16, AMPERE),
            Case(BF16, UNKNOWN_GPU),
            Case(BF16, CPU),
            Case(BF16, TURING, options={"dtype": "float16"}),
        ],
    ),
    "cuda-memory": (
        Case(BF16, TINY_GPU),
        [Case(BF16, AMPERE), Case(BF16, UNKNOWN_GPU), Case(BF16, replace(TINY_GPU, kind="cpu"))],
    ),
}


def test_every_rule_for_checkpoints_is_tested():
    assert CHECKPOINTS.keys() == CHECKPOINT_RULES.keys()


@pytest.mark.parametrize("slug", CHECKPOINTS)
def test_a_checkpoint_that_breaks_the_rule_is_refused(tmp_path, slug):
    with pytest.raises(IncompatibleError) as caught:
        CHECKPOINTS[slug][0].check(tmp_path)

    assert caught.value.rule == slug
    assert CHECKPOINT_RULES[slug].sentence in str(caught.value)
    assert str(caught.value).endswith(f"Instead: {CHECKPOINT_RULES[slug].instead}")


@pytest.mark.parametrize(
    ("slug", "index"), [(slug, index) for slug, c in CHECKPOINTS.items() for index in range(len(c[1]))]
)
def test_a_checkpoint_that_keeps_the_rule_is_not(tmp_path, slug, index):
    CHECKPOINTS[slug][1][index].check(tmp_path)


def test_the_int4_rule_names_the_fused_layer_and_its_sides(tmp_path):
    with pytest.raises(IncompatibleError, match=r"2 layer\(s\), the first is .*\.qkv_proj with K 64, N 112"):
        check_checkpoint(read_checkpoint(write_int4(tmp_path, ODD_FUSED)), CPU)


def test_a_bare_card_is_not_refused_for_shapes_it_does_not_know(tmp_path):
    check_checkpoint(read_checkpoint(write_int4(tmp_path, ODD_FUSED)).card, CPU)


def test_a_bare_card_is_refused_for_what_it_knows(tmp_path):
    with pytest.raises(IncompatibleError) as caught:
        check_checkpoint(quantized(tmp_path, weight_only(8)).card, CPU)

    assert caught.value.rule == "cpu-weight-only-int"


def test_float32_weights_count_as_the_16_bits_they_are_served_in(tmp_path):
    checkpoint = read_checkpoint(write_checkpoint(tmp_path, torch_dtype="float32"))
    device = replace(AMPERE, memory_bytes=Bytes(checkpoint.card.size_bytes // 2))

    check_checkpoint(checkpoint, device)
    with pytest.raises(IncompatibleError) as caught:
        check_checkpoint(checkpoint, device, dtype="float32")
    assert caught.value.rule == "cuda-memory"


def test_every_rule_is_written_for_people():
    for rule in [*CHECKPOINT_RULES.values(), *ADAPTER_RULES.values()]:
        assert rule.sentence.endswith(".")
        assert rule.instead.endswith(".")
        assert rule.instead[0].islower()
