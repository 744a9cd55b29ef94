"""The file of scores beside a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.efficiency import engine_facts
from server.errors import CheckpointError
from server.models.quality import Quality, comparable, read_qualities

SCORE = {"metric": "perplexity", "dataset": "heldout", "value": 9.5}


def write(folder: Path, content: Any) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "quality.json").write_text(text, encoding="utf-8")
    return folder


def test_scores_are_read_with_what_they_were_measured_on(tmp_path: Path) -> None:
    write(tmp_path, {"scores": [SCORE | {"measured_at": "2026-11-21", "window": 512}], "tool": "quant"})
    (score,) = read_qualities(tmp_path)
    assert score == Quality(metric="perplexity", dataset="heldout", value=9.5, measured_at="2026-11-21", window=512)
    assert (score.label, score.performance) == ("perplexity:heldout", 1 / 9.5)


def test_no_file_is_no_score(tmp_path: Path) -> None:
    assert read_qualities(tmp_path) == ()
    assert engine_facts(None, tmp_path).quality_problem is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "cannot be read"),
        ([], 'has no list "scores"'),
        ({"scores": {}}, 'has no list "scores"'),
        ({"scores": [SCORE, 7]}, r"scores\[1\] needs a metric, a dataset and a number"),
        ({"scores": [SCORE | {"metric": ""}]}, r"scores\[0\] needs"),
        ({"scores": [SCORE | {"value": "9.5"}]}, r"scores\[0\] needs"),
        ({"scores": [SCORE | {"value": True}]}, r"scores\[0\] needs"),
        ({"scores": [SCORE | {"value": 0}]}, r"scores\[0\].value is 0"),
        ({"scores": [SCORE | {"value": -1.0}]}, r"finite number above 0"),
        ('{"scores": [{"metric": "perplexity", "dataset": "x", "value": 1e999}]}', "quality.json"),
        (" " * 2_000_000, "is larger than"),
    ],
)
def test_broken_file_is_named_with_what_is_wrong(tmp_path: Path, content: Any, said: str) -> None:
    write(tmp_path, content)
    with pytest.raises(CheckpointError, match=said):
        read_qualities(tmp_path)
    problem = engine_facts(None, tmp_path).quality_problem
    assert problem is not None
    assert str(tmp_path) in problem


def test_only_the_same_metric_on_the_same_data_is_compared() -> None:
    ppl = Quality(metric="perplexity", dataset="a", value=10.0)
    task = Quality(metric="exact_match", dataset="b", value=0.5)
    assert comparable([ppl, task], [task, ppl]) == (task, task)
    assert comparable([ppl, task], [ppl]) == (ppl, ppl)
    assert comparable([ppl], [task]) is None
    assert comparable([], [ppl]) is None
