"""Whatever the files hold, nothing but a CheckpointError that names them comes out."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import CheckpointError
from server.models import read_adapter, read_card
from server.models.safetensors_file import read_shard
from tests.fakes.safetensors_file import CONFIG, write_adapter, write_checkpoint


def file(entries: object, data: bytes) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def complaint_of(read: Callable[[Path], object], path: Path) -> str | None:
    try:
        read(path)
    except CheckpointError as error:
        return str(error)
    return None


PATIENT = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy: no example is timed."""


@PATIENT
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_are_a_shard_or_a_checkpoint_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    path.write_bytes(content)
    complaint = complaint_of(read_shard, path)

    assert complaint is None or str(path) in complaint


TEXT = st.text(alphabet="ab.\0é", max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "I64", "F4", "X"]),
        "shape": JSON | st.lists(st.integers(0, 4), max_size=3),
    },
    optional={"data_offsets": JSON | st.lists(st.integers(0, 64), min_size=2, max_size=2)},
)
NAMES = st.sampled_from(["lm_head.weight", "a.q_proj.weight_packed", "a.q_proj.weight_shape", "x", "a.weight.absmax"])


@PATIENT
@given(entries=st.dictionaries(NAMES, ENTRIES | JSON, max_size=4), data=st.binary(max_size=64))
def test_arbitrary_headers_are_a_card_or_a_checkpoint_error(tmp_path_factory, entries, data):
    folder = write_checkpoint(tmp_path_factory.mktemp("fuzz"))
    (folder / "model.safetensors").write_bytes(file(entries, data))
    complaint = complaint_of(read_card, folder)

    assert complaint is None or str(folder) in complaint


SECTION = st.dictionaries(
    st.sampled_from(["quant_method", "format", "config_groups", "bits", "group_size", "quant_algo", "kv_cache_scheme"]),
    st.sampled_from(["gptq", "awq", "fp8", "bitsandbytes", "compressed-tensors", "modelopt", "mxfp4"]) | JSON,
)


@PATIENT
@given(
    keys=st.dictionaries(
        st.sampled_from([*CONFIG, "text_config", "head_dim", "kv_lora_rank", "layer_types"]), JSON, max_size=4
    ),
    section=SECTION | JSON,
)
def test_arbitrary_settings_are_a_card_or_a_checkpoint_error(tmp_path_factory, keys, section):
    folder = write_checkpoint(tmp_path_factory.mktemp("fuzz"), **{"quantization_config": section, **keys})
    complaint = complaint_of(read_card, folder)

    assert complaint is None or str(folder) in complaint


ADAPTER_KEYS = [
    "peft_type",
    "r",
    "lora_alpha",
    "target_modules",
    "use_dora",
    "init_lora_weights",
    "rank_pattern",
    "bias",
]


@PATIENT
@given(keys=st.dictionaries(st.sampled_from(ADAPTER_KEYS), JSON))
def test_arbitrary_adapter_settings_are_a_card_or_a_checkpoint_error(tmp_path_factory, keys):
    folder = write_adapter(tmp_path_factory.mktemp("fuzz"), **keys)
    complaint = complaint_of(read_adapter, folder)

    assert complaint is None or str(folder) in complaint
