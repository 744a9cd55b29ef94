"""What `quant adapter inspect` and `table` say, from files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quant.adapters import KINDS, Way
from quant.adapters.inspection import inspect_adapter
from quant.adapters.table import VARIANTS, compatibility, device_facts
from quant.cli import main
from quant.errors import SchemeError, SourceError
from server.models.adapter_kinds import FEATURE_WAYS, instead_of_kind
from tests.fakes.safetensors_file import write_adapter, write_checkpoint

TOKENS = {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": ("F32", (3, 64))}


@pytest.mark.parametrize(
    ("config", "way", "because"),
    [
        ({}, Way.SERVE, "low rank"),
        ({"use_rslora": True}, Way.SERVE, "√rank"),
        ({"use_dora": True}, Way.MERGE, "length"),
        ({"init_lora_weights": "pissa"}, Way.CONVERT, "init_lora_weights: pissa"),
        ({"modules_to_save": ["norm"]}, Way.MERGE, "modules_to_save"),
        ({"tensors": TOKENS}, Way.MERGE, "tensor"),
        ({"use_qalora": True}, Way.MERGE, "use_qalora"),
        ({"lora_bias": True}, Way.REFUSE, "lora_bias"),
        ({"alora_invocation_tokens": [1]}, Way.REFUSE, "alora_invocation_tokens"),
        ({"peft_type": "LOHA"}, Way.CONVERT, "Hadamard"),
        ({"peft_type": "OFT", "r": 0}, Way.MERGE, "orthogonal"),
        ({"peft_type": "PREFIX_TUNING"}, Way.REFUSE, "keys and values"),
        ({"peft_type": "SOMETHING_NEW"}, Way.REFUSE, "no kind of adapter known here"),
    ],
)
def test_the_way_follows_from_kind_start_and_features(
    tmp_path: Path, config: dict[str, Any], way: Way, because: str
) -> None:
    found = inspect_adapter(write_adapter(tmp_path, **config))
    assert found.way is way
    assert because in found.because
    assert found.instead.endswith(".")


def test_adapter_of_another_base_is_refused_with_layer_and_both_shapes(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", linears={"mlp.down_proj": (64, 256)})
    with pytest.raises(SourceError, match=r"layers\.0\.mlp\.down_proj.*\(64, 256\).*\(64, 128\)"):
        inspect_adapter(adapter, base)


def test_missing_config_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapter", "inspect", str(tmp_path)]) == 1
    assert "adapter_config.json" in capsys.readouterr().err


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path)
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(SourceError, match="truncated"):
        inspect_adapter(adapter)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_reason_and_something_to_do(kind: str) -> None:
    assert KINDS[kind].about[0].islower()
    assert not KINDS[kind].about.endswith(".")
    assert instead_of_kind(kind).endswith(".")


def test_no_feature_that_vllm_lacks_is_served() -> None:
    assert Way.SERVE not in FEATURE_WAYS.values()


def test_lora_is_merged_where_the_engine_would_die() -> None:
    cpu, gpu = compatibility(device_facts("cpu")), compatibility(device_facts("sm90"))
    assert cpu["lora"] == dict.fromkeys(VARIANTS, "serve") | {"int8": "merge, quantize"}
    assert gpu["lora"]["int8"] == "serve"
    assert cpu["loha"]["int8"] == "merge, quantize"
    assert cpu["dora"] == dict.fromkeys(VARIANTS, "merge, quantize") | {"bf16": "merge", "fp16": "merge"}
    assert set(cpu["prefix_tuning"].values()) == {"refuse"}


def test_table_has_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapter", "table", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(KINDS)


@pytest.mark.parametrize("name", ["tpu", "sm", "sm9", "smxy"])
def test_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(SchemeError, match="There is no device"):
        device_facts(name)
