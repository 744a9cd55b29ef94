"""Missing and broken files: the message names file and key."""

from __future__ import annotations

import json
import struct

import pytest

from server.errors import CheckpointError
from server.models import read_card
from server.models.safetensors_file import read_shard
from tests.fakes.safetensors_file import (
    int4_tensors,
    llama_tensors,
    shard,
    weight_only,
    write_adapter,
    write_checkpoint,
    write_safetensors,
)


def header(entries: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: there is no such folder"):
        read_card(tmp_path / "nowhere")


def test_a_file_is_no_folder(tmp_path):
    path = write_safetensors(tmp_path / "model.safetensors", {})

    with pytest.raises(CheckpointError, match="is a file, not a folder"):
        read_card(path)


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json: there is no such file"):
        read_card(tmp_path)


def test_an_adapter_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="is an adapter, not a checkpoint"):
        read_card(write_adapter(tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "is not valid JSON"), ("[" * 100_000, "is not valid JSON"), ("[]", "must hold a JSON object, found a list")],
)
def test_a_config_that_is_no_object_is_refused(tmp_path, text, said):
    folder = write_checkpoint(tmp_path)
    (folder / "config.json").write_text(text)

    with pytest.raises(CheckpointError, match=said):
        read_card(folder)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("num_hidden_layers", "two", r"`num_hidden_layers` is 'two', expected a whole number"),
        ("num_attention_heads", 0, r"`num_attention_heads` is 0, expected a whole number of at least 1"),
        ("hidden_size", True, r"`hidden_size` is True"),
        ("torch_dtype", 16, r"`torch_dtype` is 16, expected a text"),
        ("tie_word_embeddings", "yes", r"`tie_word_embeddings` is 'yes', expected true or false"),
        ("architectures", {}, r"`architectures` is an object, expected a list of texts"),
        ("quantization_config", [], r"`quantization_config` is a list, expected an object"),
        ("quantization_config", {"quant_method": "gptq", "bits": 99}, r"`quantization_config\.bits` is 99"),
        (
            "quantization_config",
            {"config_groups": {"a": {"weights": {"num_bits": "4"}}}},
            r"groups\.a\.weights\.num_bits",
        ),
    ],
)
def test_a_key_of_the_wrong_type_is_named_with_what_was_found(tmp_path, key, value, said):
    with pytest.raises(CheckpointError, match=said) as caught:
        read_card(write_checkpoint(tmp_path, **{key: value}))

    assert str(tmp_path / "config.json") in str(caught.value)


def test_a_folder_without_weights_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path)
    (folder / "model.safetensors").unlink()

    with pytest.raises(CheckpointError, match=r"holds no safetensors file\. Download"):
        read_card(folder)

    (folder / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match="Convert its pickled weights"):
        read_card(folder)


def test_files_without_weights_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="hold no weights"):
        read_card(write_checkpoint(tmp_path, {}))


def test_a_truncated_file_is_told_from_a_whole_one(tmp_path):
    folder = write_checkpoint(tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(CheckpointError, match="it is truncated"):
        read_card(folder)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has 0 bytes, too few"),
        (b"1234567", "has 7 bytes, too few"),
        (header({}, length=2**63), "claims a header of 9223372036854775808 bytes"),
        (struct.pack("<Q", 3) + b"{,}", "the safetensors header is not valid JSON"),
        (header([]), "must hold a JSON object"),
        (header({"a": 1}), "'a' is not described by an object"),
        (header({"a": {**ENTRY, "dtype": "F31"}}, bytes(8)), "'a' has an unknown dtype"),
        (header({"a": {**ENTRY, "shape": [-2]}}, bytes(8)), "'a' has no valid `shape`"),
        (header({"a": {**ENTRY, "shape": [2**63]}}, bytes(8)), "'a' has no valid `shape`"),
        (header({"a": {**ENTRY, "data_offsets": [8, 0]}}, bytes(8)), "'a' has no valid `data_offsets`"),
        (header({"a": {**ENTRY, "data_offsets": [0, 16]}}, bytes(8)), "but the file has"),
        (header({"a": {**ENTRY, "shape": [3]}}, bytes(8)), "has 8 bytes, which is not what its shape"),
        (header({"a": ENTRY, "b": ENTRY}, bytes(8)), "overlaps another or leaves a hole"),
        (header({"a": ENTRY}, bytes(9)), "has 1 bytes behind its last tensor"),
    ],
)
def test_a_broken_header_says_what_is_broken(tmp_path, content, said):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=said) as caught:
        read_shard(path)

    assert str(path) in str(caught.value)


def test_an_index_that_names_missing_shards_lists_them(tmp_path):
    folder = write_checkpoint(tmp_path)
    shard(folder, llama_tensors(), 3)[1].unlink()

    with pytest.raises(CheckpointError, match=r"1 of 3 weight files are missing: model-00002-of-00003\.safetensors"):
        read_card(folder)


def test_an_index_that_names_a_tensor_the_shard_lacks_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path)
    paths = shard(folder, llama_tensors(), 2)
    write_safetensors(paths[0], {})

    with pytest.raises(CheckpointError, match="which it does not"):
        read_card(folder)


@pytest.mark.parametrize("place", ["../other/model.safetensors", "model.bin", 3])
def test_an_index_may_only_name_files_beside_it(tmp_path, place):
    folder = write_checkpoint(tmp_path)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": place}}))

    with pytest.raises(CheckpointError, match=r"`weight_map\.a` is .*, expected a (safetensors file|text)"):
        read_card(folder)


@pytest.mark.parametrize("declared", [(64, 7), (63, 64), (-1, -1), (64, 2**60)])
def test_a_declared_shape_must_fit_the_packed_words(tmp_path, declared):
    shapes, values = int4_tensors(llama_tensors())
    name = "model.layers.0.self_attn.q_proj.weight_shape"
    values[name] = struct.pack("<2q", *declared)

    with pytest.raises(CheckpointError, match="does not fit the packed weight"):
        read_card(write_checkpoint(tmp_path, shapes, values, quantization_config=weight_only(4)))
