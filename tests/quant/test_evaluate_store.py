"""quality.json beside a checkpoint, and task scores from lm-evaluation-harness."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from quant.cli import main
from quant.errors import OutputError, SourceError
from quant.quality.lm_eval import task_scores
from quant.quality.store import check_store, store_scores
from quant.quality.weights_hash import weights_sha256
from server.models.quality import read_qualities

KL = {"metric": "kl_nats", "dataset": "heldout", "path": "offline", "value": 0.05, "interval": [0.04, 0.06]}
PERPLEXITY = {"metric": "perplexity", "dataset": "heldout", "path": "offline", "value": 26.5}
MINE = {"weights_sha256": "a" * 64, "base_weights_sha256": "b" * 64}
RESULTS = {
    "results": {
        "wattgate_stdlib": {
            "alias": "wattgate_stdlib",
            "acc,none": 0.75,
            "acc_stderr,none": 0.05,
            "acc,strict": 0.5,
            "word_perplexity,none": 12.0,
            "word_perplexity_stderr,none": "N/A",
        }
    },
    "higher_is_better": {"wattgate_stdlib": {"acc": True, "word_perplexity": False}},
}


def stored(folder: Path) -> Any:
    return json.loads((folder / "quality.json").read_text())


def results(folder: Path, content: Any) -> Path:
    path = folder / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_scores_are_merged_by_metric_data_and_path(tmp_path: Path) -> None:
    store_scores(tmp_path, [PERPLEXITY, KL], MINE, {"interval_method": "one"}, fresh=False)
    store_scores(tmp_path, [KL | {"value": 0.07}, KL | {"path": "served"}], MINE, {}, fresh=False)
    said = stored(tmp_path)
    values = {(score["metric"], score["path"]): score["value"] for score in said["scores"]}
    assert values == {("kl_nats", "offline"): 0.07, ("kl_nats", "served"): 0.05, ("perplexity", "offline"): 26.5}
    assert said["interval_method"] == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["quality.json"]


def test_what_was_stored_is_what_the_server_reads(tmp_path: Path) -> None:
    store_scores(tmp_path, [KL], MINE, {}, fresh=False)
    (score,) = read_qualities(tmp_path)
    assert (score.metric, score.value, score.interval, score.path) == ("kl_nats", 0.05, (0.04, 0.06), "offline")
    assert score.relative


@pytest.mark.parametrize(
    ("key", "said"), [("weights_sha256", "this checkpoint's"), ("base_weights_sha256", "the reference's")]
)
def test_scores_of_other_weights_are_not_mixed_in(tmp_path: Path, key: str, said: str) -> None:
    store_scores(tmp_path, [KL], MINE, {}, fresh=False)
    before = (tmp_path / "quality.json").read_bytes()
    with pytest.raises(OutputError, match=said):
        check_store(tmp_path, MINE | {key: "c" * 64})
    with pytest.raises(OutputError, match="--fresh"):
        store_scores(tmp_path, [PERPLEXITY], MINE | {key: "c" * 64}, {}, fresh=False)
    assert (tmp_path / "quality.json").read_bytes() == before
    store_scores(tmp_path, [PERPLEXITY], MINE | {key: "c" * 64}, {}, fresh=True)
    assert [score["metric"] for score in stored(tmp_path)["scores"]] == ["perplexity"]


def test_scores_of_unknown_weights_are_not_kept(tmp_path: Path) -> None:
    (tmp_path / "quality.json").write_text(json.dumps({"scores": [PERPLEXITY], "base_weights_sha256": "b" * 64}))
    store_scores(tmp_path, [KL], MINE, {}, fresh=False)
    assert [score["metric"] for score in stored(tmp_path)["scores"]] == ["kl_nats"]


def test_broken_file_is_named_and_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "quality.json").write_text("{")
    with pytest.raises(OutputError, match=r"quality\.json: cannot be read .* --fresh"):
        store_scores(tmp_path, [KL], MINE, {}, fresh=False)
    store_scores(tmp_path, [KL], MINE, {}, fresh=True)
    assert stored(tmp_path)["scores"] == [KL]


def test_digest_of_one_file_is_its_own_and_of_several_depends_on_each(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"weights")
    assert weights_sha256(tmp_path) == hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "b.safetensors").write_bytes(b"more")
    two = weights_sha256(tmp_path)
    (tmp_path / "b.safetensors").write_bytes(b"mort")
    assert weights_sha256(tmp_path) != two
    with pytest.raises(SourceError, match="no safetensors file"):
        weights_sha256(tmp_path / "elsewhere")


def test_task_scores_come_with_intervals_from_their_standard_errors(tmp_path: Path) -> None:
    plain, strict = task_scores(results(tmp_path, RESULTS), "2026-11-21")
    assert (plain["metric"], plain["dataset"], plain["value"]) == ("acc", "wattgate_stdlib", 0.75)
    assert plain["interval"] == pytest.approx([0.652, 0.848], abs=1e-3)
    assert (strict["metric"], "interval" in strict) == ("acc,strict", False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ([], 'no "results"'),
        ({"results": {"task": {"acc,none": 0.5}}}, "no score that is better when higher"),
    ],
)
def test_file_that_is_none_of_the_harness_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        task_scores(results(tmp_path, content), "2026-11-21")


def test_task_scores_go_beside_the_checkpoint_without_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert main(["evaluate", str(tmp_path), "--from-lm-eval", str(results(tmp_path, RESULTS))]) == 0
    assert "0.75" in capsys.readouterr().out
    assert read_qualities(tmp_path)[0].label == "acc:wattgate_stdlib"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--reference"),
        (["--reference", "{folder}", "--url", "http://127.0.0.1:1"], "--model"),
        (["--reference", "{folder}", "--reference-url", "http://127.0.0.1:1"], "--url"),
        (["--reference", "{folder}", "--resamples", "0"], "--resamples"),
        (["--reference", "{folder}/none"], "no safetensors file"),
        (["--reference", "{folder}", "--text", "{folder}/none.txt"], "cannot be read as text"),
    ],
)
def test_command_line_that_cannot_work_is_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert main(["evaluate", str(tmp_path), *(option.format(folder=tmp_path) for option in options)]) == 1
    assert said in capsys.readouterr().err
