"""Every rule for adapters is broken by one case and kept by its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server.errors import IncompatibleError
from server.models import (
    ADAPTER_RULES,
    Checkpoint,
    DeviceFacts,
    ModelCard,
    check_adapter,
    read_adapter,
    read_card,
    read_checkpoint,
)
from tests.fakes.safetensors_file import LINEARS, llama_tensors, write_adapter, write_checkpoint, write_int4, write_int8

CPU = DeviceFacts(kind="cpu")
GPU = DeviceFacts(kind="cuda", compute_capability=(8, 0))


def int4(folder: Path) -> Checkpoint:
    return read_checkpoint(write_int4(folder))


def int8(folder: Path) -> Checkpoint:
    return read_checkpoint(write_int8(folder))


def only_a_card(folder: Path) -> ModelCard:
    return read_card(write_int4(folder))


EMBEDDING = {"base_model.model.model.embed_tokens.lora_embedding_A": ("F32", (8, 512))} | {
    "base_model.model.model.embed_tokens.lora_embedding_B": ("F32", (64, 8))
}
HEAD = {
    "base_model.model.lm_head.lora_A.weight": ("F32", (8, 64)),
    "base_model.model.lm_head.lora_B.weight": ("F32", (512, 8)),
}
TOKENS = {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": ("F32", (3, 64))}
SCORE = {"base_model.model.score.weight": ("F32", (2, 64))}
CONV = {
    "base_model.model.v.lora_A.weight": ("F32", (8, 3, 2, 2)),
    "base_model.model.v.lora_B.weight": ("F32", (9, 8, 1, 1)),
}
EXPERTS = {
    "base_model.model.model.layers.0.mlp.experts.lora_A.weight": ("F32", (8, 5)),
    "base_model.model.model.layers.0.mlp.experts.lora_B.weight": ("F32", (5, 8)),
}
WRAPPED = {
    "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_A.weight": ("F32", (8, 64)),
    "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_B.weight": ("F32", (128, 8)),
}
OTHER_SHAPE = {**LINEARS, "mlp.down_proj": (64, 256)}
OTHER_LAYER = {"mlp.fc1": (64, 64)}
TRANSPOSED = {"mlp.down_proj": (128, 64)}


@dataclass
class Loading:
    adapter: Any = ()
    base: Callable[[Path], Checkpoint | ModelCard] | None = int4
    device: DeviceFacts | None = CPU
    max_rank: int | None = 16

    def check(self, folder: Path) -> None:
        adapter = read_adapter(write_adapter(folder / "adapter", **dict(self.adapter)))
        base = self.base(folder / "base") if self.base else None
        check_adapter(adapter, base, max_rank=self.max_rank, device=self.device)


ADAPTERS: dict[str, tuple[Loading, list[Loading]]] = {
    "adapter-kind": (Loading({"peft_type": "LOKR"}), [Loading(), Loading({"use_rslora": True})]),
    "adapter-dora": (Loading({"use_dora": True}), [Loading({"use_dora": False})]),
    "adapter-init": (
        Loading({"init_lora_weights": "pissa_niter_16"}),
        [Loading({"init_lora_weights": "gaussian"}), Loading({"init_lora_weights": False})],
    ),
    "adapter-modules-to-save": (
        Loading({"modules_to_save": ["embed_tokens"]}),
        [Loading({"modules_to_save": ["score"], "tensors": SCORE}), Loading({"modules_to_save": []})],
    ),
    "adapter-feature": (Loading({"lora_bias": True}), [Loading({"lora_bias": False})]),
    "adapter-tensors": (Loading({"tensors": TOKENS}), [Loading({"tensors": EMBEDDING})]),
    "cpu-w8a8-adapters": (
        Loading(base=int8),
        [Loading(base=int8, device=GPU), Loading(base=int4), Loading(base=int8, device=None)],
    ),
    "adapters-off": (Loading(max_rank=None), [Loading(max_rank=8)]),
    "adapter-rank": (
        Loading({"rank": 16}, max_rank=8),
        [Loading({"rank": 8}, max_rank=8), Loading({"peft_type": None}, max_rank=8)],
    ),
    "adapter-base": (
        Loading({"linears": OTHER_SHAPE}),
        [
            Loading({"linears": TRANSPOSED}),
            Loading({"tensors": HEAD}),
            Loading({"tensors": EXPERTS}),
            Loading({"tensors": CONV}),
            Loading({"tensors": WRAPPED}),
            Loading({"linears": OTHER_SHAPE}, base=only_a_card),
            Loading({"linears": OTHER_SHAPE}, base=None),
        ],
    ),
}


def test_every_rule_for_adapters_is_tested():
    assert ADAPTERS.keys() == ADAPTER_RULES.keys()


@pytest.mark.parametrize("slug", ADAPTERS)
def test_an_adapter_that_breaks_the_rule_is_refused(tmp_path, slug):
    with pytest.raises(IncompatibleError) as caught:
        ADAPTERS[slug][0].check(tmp_path)

    assert caught.value.rule == slug
    assert ADAPTER_RULES[slug].sentence in str(caught.value)
    assert caught.value.instead.endswith(".")


@pytest.mark.parametrize(
    ("slug", "index"), [(slug, index) for slug, c in ADAPTERS.items() for index in range(len(c[1]))]
)
def test_an_adapter_that_keeps_the_rule_is_not(tmp_path, slug, index):
    ADAPTERS[slug][1][index].check(tmp_path)


@pytest.mark.parametrize(
    ("kind", "instead"),
    [
        ("LOHA", "wattgate quant adapter convert"),
        ("IA3", "merge it"),
        ("PROMPT_TUNING", "prompt embeddings"),
        ("PREFIX_TUNING", "prefix tuning has no way into vLLM"),
        ("SOMETHING_NEW", "if PEFT can"),
    ],
)
def test_each_foreign_kind_is_told_what_would_work(tmp_path, kind, instead):
    with pytest.raises(IncompatibleError) as caught:
        Loading({"peft_type": kind}).check(tmp_path)

    assert instead in caught.value.instead
    assert kind.lower() in str(caught.value)


def test_a_rank_over_the_limit_is_told_the_limit_it_needs(tmp_path):
    with pytest.raises(
        IncompatibleError, match=r"rank 64, the engine's limit is 16\. Instead: set .*max_rank.* least 64"
    ):
        Loading({"rank": 8, "rank_pattern": {"q_proj": 64}}).check(tmp_path)


def test_an_engine_without_adapters_is_told_the_section_it_needs(tmp_path):
    with pytest.raises(IncompatibleError, match=r"`adapters:` section with `max_rank` of at least 8"):
        Loading(max_rank=None).check(tmp_path)


def test_an_adapter_of_another_shape_names_layer_shapes_and_its_own_base(tmp_path):
    loading = Loading({"linears": OTHER_SHAPE, "base_model_name_or_path": "org/big"})

    with pytest.raises(IncompatibleError) as caught:
        loading.check(tmp_path)

    said = str(caught.value)
    assert "2 of 14 layers do not fit" in said
    assert (
        "model.layers.0.mlp.down_proj: the adapter is for (out, in) = (64, 256), the base model has (64, 128)" in said
    )
    assert "trained on org/big" in said


def test_an_adapter_for_layers_that_the_base_lacks_is_refused(tmp_path):
    with pytest.raises(IncompatibleError, match=r"mlp\.fc1, which the base model does not have"):
        Loading({"linears": OTHER_LAYER}).check(tmp_path)


def test_a_head_that_is_tied_to_the_embedding_may_be_adapted(tmp_path):
    def tied(folder: Path) -> Checkpoint:
        return read_checkpoint(write_checkpoint(folder, llama_tensors(tied=True), tie_word_embeddings=True))

    Loading({"tensors": HEAD}, base=tied).check(tmp_path)
