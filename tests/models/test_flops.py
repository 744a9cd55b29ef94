"""FLOPs by architecture and context: well-known figures, closed forms against sums, and what is unknown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.models.adapter import AdapterCard, AdapterLayer
from server.models.architecture import Architecture
from server.models.families import read_architecture
from server.models.flops import FlopModel, Work, adapter_flops_per_token, attended_pairs
from server.units import Bytes
from tests.models.known_configs import (
    DEEPSEEK_V3,
    GPT2,
    GPT_OSS_20B,
    LLAMA_3_8B,
    LLAMA_3_70B,
    MAMBA_2_8B,
    MISTRAL_7B,
    MIXTRAL_8X7B,
    QWEN2_5_7B,
    QWEN3_30B_A3B,
)

FEW = st.integers(0, 60)


def shape(config: dict[str, Any]) -> Architecture:
    found = read_architecture(config)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("config", "total", "active"),
    [
        (LLAMA_3_8B, 8_030_261_248, 8_030_261_248),
        (LLAMA_3_70B, 70_553_706_496, 70_553_706_496),
        (QWEN2_5_7B, 7_615_616_512, 7_615_616_512),
        (MISTRAL_7B, 7_241_732_096, 7_241_732_096),
        (MIXTRAL_8X7B, 46_702_792_704, 12_879_925_248),
        (GPT2, 124_439_808, 124_439_808),
    ],
)
def test_published_parameter_counts_are_met_exactly(config, total, active):
    assert (shape(config).total_parameters, shape(config).active_parameters) == (total, active)


@pytest.mark.parametrize(
    ("config", "total", "active"),
    [
        (DEEPSEEK_V3, 671e9, 37e9),
        (QWEN3_30B_A3B, 30.5e9, 3.3e9),
        (GPT_OSS_20B, 20.9e9, 3.6e9),
        (MAMBA_2_8B, 2.77e9, 2.77e9),
    ],
)
def test_rounded_publications_are_met(config, total, active):
    """gpt-oss publishes its active parameters without the embedding table, which a token does not multiply with."""
    found = shape(config)
    without_table = 0 if config is not GPT_OSS_20B else found.embedding_parameters
    assert found.total_parameters == pytest.approx(total, rel=0.005)
    assert found.active_parameters - without_table == pytest.approx(active, rel=0.02)


@pytest.mark.parametrize(
    ("config", "kv_bytes"),
    [
        (LLAMA_3_8B, 131_072),
        (QWEN2_5_7B, 57_344),
        (LLAMA_3_70B, 327_680),
        (DEEPSEEK_V3, 61 * (512 + 64) * 2),
        (MAMBA_2_8B, 0),
    ],
)
def test_kv_bytes_of_a_token_in_sixteen_bits(config, kv_bytes):
    assert 2 * shape(config).kv_values_per_token == kv_bytes


def test_a_state_space_holds_the_same_however_long_the_sequence_is():
    channels = 2 * 2560
    assert shape(MAMBA_2_8B).state_values_per_sequence == 64 * channels * (16 + 3)
    flops = FlopModel.of(shape(MAMBA_2_8B))
    assert flops.flops_per_token(10) == flops.flops_per_token(100_000)


@pytest.mark.parametrize("config", [LLAMA_3_8B, QWEN2_5_7B, LLAMA_3_70B])
@pytest.mark.parametrize("context", [1, 2048])
def test_a_token_needs_two_flops_a_weight_and_four_a_value_of_context(config, context):
    """≈ 2 · N + 4 · L · q · d · context, the embedding table aside."""
    found, flops = shape(config), FlopModel.of(shape(config))
    weights = sum(linear.d_in * linear.d_out for block in found.blocks for linear in block.linears)
    attention = 4 * config["num_hidden_layers"] * config["hidden_size"] * context
    head = config["vocab_size"] * config["hidden_size"]
    assert flops.flops_per_token(context) == 2 * (weights + head) + attention


def test_a_prompt_costs_the_causal_half_of_its_square():
    flops, per_pair = FlopModel.of(shape(LLAMA_3_8B)), 4 * 32 * 4096
    whole = flops.prefill_flops(1000) - flops.unembed_flops_per_position - 1000 * flops.linear_flops_per_token
    assert whole == per_pair * 1000 * 1001 // 2


def test_latent_attention_multiplies_with_the_latent_when_it_decodes():
    (group,) = FlopModel.of(shape(DEEPSEEK_V3)).attention
    assert group.prefill_flops_per_pair == 61 * 2 * 128 * (192 + 128)
    assert group.decode_flops_per_pair == 61 * 2 * 128 * (576 + 512)


def test_alternating_windows_bound_half_of_the_layers():
    flops = FlopModel.of(shape(GPT_OSS_20B))
    assert {group.window: group.decode_flops_per_pair for group in flops.attention} == {
        128: 12 * 4 * 64 * 64,
        None: 12 * 4 * 64 * 64,
    }
    growth = flops.flops_per_token(5001) - flops.flops_per_token(5000)
    assert growth == 12 * 4 * 64 * 64


@given(tokens=FEW, before=FEW, window=st.none() | st.integers(1, 40))
def test_the_closed_form_of_pairs_is_the_sum(tokens, before, window):
    seen = [before + i for i in range(1, tokens + 1)]
    expected = sum(seen if window is None else [min(context, window) for context in seen])
    assert attended_pairs(tokens, before=before, window=window) == expected


@given(prompt=st.integers(1, 60), cached=FEW, output=FEW, chunk=st.integers(1, 20))
def test_a_request_is_the_sum_of_its_chunks_and_its_steps(prompt, cached, output, chunk):
    for config in (MISTRAL_7B | {"sliding_window": 16}, DEEPSEEK_V3, MAMBA_2_8B):
        flops = FlopModel.of(shape(config))
        start = min(cached, prompt)
        chunks = [
            flops.prefill_flops(min(chunk, prompt - at), before=at, sampled=0) for at in range(start, prompt, chunk)
        ]
        first = flops.unembed_flops_per_position if output else 0
        steps = [flops.flops_per_token(prompt + i) for i in range(1, output)]
        request = flops.request_flops(prompt_tokens=prompt, cached_tokens=start, output_tokens=output)
        assert request == (sum(chunks) + first, sum(steps))


REQUESTS = st.tuples(st.integers(1, 500), st.integers(0, 400), st.integers(0, 300))


@given(requests=st.lists(REQUESTS, max_size=8))
def test_sums_of_work_cost_what_the_requests_cost(requests):
    flops = FlopModel.of(shape(LLAMA_3_8B))
    work, total = Work(), 0.0
    for prompt, cached, output in requests:
        counts = {"prompt_tokens": prompt, "cached_tokens": min(cached, prompt), "output_tokens": output}
        work += Work.of_request(**counts)
        total += flops.request_flops(**counts).total
    assert flops.flops(work).total == total


@given(requests=st.lists(REQUESTS, min_size=1, max_size=8))
def test_with_windows_sums_of_work_are_an_upper_bound(requests):
    flops = FlopModel.of(shape(MISTRAL_7B | {"sliding_window": 64}))
    exact = [flops.request_flops(prompt_tokens=p, cached_tokens=min(c, p), output_tokens=o) for p, c, o in requests]
    sums = [Work.of_request(prompt_tokens=p, cached_tokens=min(c, p), output_tokens=o) for p, c, o in requests]
    work = Work()
    for one in sums:
        work += one
    assert flops.flops(work).prefill >= sum(one.prefill for one in exact)
    assert flops.flops(work).decode >= sum(one.decode for one in exact)


def test_what_has_no_output_samples_nothing():
    flops = FlopModel.of(shape(LLAMA_3_8B))
    request = flops.request_flops(prompt_tokens=10, output_tokens=0)
    assert request.decode == 0
    assert request.prefill == flops.prefill_flops(10, sampled=0)


def test_an_adapter_of_rank_16_adds_half_a_percent_to_an_eight_billion_llama():
    found = shape(LLAMA_3_8B)
    layers = tuple(
        AdapterLayer(name=f"{i}.{j}", rank=16, d_in=linear.d_in, d_out=linear.d_out)
        for i, block in enumerate(found.blocks)
        for j, linear in enumerate(block.linears)
    )
    extra = adapter_flops_per_token(adapter(layers))
    assert extra is not None
    assert extra / FlopModel.of(found).flops_per_token(1) == pytest.approx(0.0056, abs=0.0001)


def test_what_an_adapter_of_another_kind_adds_is_unknown():
    assert adapter_flops_per_token(adapter((), kind="ia3")) is None


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "llama4_text"},
        {"model_type": None},
        {"architectures": ["LlamaForSequenceClassification"]},
        {"is_encoder_decoder": True},
        {"hidden_size": None},
        {"hidden_size": "4096"},
        {"num_hidden_layers": 0},
        {"vocab_size": None},
        {"num_attention_heads": -1},
        {"layer_types": ["chunked_attention"] * 32},
        {"layer_types": ["full_attention"]},
        {"model_type": "mistral", "layer_types": ["sliding_attention"] * 32, "sliding_window": "x"},
        {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 4096},
        {"model_type": "gemma2"},
        {"model_type": "mixtral"},
        {"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3},
        {"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "use_sliding_window": True},
        {"model_type": "opt", "do_layer_norm_before": False},
        {"model_type": "opt", "max_position_embeddings": 64, "word_embed_proj_dim": 512},
        {"model_type": "phi", "qk_layernorm": True},
        {"model_type": "mamba"},
        {"model_type": "deepseek_v3"},
    ],
)
def test_an_unknown_or_broken_configuration_is_unknown_not_guessed(change):
    assert read_architecture(LLAMA_3_8B | change) is None


def test_an_absent_architecture_name_does_not_hide_a_known_family():
    assert read_architecture(LLAMA_3_8B | {"architectures": None}) == read_architecture(LLAMA_3_8B)


def adapter(layers: tuple[AdapterLayer, ...], kind: str = "lora") -> AdapterCard:
    return AdapterCard(
        kind=kind,
        rank=16,
        alpha=32.0,
        target_modules=(),
        modules_to_save=(),
        base_model=None,
        init="default",
        size_bytes=Bytes(0),
        parameters=None,
        layers=layers,
    )


class Number:
    """Counts what is done with it."""

    done = 0

    def __mul__(self, other: Number) -> Number:
        return self._did()

    def __add__(self, other: Number) -> Number:
        return self._did()

    def exp(self) -> Number:
        return self._did()

    def _did(self) -> Number:
        Number.done += 1
        return self


def one_step_of_mamba(channels: int, d_state: int) -> int:
    """The recurrence written out, one number at a time."""
    n, before = Number(), Number.done
    for _ in range(channels):
        scaled = n * n  # Δ · x
        y = n
        for _ in range(d_state):
            h = (n * n).exp() * n + scaled * n  # exp(Δ · A) · h + Δ · x · B
            y = y + h * n
        _ = y + n * n  # D · x
    return Number.done - before


def one_step_of_mamba2(heads: int, head_dim: int, d_state: int) -> int:
    n, before = Number(), Number.done
    for _ in range(heads):
        decay = (n * n).exp()
        for _ in range(head_dim):
            scaled = n * n
            y = n
            for _ in range(d_state):
                h = decay * n + scaled * n
                y = y + h * n
            _ = y + n * n
    return Number.done - before


def test_scans_cost_what_their_recurrences_compute():
    state_space = {"vocab_size": 8, "hidden_size": 6, "num_hidden_layers": 1, "state_size": 5, "conv_kernel": 4}
    mamba = shape(state_space | {"model_type": "mamba", "expand": 2}).blocks[0].recurrence
    mamba2 = (
        shape(state_space | {"model_type": "mamba2", "expand": 2, "num_heads": 3, "head_dim": 4, "n_groups": 1})
        .blocks[0]
        .recurrence
    )
    assert mamba is not None
    assert mamba2 is not None
    assert mamba.scan_flops_per_token == one_step_of_mamba(12, 5)
    assert mamba2.scan_flops_per_token == one_step_of_mamba2(3, 4, 5)
