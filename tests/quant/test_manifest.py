"""The manifest beside a variant: written here, read without torch by the server."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from quant.manifest import combined_sha256, digests_of, files_of, key_of, write_manifest
from server.errors import CheckpointError
from server.models.manifest import MANIFEST_FILE, Manifest, read_manifest

MANIFEST = Manifest(
    name="int4",
    method="rtn",
    scheme="w4a16",
    options={"group_size": 128},
    tier="own",
    tools={"torch": "2.13.0"},
    key="ab" * 32,
    recipe="demo.yaml",
    source={"name": "demo", "weights_sha256": "cd" * 32, "size_bytes": 10},
    files={"model.safetensors": {"sha256": "ef" * 32, "size_bytes": 5}},
    seconds=0.5,
    peak_memory_bytes=1000,
    joules=None,
    energy_meter=None,
    made_at="2026-11-21T12:00:00Z",
)


def test_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST


def test_folder_without_a_manifest_has_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None


def test_unknown_keys_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_text(json.dumps({**MANIFEST.to_json(), "later": 1}))
    assert read_manifest(tmp_path) == MANIFEST


@pytest.mark.parametrize(
    ("key", "value"), [("schema", 99), ("name", None), ("options", []), ("seconds", "long"), ("files", None)]
)
def test_broken_manifest_is_refused_with_its_key(tmp_path: Path, key: str, value: object) -> None:
    (tmp_path / MANIFEST_FILE).write_text(json.dumps({**MANIFEST.to_json(), key: value}))
    with pytest.raises(CheckpointError, match=key):
        read_manifest(tmp_path)


def test_digest_of_one_file_is_its_own_and_of_several_that_of_their_list(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"two")
    (tmp_path / "a").write_bytes(b"one")
    one, two = (hashlib.sha256(data).hexdigest() for data in (b"one", b"two"))
    assert digests_of(tmp_path.iterdir()) == {"a": one, "b": two}
    assert combined_sha256({"a": one}) == one
    listed = f"{one}  a\n{two}  b\n".encode()
    assert combined_sha256({"b": two, "a": one}) == hashlib.sha256(listed).hexdigest()


def test_manifest_does_not_list_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_manifest(tmp_path, MANIFEST)
    assert list(files_of(tmp_path)) == ["config.json"]


def test_key_depends_on_sources_method_and_tools_and_not_on_their_order() -> None:
    made = {"method": "rtn", "options": {"a": 1, "b": 2}}
    key = key_of({"x": "1", "y": "2"}, made)
    assert key == key_of({"y": "2", "x": "1"}, {"options": {"b": 2, "a": 1}, "method": "rtn"})
    assert len({key, key_of({"x": "1", "y": "3"}, made), key_of({"x": "1", "y": "2"}, {**made, "method": "cast"})}) == 3
