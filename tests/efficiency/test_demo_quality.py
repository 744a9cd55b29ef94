"""What is said of the demo model's quality is said of the weights that are there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from server.models.quality import QUALITY_FILE, comparable, read_qualities


@pytest.mark.parametrize("name", [QUALITY_FILE, "quality.int8.json", "quality.int4.json"])
def test_quality_was_measured_of_the_weights_that_are_there(root: Path, tmp_path: Path, name: str) -> None:
    model = root / "models" / "demo"
    said = (model / name).read_text(encoding="utf-8")
    weights = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    assert json.loads(said)["base_weights_sha256"] == weights
    (tmp_path / QUALITY_FILE).write_text(said, encoding="utf-8")
    assert comparable(read_qualities(tmp_path), read_qualities(model)) is not None
