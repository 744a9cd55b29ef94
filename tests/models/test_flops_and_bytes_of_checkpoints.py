"""What a checkpoint's steps read, which architecture its card carries, and where vLLM's own estimate is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from server.models import ModelCard, Work, WorkModel, read_card, vllm_estimate_support, work_model
from server.models.families import read_architecture
from server.models.weight_bytes import WeightBytes
from server.units import Bytes
from tests.fakes.safetensors_file import (
    EMBEDDING_PARAMETERS,
    LINEAR_PARAMETERS,
    Shapes,
    llama_tensors,
    write_checkpoint,
    write_int4,
    write_int8,
)
from tests.models.known_configs import DEEPSEEK_V3, GPT2, LLAMA_3_8B, MAMBA_2_8B, MIXTRAL_8X7B, QWEN3_30B_A3B

HEADER = 4096
"""More than the headers of the small files take."""
MIXTRAL: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
}


def model_of(card: ModelCard, **options: Any) -> WorkModel:
    found = work_model(card, **options)
    assert found is not None
    return found


def test_a_step_reads_everything_but_the_embedding_table(tmp_path):
    card = read_card(write_checkpoint(tmp_path))
    work = model_of(card)

    assert card.shape is not None
    assert card.shape.total_parameters == card.parameters
    assert work.weights.looked_up == 2 * EMBEDDING_PARAMETERS
    assert work.weight_bytes_per_step(1) == work.weight_bytes_per_step(64) == card.size_bytes - 2 * EMBEDDING_PARAMETERS


def test_a_tied_table_is_read_by_the_head(tmp_path):
    card = read_card(write_checkpoint(tmp_path, llama_tensors(tied=True), tie_word_embeddings=True))

    assert model_of(card).weight_bytes_per_step(1) == card.size_bytes


def test_a_tied_table_that_is_stored_twice_is_read_once(tmp_path):
    card = read_card(write_checkpoint(tmp_path, tie_word_embeddings=True))

    assert model_of(card).weight_bytes_per_step(1) == card.size_bytes - 2 * EMBEDDING_PARAMETERS


def test_quantized_matrices_are_read_in_their_own_width(tmp_path):
    plain, int8, int4 = (
        model_of(read_card(write(tmp_path / write.__name__))) for write in (write_checkpoint, write_int8, write_int4)
    )
    saved = plain.weight_bytes_per_step(1) - int8.weight_bytes_per_step(1)
    assert saved == pytest.approx(LINEAR_PARAMETERS, abs=HEADER)
    assert int4.weight_bytes_per_step(1) < int8.weight_bytes_per_step(1) + HEADER
    assert plain.flops == int8.flops == int4.flops


def test_another_dtype_of_the_engine_changes_the_bytes_of_what_is_not_quantized(tmp_path):
    plain, int8 = read_card(write_checkpoint(tmp_path / "plain")), read_card(write_int8(tmp_path / "int8"))

    assert model_of(plain, dtype="float32").weight_bytes_per_step(1) == 2 * model_of(plain).weight_bytes_per_step(1)
    assert model_of(plain, dtype="float32").kv_bytes_per_token_of_context == 2 * (plain.kv_bytes_per_token or 0)
    assert model_of(int8, dtype="float32").weights == model_of(int8).weights
    assert model_of(plain, dtype="auto") == model_of(plain)


def test_the_kv_cache_takes_the_width_that_the_engine_is_told(tmp_path):
    card = read_card(write_checkpoint(tmp_path))

    assert model_of(card).kv_bytes_per_token_of_context == card.kv_bytes_per_token
    assert model_of(card, kv_cache_dtype="fp8").kv_bytes_per_token_of_context == (card.kv_bytes_per_token or 0) / 2
    assert work_model(card, kv_cache_dtype="of_tomorrow") is None
    assert work_model(card, dtype="of_tomorrow") is None


def test_a_checkpoint_may_ask_for_a_narrower_kv_cache(tmp_path):
    section = {"quant_method": "compressed-tensors", "config_groups": {}, "kv_cache_scheme": {"num_bits": 8}}
    card = read_card(write_checkpoint(tmp_path, quantization_config=section))

    assert model_of(card).kv_bytes_per_token_of_context == card.kv_bytes_per_token


def test_a_step_reads_the_experts_that_its_tokens_pick(tmp_path):
    weights = model_of(read_card(write_checkpoint(tmp_path, mixtral_tensors(), **MIXTRAL))).weights

    assert weights.routed == 2 * 2 * 4 * 3 * 128 * 64
    assert (weights.experts, weights.experts_per_token) == (4, 1)
    one, all_of_them = weights.per_step(1), weights.every_step + weights.routed
    assert one == weights.every_step + weights.routed / 4
    assert weights.per_step(2) == weights.every_step + weights.routed * (1 - (3 / 4) ** 2)
    assert one < weights.per_step(2) < weights.per_step(1000) <= all_of_them


def test_layers_behind_the_last_are_not_read(tmp_path):
    extra = {"model.layers.2.mlp.up_proj.weight": ("BF16", (64, 64))}
    card = read_card(write_checkpoint(tmp_path, {**llama_tensors(), **extra}))

    assert model_of(card).weights.looked_up == 2 * (EMBEDDING_PARAMETERS + 64 * 64)


def test_a_decode_step_reads_weights_and_every_context(tmp_path):
    work = model_of(read_card(write_checkpoint(tmp_path)))
    kv = work.kv_bytes_per_token_of_context

    step = work.decode_step_bytes(sequences=4, context_tokens=1000)
    assert step == work.weight_bytes_per_step(4) + 1000 * kv
    ten = work.read_bytes(Work(decode_tokens=40, decode_pairs=10_000), steps=10)
    assert ten == 10 * step
    assert work.read_bytes(Work(), steps=0) == 0


def test_a_window_bounds_what_a_step_reads_of_a_context(tmp_path):
    card = read_card(write_checkpoint(tmp_path, model_type="mistral", sliding_window=16))
    work = model_of(card)

    near = work.decode_step_bytes(sequences=2, context_tokens=2 * 16)
    assert work.decode_step_bytes(sequences=2, context_tokens=2 * 500) == near


def test_a_state_space_reads_its_state_and_no_context():
    card = bare_card(MAMBA_2_8B)
    work = model_of(card)

    assert work.kv_bytes_per_token_of_context == 0
    assert work.state_bytes_per_sequence == 2 * 64 * 5120 * (16 + 3)
    assert work.decode_step_bytes(sequences=3, context_tokens=9000) == 100 + 3 * work.state_bytes_per_sequence


@pytest.mark.parametrize(
    "change", [{"num_hidden_layers": 3}, {"intermediate_size": 256}, {"model_type": "none_of_ours"}]
)
def test_a_card_whose_files_are_another_model_has_no_shape(tmp_path, change):
    card = read_card(write_checkpoint(tmp_path, **change))

    assert card.shape is None
    assert card.weight_bytes is None
    assert work_model(card) is None


def test_a_broken_key_of_the_shape_leaves_the_rest_of_the_card(tmp_path):
    card = read_card(write_checkpoint(tmp_path, model_type="mixtral", num_local_experts="many"))

    assert card.shape is None
    assert card.parameters > 0


def test_a_card_with_a_shape_is_still_json(tmp_path):
    text = json.dumps(asdict(read_card(write_checkpoint(tmp_path))))
    assert json.loads(text)["shape"]["family"] == "llama"


def test_nothing_is_known_against_vllms_estimate_of_a_plain_llama():
    assert vllm_estimate_support(bare_card(LLAMA_3_8B)) is None
    assert vllm_estimate_support(bare_card(DEEPSEEK_V3)) is None


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ({"quantization": "compressed-tensors", "linear_bits_per_weight": 8.0}, "counted at 4 bits a weight"),
        ({"quantization": "compressed-tensors", "linear_bits_per_weight": 4.25}, None),
        ({"quantization": "gptq", "linear_bits_per_weight": 8.1}, "counted at 4 bits a weight"),
        ({"quantization": "fp8", "linear_bits_per_weight": 8.01}, None),
        ({"quantization": "fp8", "linear_bits_per_weight": None}, "an unknown number"),
        ({"quantization": "bitsandbytes", "linear_bits_per_weight": 4.5}, "bitsandbytes checkpoints are not counted"),
        ({"shape": None}, "unknown here"),
        ({"shape": read_architecture(GPT2)}, "two matrices are counted as three"),
        ({"shape": read_architecture(MAMBA_2_8B)}, "state-space layers"),
        ({"shape": read_architecture(QWEN3_30B_A3B)}, None),
        ({"shape": read_architecture(QWEN3_30B_A3B | {"mlp_only_layers": [0]})}, "layers without experts"),
        (
            {
                "shape": read_architecture(
                    QWEN3_30B_A3B | {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 5632}
                )
            },
            "shared expert",
        ),
    ],
)
def test_vllms_estimate_is_refused_where_its_source_is_wrong(card, reason):
    found = vllm_estimate_support(replace(bare_card(LLAMA_3_8B), **card))
    assert found is None if reason is None else reason in (found or "")


def test_all_reasons_against_vllms_estimate_are_named():
    card = replace(bare_card(MIXTRAL_8X7B), quantization="compressed-tensors", linear_bits_per_weight=8.0)
    assert vllm_estimate_support(card, adapters=True) == (
        "bytes are counted at 4 bits a weight, the checkpoint has 8.0; adapters are not counted"
    )


def bare_card(config: dict[str, Any]) -> ModelCard:
    """Of a model that is too large for a test: its shape, and a hundred bytes of weights."""
    return ModelCard(
        architecture=None,
        precision="bf16",
        dtype="bfloat16",
        quantization="none",
        scheme=None,
        parameters=1,
        linear_parameters=1,
        size_bytes=Bytes(100),
        bits_per_weight=16.0,
        linear_bits_per_weight=16.0,
        kv_bytes_per_token=None,
        max_position=None,
        shape=read_architecture(config),
        weight_bytes=WeightBytes(every_step=Bytes(100), routed=Bytes(0), looked_up=Bytes(0)),
    )


def mixtral_tensors() -> Shapes:
    """The small Llama with four experts in place of each feed-forward part."""
    tensors = {name: shape for name, shape in llama_tensors().items() if ".mlp." not in name}
    for block in ("model.layers.0.block_sparse_moe", "model.layers.1.block_sparse_moe"):
        tensors[f"{block}.gate.weight"] = ("BF16", (4, 64))
        for expert in range(4):
            tensors[f"{block}.experts.{expert}.w1.weight"] = ("BF16", (128, 64))
            tensors[f"{block}.experts.{expert}.w2.weight"] = ("BF16", (64, 128))
            tensors[f"{block}.experts.{expert}.w3.weight"] = ("BF16", (128, 64))
    return tensors
