"""The report: tables, JSON and one page about variants side by side."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.cli import main
from quant.quality.weights_hash import weights_sha256
from quant.report.losses import pareto_front
from quant.report.scatter import Point, scatter
from tests.fakes.safetensors_file import write_checkpoint, write_int4, write_int8

MANIFEST = {
    "schema": 1,
    "name": "int8",
    "method": "rtn",
    "scheme": "w8a8-int8",
    "options": {},
    "tier": "own",
    "tools": {},
    "key": "k",
    "recipe": None,
    "source": {},
    "files": {},
    "seconds": 0.41,
    "peak_memory_bytes": 312_000_000,
    "joules": 12.3,
    "energy_meter": "rapl",
    "made_at": "2026-11-21T19:00:00Z",
}
LOSSES = {"int8": (1.001, 0.0012), "int4": (1.007, 0.0556)}


def scores(ratio: float, divergence: float) -> list[dict[str, Any]]:
    about = {"dataset": "heldout", "path": "offline", "reference": "base", "window": 512}
    return [
        about | {"metric": "perplexity", "value": 26.0 * ratio, "interval": [21.0, 32.0]},
        about | {"metric": "perplexity_ratio", "value": ratio, "interval": [ratio - 0.001, ratio + 0.001]},
        about | {"metric": "kl_nats", "value": divergence, "interval": [0.9 * divergence, 1.1 * divergence]},
        about | {"metric": "top1_agreement_ratio", "value": 0.9, "interval": [0.89, 0.91]},
    ]


def keep(folder: Path, found: list[dict[str, Any]], base: Path, **more: Any) -> None:
    said = {"scores": found, "weights_sha256": weights_sha256(folder), "base_weights_sha256": weights_sha256(base)}
    (folder / "quality.json").write_text(json.dumps(said | more))


@pytest.fixture
def variants(tmp_path: Path) -> list[Path]:
    """A base, int8 with a manifest, int4 without one; both measured."""
    folders = [write_checkpoint(tmp_path / "base"), write_int8(tmp_path / "int8"), write_int4(tmp_path / "int4")]
    for folder in folders[1:]:
        keep(folder, scores(*LOSSES[folder.name]), folders[0])
    (folders[1] / "manifest.json").write_text(json.dumps(MANIFEST))
    return folders


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["report", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    found = json.loads(told(capsys, *arguments, "--json"))
    return {variant["name"]: variant for variant in found["variants"]} | {"report": found}


def test_tables_fit_a_terminal_and_hold_every_loss_with_its_interval(
    variants: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, *variants)
    assert max(map(len, text.splitlines())) <= 80
    for shown in ("+0.70 %", "+0.60 %", "+0.80 %", "0.0556", "0.05", "0.0612", "rtn w8a8-int8", "0.41 s", "12.3 J"):
        assert shown in text


def test_rate_is_size_times_quality_and_its_interval_follows_from_that_of_perplexity(
    variants: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = as_json(capsys, *variants)
    size = found["base"]["size_bytes"] / found["int4"]["size_bytes"]
    rate = found["int4"]["mcr"]
    assert rate["value"] == pytest.approx(size / 1.007)
    assert rate["interval"] == pytest.approx([size / 1.008, size / 1.006])
    assert found["base"]["mcr"]["value"] == 1
    assert found["report"]["loss_axis"] == "kl_nats"
    assert [found[name]["pareto"] for name in ("base", "int8", "int4")] == [True, True, True]


def test_what_is_not_known_is_null_and_a_dash(variants: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    (variants[2] / "quality.json").unlink()
    found = as_json(capsys, *variants)
    assert found["int4"]["mcr"] is None
    assert found["int4"]["pareto"] is None
    assert set(found["int4"]["made"].values()) == {None}
    row = next(line for line in told(capsys, *variants).splitlines() if "int4" in line)
    assert row.split().count("—") == 4


def test_scores_of_weights_that_have_changed_are_left_out_and_said(
    variants: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with (variants[1] / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\1")
    found = as_json(capsys, *variants)
    assert found["int8"]["scores"] == []
    assert "other weights" in found["int8"]["notes"][0]
    assert as_json(capsys, *variants, "--no-hash")["int8"]["scores"] != []


def test_losses_against_another_reference_are_left_out(
    variants: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    keep(variants[1], scores(1.001, 0.0012), variants[0], base_weights_sha256="0" * 64)
    found = as_json(capsys, *variants)
    assert [score["metric"] for score in found["int8"]["scores"]] == ["perplexity"]
    assert "another reference" in found["int8"]["notes"][0]


def test_devices_follow_the_rules_of_serving(variants: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    refused = as_json(capsys, *variants)["int4"]["refused"]
    assert refused["cpu"] is None
    assert "AVX-512" in refused["cpu-avx2"]
    assert as_json(capsys, *variants)["base"]["refused"]["sm75"] is not None


def test_task_scores_decide_the_rate_as_they_do_in_the_gateway(
    variants: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"metric": "acc", "dataset": "task", "path": "lm-eval", "interval": [0.4, 0.8]}
    keep(variants[0], [task | {"value": 0.8}], variants[0])
    keep(variants[1], [*scores(1.001, 0.0012), task | {"value": 0.6}], variants[0])
    found = as_json(capsys, *variants)
    size = found["base"]["size_bytes"] / found["int8"]["size_bytes"]
    assert found["int8"]["mcr"]["by"] == "acc:task"
    assert found["int8"]["mcr"]["value"] == pytest.approx(size * 0.75)
    assert "acc:task" in told(capsys, *variants)


class Links(HTMLParser):
    """Collects what a browser would fetch, and tags that are never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [value or "" for name, value in attrs if name in {"src", "href", "data", "srcset"}]


def test_page_needs_nothing_else_and_escapes_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, odd = write_checkpoint(tmp_path / "base"), write_int8(tmp_path / "<b>&int8")
    keep(odd, scores(1.001, 0.0012), base)
    told(capsys, base, odd, "--html", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    parser = Links()
    parser.feed(page)
    assert parser.fetched == []
    assert not {"script", "link", "img", "iframe", "b"} & parser.tags
    assert not re.search(r"url\(|@import|https?://", page)
    assert "&lt;b&gt;&amp;int8" in page
    assert {"svg", "table", "style"} <= parser.tags
    assert "prefers-color-scheme: dark" in page


def test_plot_is_left_out_where_there_is_nothing_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, write_checkpoint(tmp_path / "base"), "--html", tmp_path / "report.html")
    assert "<svg" not in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{folder}/none"], "there is no such folder"),
        (["{folder}/base", "--reference", "{folder}"], "none of the folders"),
        (["{folder}/base", "{folder}/other/base"], "same name"),
        (["{folder}/base", "--html", "{folder}/none/report.html"], "could not be written"),
    ],
)
def test_report_that_cannot_be_made_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    write_checkpoint(tmp_path / "base")
    write_checkpoint(tmp_path / "other" / "base")
    assert main(["report", *(argument.format(folder=tmp_path) for argument in arguments)]) == 1
    assert said in capsys.readouterr().err


POINTS = st.lists(st.tuples(st.floats(1, 1e3), st.floats(0, 10)), min_size=1, max_size=12)


@given(POINTS)
def test_front_holds_exactly_what_nothing_beats(places: list[tuple[float, float]]) -> None:
    points = [(str(number), *place) for number, place in enumerate(places)]
    front = pareto_front(points)
    assert front
    for name, size, loss in points:
        beaten = any(s <= size and v <= loss and (s, v) != (size, loss) for _, s, v in points)
        assert (name in front) is not beaten


@given(POINTS)
def test_every_point_lies_inside_the_plot(places: list[tuple[float, float]]) -> None:
    points = [
        Point(name=str(number), x=x, y=y, interval=(y * 0.9, y * 1.1), front=number == 0)
        for number, (x, y) in enumerate(places)
    ]
    drawn = scatter(points, x_title="size", y_title="loss", y_best=0)
    circles = re.findall(r'<circle class="\w+" cx="([\d.]+)" cy="([\d.]+)"', drawn)
    assert len(circles) == len(points)
    assert all(0 <= float(x) <= 480 and 0 <= float(y) <= 330 for x, y in circles)
