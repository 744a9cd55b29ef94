"""An adapter's card: kind, rank, layers, and what is wrong with broken ones."""

from __future__ import annotations

import pytest

from server.errors import CheckpointError
from server.models import AdapterLayer, read_adapter
from tests.fakes.safetensors_file import LINEARS, write_adapter, write_checkpoint, write_safetensors

Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


def test_a_lora_is_read_with_its_layers(tmp_path):
    folder = write_adapter(tmp_path, rank=8, base_model_name_or_path="models/demo")

    card = read_adapter(folder)

    assert (card.kind, card.rank, card.alpha, card.init) == ("lora", 8, 16.0, "default")
    assert card.target_modules == ("q_proj", "v_proj")
    assert card.modules_to_save == ()
    assert card.base_model == "models/demo"
    assert card.size_bytes == (folder / "adapter_model.safetensors").stat().st_size
    assert card.parameters == 2 * sum(8 * (outputs + inputs) for outputs, inputs in LINEARS.values())
    assert len(card.layers) == 2 * len(LINEARS)
    assert AdapterLayer(name="model.layers.1.mlp.down_proj", rank=8, d_in=128, d_out=64) in card.layers
    assert card.features == card.foreign_tensors == ()


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"use_rslora": True}, "rslora"),
        ({"use_dora": True}, "dora"),
        ({"use_dora": True, "use_rslora": True}, "dora"),
        ({"peft_type": None}, "lora"),
        ({"peft_type": "LOKR"}, "lokr"),
        ({"peft_type": "IA3", "r": None, "lora_alpha": None}, "ia3"),
        ({"peft_type": "PREFIX_TUNING", "r": None}, "prefix_tuning"),
    ],
)
def test_the_kind_is_peft_type_refined_by_its_flags(tmp_path, config, kind):
    assert read_adapter(write_adapter(tmp_path, **config)).kind == kind


def test_a_kind_without_rank_has_none(tmp_path):
    card = read_adapter(write_adapter(tmp_path, peft_type="IA3", r=None, lora_alpha=None))

    assert card.rank is None
    assert card.alpha is None
    assert card.layers == ()


def test_the_rank_is_the_largest_of_any_layer(tmp_path):
    assert read_adapter(write_adapter(tmp_path, rank=8, rank_pattern={"q_proj": 64, "v_proj": 4})).rank == 64


def test_a_pattern_of_target_modules_is_kept_as_it_is(tmp_path):
    assert read_adapter(write_adapter(tmp_path, target_modules=".*_proj")).target_modules == (".*_proj",)


@pytest.mark.parametrize(
    ("value", "init"),
    [(True, "default"), (False, "default"), ("PiSSA_niter_16", "pissa_niter_16"), ("gaussian", "gaussian")],
)
def test_the_start_is_named_in_lower_case(tmp_path, value, init):
    assert read_adapter(write_adapter(tmp_path, init_lora_weights=value)).init == init


def test_features_that_are_switched_off_are_none(tmp_path):
    card = read_adapter(write_adapter(tmp_path, lora_bias=False, use_qalora=True, bias="all", layer_replication=[]))

    assert card.features == ("use_qalora", "bias")


def test_a_saved_base_embedding_is_neither_foreign_nor_a_parameter(tmp_path):
    plain = read_adapter(write_adapter(tmp_path / "plain"))
    extra = {"base_model.model.model.embed_tokens.base_layer.weight": ("F32", (512, 64))}

    card = read_adapter(write_adapter(tmp_path / "resized", tensors=extra))

    assert card.parameters == plain.parameters
    assert card.foreign_tensors == ()


def test_pickled_weights_have_a_size_and_nothing_more(tmp_path):
    folder = write_adapter(tmp_path)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"pickle")

    card = read_adapter(folder)

    assert (card.size_bytes, card.parameters, card.layers) == (6, None, ())


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: there is no such folder"):
        read_adapter(tmp_path / "nowhere")


def test_a_folder_without_adapter_config_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: there is no such file"):
        read_adapter(tmp_path)


def test_a_checkpoint_is_no_adapter(tmp_path):
    with pytest.raises(CheckpointError, match="is a whole checkpoint, not an adapter"):
        read_adapter(write_checkpoint(tmp_path))


def test_missing_weights_are_named(tmp_path):
    folder = write_adapter(tmp_path)
    (folder / "adapter_model.safetensors").unlink()

    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: there is no such file"):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"lora_alpha": None, "target_modules": None}, "has no `lora_alpha`, `target_modules`"),
        ({"r": 0}, "`r` is 0, expected a whole number of at least 1"),
        ({"r": None, "peft_type": None}, "has no `peft_type`"),
        ({"lora_alpha": float("inf")}, "`lora_alpha` is not a finite number, expected a number"),
        ({"target_modules": 3}, "`target_modules` is 3, expected a list of texts"),
        ({"rank_pattern": {"q_proj": "big"}}, r"`rank_pattern\.q_proj` is 'big'"),
    ],
)
def test_a_broken_setting_is_named(tmp_path, config, said):
    with pytest.raises(CheckpointError, match=said):
        read_adapter(write_adapter(tmp_path, **config))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({f"{Q_PROJ}.lora_A.weight": ("F32", (8, 64))}, "has no partner"),
        (
            {f"{Q_PROJ}.lora_A.weight": ("F32", (8, 64)), f"{Q_PROJ}.lora_B.weight": ("F32", (64, 4))},
            "have different ranks",
        ),
        ({}, "holds no tensor"),
    ],
)
def test_matrices_that_do_not_belong_together_are_refused(tmp_path, tensors, said):
    folder = write_adapter(tmp_path)
    write_safetensors(folder / "adapter_model.safetensors", tensors)

    with pytest.raises(CheckpointError, match=said):
        read_adapter(folder)
