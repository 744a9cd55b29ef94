"""The page of a run: whole, self-contained, honest about what is not known."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen._histogram import Histogram
from loadgen._report_html import write_html
from loadgen._report_html._chart import Axis, Bar, Chart, Series, forest, svg
from loadgen._report_html._scale import scale_of, shown

_VOID = {"meta", "br", "i"}


class Page(HTMLParser):
    """What a browser would make of it: tags in order, text, addresses that it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [str(value) for name, value in attrs if name in {"src", "href", "xlink:href", "data"}]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closes itself."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data + " "


def dist(p50: float | None) -> dict[str, Any]:
    return {"samples": 200, "mean": p50, "p50": p50, "p90": p50, "p95": p50, "p99": None, "p99_9": None, "max": p50}


def model(name: str, *, itl: float, **verdicts: str) -> dict[str, Any]:
    return {
        "model": name,
        "requests": 1234,
        "ok": 1230,
        "errors": {"http_429": 4},
        "time_to_first_token_s": dist(0.123),
        "inter_token_latency_s": dist(itl),
        "time_per_output_token_s": dist(itl),
        "end_to_end_s": dist(0.5),
        "output_tokens_per_s": 987.6,
        "goodput": {"requests_per_s": 7.25},
        "validity": {
            metric: {"verdict": verdict, "because": "the reader was late"} for metric, verdict in verdicts.items()
        },
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    summary: dict[str, Any] = {
        "schema": 2,
        "started": "2026-11-21T18:00:00+00:00",
        "notes": ["Interrupted: the results are <partial>."],
        "arguments": {"host": "http://127.0.0.1:8080", "rate": 5.0, "concurrency": 8},
        "window": {"start_s": 1.0, "end_s": 10.0, "length_s": 9.0},
        "validity": {"rate": {"verdict": "invalid", "because": "4.1 of 5 requests a second were sent"}},
        "models": [model("demo:bf16", itl=0.02), model("demo:int8", itl=0.0105, time_to_first_token_s="n/a")],
        "energy": {
            "scopes": ["estimated"],
            "uses": [
                {"model": "demo", "variant": "bf16", "adapter": "none", "active_joules": 50.0, "output_tokens": 1000},
                {"model": "demo", "variant": "int8", "adapter": "none", "active_joules": 23.0, "output_tokens": 1000},
            ],
        },
    }
    latency = Histogram.of([0.01 * number for number in range(1, 200)]).to_json()
    names = ("time_to_first_token_s", "inter_token_latency_s", "time_per_output_token_s", "end_to_end_s")
    histograms = {of["model"]: dict.fromkeys(names, latency) for of in summary["models"]}
    column = [None, 0.02, 0.03]
    series = {"output_tokens": [5.0, 9.0, 7.0], "in_flight": [1.0, 8.0, 3.0], "failed": [0, 2, 0]}
    series |= dict.fromkeys(("ttft_p50_s", "ttft_p95_s", "itl_p50_s", "itl_p95_s"), column)
    timeseries = {"bin_s": 1.0, "time_s": [0.0, 1.0, 2.0], "models": dict.fromkeys(histograms, series)}
    levels = [{"level": rate, "time_to_first_token_s": dist(0.1 * rate)} for rate in (1.0, 2.0, 4.0)]
    curve = {"schema": 1, "axis": "rate", "levels": levels, "best": 2.0}
    for name, content in (
        ("summary", summary), ("histograms", {"models": histograms}), ("timeseries", timeseries), ("curve", curve),
    ):  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def test_the_page_is_well_formed_and_fetches_nothing(folder: Path) -> None:
    text = write_html(folder).read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.fetched == []
    for forbidden in ("<script", "url(", "@import", "@font-face", "http-equiv"):
        assert forbidden not in text
    assert "prefers-color-scheme:dark" in text
    assert "width=device-width" in text


def test_the_page_shows_every_figure_and_plot(folder: Path) -> None:
    text = write_html(folder).read_text(encoding="utf-8")
    page = Page(text)
    for said in (
        "open loop, 5 requests/s", "9.0 s measured", "1,234", "123", "20.0", "10.5", "988", "7.25", "0.0500", "0.0230",
        "Time to first token", "Inter-token latency", "End to end", "Joules a token against p95 inter-token latency",
        "Output tokens a second", "Failed requests a second", "TTFT against load", "The most that was sustained: 2",
        "Scope of the joules: estimated",
    ):  # fmt: skip
        assert said in page.text, said
    for drawing in svgs(text):
        assert list(drawing)


def test_what_is_not_valid_is_said_and_not_plotted(folder: Path) -> None:
    text = write_html(folder).read_text(encoding="utf-8")
    page = Page(text)
    assert "INVALID for its rate: 4.1 of 5 requests a second were sent" in page.text
    assert "demo:int8, time_to_first_token_s: n/a, the reader was late" in page.text
    assert "the results are <partial>." in page.text  # escaped, not markup
    first = next(drawing for drawing in svgs(text) if drawing.get("aria-label") == "Time to first token")
    assert [path.findtext("title") for path in first.iter("path")] == ["demo:bf16"]


def test_a_folder_that_holds_little_gives_a_page_that_shows_little(tmp_path: Path) -> None:
    text = write_html(tmp_path).read_text(encoding="utf-8")
    assert Page(text).open == []
    assert "<svg" not in text
    (tmp_path / "summary.json").write_text('{"models": [{"model": "m"}], "validity": null}', encoding="utf-8")
    assert "m" in Page(write_html(tmp_path).read_text(encoding="utf-8")).text


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_html(tmp_path / "none")


def test_a_search_over_levels_has_its_curve_and_no_figures_of_a_run(folder: Path) -> None:
    (folder / "summary.json").unlink()
    page = Page(write_html(folder).read_text(encoding="utf-8"))
    assert "A search for the highest load that holds" in page.text
    assert "What was tried" in page.text
    assert "What clients felt" not in page.text
    assert page.open == []


def test_drawings_stay_inside_their_frame() -> None:
    chart = Chart(
        title="t",
        x=Axis(label="x", logarithmic=True),
        y=Axis(label="y", from_zero=True),
        series=[Series(name="s", points=[(0.0, 1.0), (1.0, 2.0), (1000.0, 5000.0)], colour=0, mark="line and points")],
    )
    (drawing,) = svgs(svg(chart))
    dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in drawing.iter("circle")]
    assert len(dots) == 2  # 0 has no place on a logarithmic axis
    assert all(0 < x < 440 and 0 < y < 270 for x, y in dots)
    assert dots[0][1] > dots[1][1]


def test_a_forest_plot_has_a_line_at_one_and_a_row_a_ratio() -> None:
    bars = [
        Bar(label="J/token", value=0.46, low=0.42, high=0.51, style="better"),
        Bar(label="TTFT p50", value=1.01, low=0.98, high=1.04, style="same"),
    ]
    (drawing,) = svgs(forest("f", bars, margin=0.05))
    one = next(line for line in drawing.iter("line") if line.get("class") == "one")
    better, same = (group for group in drawing.iter("g"))
    assert float(better.find("circle").get("cx")) < float(one.get("x1", ""))
    assert abs(float(same.find("circle").get("cx")) - float(one.get("x1", ""))) < 10


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20),
    st.booleans(),
    st.booleans(),
)
def test_every_value_has_a_place_on_its_axis_and_ticks_are_few(
    values: list[float], logarithmic: bool, from_zero: bool
) -> None:
    scale = scale_of(values, start=50.0, end=400.0, logarithmic=logarithmic, from_zero=from_zero)
    assert all(50 - 1e-6 <= scale.place(value) <= 400 + 1e-6 for value in values)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 9
    assert all(50 - 1e-3 <= scale.place(tick) <= 400 + 1e-3 for tick in ticks)


def test_ticks_are_written_short() -> None:
    assert [shown(value) for value in (0, 0.25, 1500, 20_000, 1e-5)] == ["0", "0.25", "1,500", "20k", "1e-05"]


def svgs(text: str) -> Iterator[Any]:
    for found in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        yield ET.fromstring(found)
