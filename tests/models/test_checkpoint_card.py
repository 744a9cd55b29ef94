"""A checkpoint's card: counts, sizes, precision, KV bytes."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from server.models import read_card, read_checkpoint
from tests.fakes.safetensors_file import (
    EMBEDDING_PARAMETERS,
    LINEAR_PARAMETERS,
    NORM_PARAMETERS,
    W8A8,
    int4_tensors,
    int8_tensors,
    llama_tensors,
    shard,
    weight_only,
    write_checkpoint,
)

UNTIED = LINEAR_PARAMETERS + NORM_PARAMETERS + 2 * EMBEDDING_PARAMETERS


def test_an_untied_model_counts_embedding_and_head(tmp_path):
    card = read_card(write_checkpoint(tmp_path))

    assert card.parameters == UNTIED
    assert card.linear_parameters == LINEAR_PARAMETERS
    assert card.precision == "bf16"
    assert card.dtype == "bfloat16"
    assert card.quantization == "none"
    assert card.scheme is None
    assert card.activation_bits == 16
    assert card.architecture == "LlamaForCausalLM"
    assert card.max_position == 256
    assert card.size_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert card.bits_per_weight == pytest.approx(16, rel=0.05)
    assert card.linear_bits_per_weight == 16


@pytest.mark.parametrize("stored_twice", [False, True])
def test_tied_embeddings_count_once_however_often_they_are_stored(tmp_path, stored_twice):
    folder = write_checkpoint(tmp_path, llama_tensors(tied=not stored_twice), tie_word_embeddings=True)

    assert read_card(folder).parameters == UNTIED - EMBEDDING_PARAMETERS


def test_shards_add_up_to_the_same_model(tmp_path):
    folder = write_checkpoint(tmp_path)
    whole = read_card(folder)
    paths = shard(folder, llama_tensors(), 3)

    card = read_card(folder)

    assert card.parameters == whole.parameters
    assert card.linear_parameters == whole.linear_parameters
    assert card.size_bytes == sum(path.stat().st_size for path in paths)


def test_a_file_that_the_index_does_not_name_is_no_part_of_the_model(tmp_path):
    folder = write_checkpoint(tmp_path)
    size = sum(path.stat().st_size for path in shard(folder, llama_tensors(), 2))
    (folder / "consolidated.safetensors").write_bytes(b"something else")

    assert read_card(folder).size_bytes == size


def test_int8_scales_are_no_parameters_but_weigh(tmp_path):
    folder = write_checkpoint(tmp_path, int8_tensors(llama_tensors()), quantization_config=W8A8)

    card = read_card(folder)

    assert (card.parameters, card.linear_parameters) == (UNTIED, LINEAR_PARAMETERS)
    assert card.precision == "int8"
    assert card.quantization == "compressed-tensors"
    assert card.scheme == "int-quantized W8A8"
    assert card.activation_bits == 8
    rows = 2 * (64 + 32 + 32 + 64 + 128 + 128 + 64)
    assert card.linear_bits_per_weight == 8 + 16 * rows / LINEAR_PARAMETERS


def test_int4_words_count_eight_weights_each(tmp_path):
    shapes, values = int4_tensors(llama_tensors())
    folder = write_checkpoint(tmp_path, shapes, values, quantization_config=weight_only(4))

    card = read_card(folder)

    assert (card.parameters, card.linear_parameters) == (UNTIED, LINEAR_PARAMETERS)
    assert card.precision == "int4"
    assert card.scheme == "pack-quantized W4A16 group 32"
    assert card.activation_bits == 16
    shape_bits = 14 * 2 * 64
    assert card.linear_bits_per_weight == 4 + 16 / 32 + shape_bits / LINEAR_PARAMETERS


def test_a_declared_shape_wins_over_the_padding_of_its_words(tmp_path):
    odd = {"self_attn.q_proj": (64, 61)}
    shapes, values = int4_tensors(llama_tensors(linears=odd))
    folder = write_checkpoint(tmp_path, shapes, values, quantization_config=weight_only(4))

    checkpoint = read_checkpoint(folder)

    assert checkpoint.layers["model.layers.0.self_attn.q_proj"].shape == (64, 61)
    assert checkpoint.card.linear_parameters == 2 * 64 * 61


@pytest.mark.parametrize(
    ("method", "words"), [("gptq", ("I32", (8, 32))), ("awq", ("I32", (64, 4)))], ids=["gptq", "awq"]
)
def test_gptq_packs_inputs_and_awq_packs_outputs(tmp_path, method, words):
    layer = "model.layers.0.self_attn.k_proj"
    shapes = {
        f"{layer}.qweight": words,
        f"{layer}.scales": ("F16", (2, 32)),
        f"{layer}.qzeros": ("I32", (2, 4)),
        f"{layer}.g_idx": ("I32", (64,)),
        f"{layer}.bias": ("F16", (32,)),
    }
    section = {"quant_method": method, "bits": 4, "group_size": 32}
    checkpoint = read_checkpoint(write_checkpoint(tmp_path, shapes, quantization_config=section, torch_dtype="float16"))

    assert checkpoint.card.precision == "int4"
    assert checkpoint.card.scheme == "W4A16 group 32"
    assert checkpoint.layers[layer].shape == (32, 64)
    assert checkpoint.card.linear_parameters == 32 * 64
    assert checkpoint.card.parameters == 32 * 64 + 32


@pytest.mark.parametrize(
    ("section", "weight", "precision"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, (1024, 1), "nf4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, (32, 32), "nvfp4"),
    ],
    ids=["bitsandbytes", "modelopt"],
)
def test_a_byte_of_two_weights_counts_two(tmp_path, section, weight, precision):
    layer = "model.layers.0.self_attn.k_proj"
    scale = f"{layer}.weight.absmax" if precision == "nf4" else f"{layer}.weight_scale"
    folder = write_checkpoint(
        tmp_path, {f"{layer}.weight": ("U8", weight), scale: ("U8", (32,))}, quantization_config=section
    )

    card = read_card(folder)

    assert (card.parameters, card.precision) == (32 * 64, precision)


@pytest.mark.parametrize(
    ("section", "precision", "activations"),
    [
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8", 8),
        (weight_only(8), "int8", 16),
        (weight_only(8, kind="float", layout="float-quantized"), "fp8", 16),
        (weight_only(4, kind="float", layout="nvfp4-pack-quantized", group=16), "nvfp4", 16),
        (weight_only(4, kind="float", layout="mxfp4-pack-quantized", group=32), "mxfp4", 16),
        ({"quant_method": "mxfp4"}, "mxfp4", 16),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "int8", 16),
        ({"quant_method": "hqq", "nbits": 4}, "int4", None),
        ({"quant_method": "torchao"}, "torchao", None),
    ],
)
def test_the_section_names_the_precision(tmp_path, section, precision, activations):
    card = read_card(write_checkpoint(tmp_path, quantization_config=section))

    assert (card.precision, card.activation_bits) == (precision, activations)


def test_groups_of_different_widths_are_mixed(tmp_path):
    section = weight_only(4)
    section["config_groups"]["group_1"] = weight_only(8)["config_groups"]["group_0"]

    card = read_card(write_checkpoint(tmp_path, quantization_config=section))

    assert (card.precision, card.activation_bits) == ("mixed", None)


@pytest.mark.parametrize(
    ("named", "stored", "precision"),
    [
        ({"torch_dtype": "float16"}, "BF16", "fp16"),
        ({"torch_dtype": None, "dtype": "float32"}, "BF16", "fp32"),
        ({"torch_dtype": "torch.bfloat16"}, "F32", "bf16"),
        ({"torch_dtype": None}, "F16", "fp16"),
        ({"torch_dtype": "auto"}, "F32", "fp32"),
    ],
)
def test_an_unquantized_precision_is_the_dtype_else_what_most_weights_have(tmp_path, named, stored, precision):
    folder = write_checkpoint(tmp_path, {"model.embed_tokens.weight": (stored, (8, 8))}, **named)

    assert read_card(folder).precision == precision


LLAMA_8B = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
QWEN_7B = {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "hidden_size": 3584}
LLAMA_70B = {"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "hidden_size": 8192}
DEEPSEEK_V3 = {"model_type": "deepseek_v3", "num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (LLAMA_8B, 131_072),
        (QWEN_7B, 57_344),
        (LLAMA_70B, 327_680),
        ({**LLAMA_8B, "torch_dtype": "float32"}, 262_144),
        ({**LLAMA_8B, "head_dim": 64}, 65_536),
        ({**LLAMA_8B, "num_key_value_heads": None}, 524_288),
        ({**LLAMA_8B, "num_key_value_heads": None, "multi_query": True}, 16_384),
        ({**LLAMA_8B, "layer_types": ["sliding_attention", "full_attention"]}, 131_072),
        ({**LLAMA_8B, "quantization_config": {**W8A8, "kv_cache_scheme": {"num_bits": 8, "type": "float"}}}, 65_536),
        (DEEPSEEK_V3, 61 * 576 * 2),
        ({**DEEPSEEK_V3, "model_type": "another"}, None),
        ({**DEEPSEEK_V3, "index_head_dim": 128}, None),
        ({**LLAMA_8B, "layer_types": ["linear_attention", "full_attention"]}, None),
        ({**LLAMA_8B, "architectures": ["BertModel"]}, None),
        ({**LLAMA_8B, "num_hidden_layers": None}, None),
        ({**LLAMA_8B, "torch_dtype": "float8_e4m3fn"}, None),
    ],
)
def test_kv_bytes_per_token_follow_the_formula_or_are_unknown(tmp_path, shape, expected):
    assert read_card(write_checkpoint(tmp_path, **shape)).kv_bytes_per_token == expected


def test_a_multimodal_model_keeps_its_language_model_in_text_config(tmp_path):
    keys = dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size"))
    folder = write_checkpoint(
        tmp_path,
        **keys,
        architectures=["LlavaForConditionalGeneration"],
        max_position_embeddings=None,
        tie_word_embeddings=None,
        text_config={**LLAMA_8B, "max_position_embeddings": 4096, "tie_word_embeddings": True},
    )

    checkpoint = read_checkpoint(folder)

    assert checkpoint.card.kv_bytes_per_token == 131_072
    assert checkpoint.card.max_position == 4096
    assert checkpoint.tied


def test_experts_in_one_tensor_are_linear(tmp_path):
    shapes = {
        "model.layers.0.mlp.experts.gate_up_proj": ("BF16", (4, 64, 256)),
        "model.layers.0.mlp.experts.down_proj_blocks": ("U8", (4, 64, 4, 16)),
        "model.layers.0.mlp.experts.down_proj_scales": ("U8", (4, 64, 4)),
        "model.layers.0.mlp.experts.down_proj_bias": ("BF16", (4, 64)),
    }
    card = read_card(write_checkpoint(tmp_path, shapes, quantization_config={"quant_method": "mxfp4"}))

    assert card.linear_parameters == 4 * 64 * 256 + 4 * 64 * 4 * 32
    assert card.parameters == card.linear_parameters + 4 * 64


def test_buffers_are_no_parameters(tmp_path):
    plain = read_card(write_checkpoint(tmp_path / "plain"))
    shapes = {
        **llama_tensors(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (8,)),
        "model.layers.0.self_attn.k_scale": ("F32", (1,)),
    }

    assert read_card(write_checkpoint(tmp_path / "buffers", shapes)).parameters == plain.parameters


def test_the_card_can_be_shown_as_json(tmp_path):
    assert json.loads(json.dumps(asdict(read_card(write_checkpoint(tmp_path)))))["precision"] == "bf16"
