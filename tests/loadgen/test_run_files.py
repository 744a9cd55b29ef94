"""What a run leaves behind: every file whole, and all of them of the same run."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from loadgen._files import HISTOGRAMS, REQUESTS, SUMMARY, SUMMARY_CSV, TIMESERIES, read_records, write_run
from loadgen._histogram import Histogram
from loadgen._record import Record
from loadgen._slo import Slo
from loadgen._summary import Window, figures_of, total_of
from loadgen._timeseries import timeseries_of

WINDOW = Window(start_s=0.0, end_s=10.0)


def chat(index: int, sent_s: float, **more: Any) -> Record:
    """Two tokens a chunk, three chunks 0.25 s apart, the first after 0.5 s."""
    token_s = tuple(sent_s + 0.5 + 0.25 * number for number in range(3))
    values: dict[str, Any] = {
        "index": index,
        "request_id": f"load-s-{index}",
        "model": "demo:int8",
        "served_by": "demo:int8",
        "warm_up": False,
        "scheduled_s": sent_s,
        "sent_s": sent_s,
        "token_s": token_s,
        "chunk_tokens": (2, 2, 2),
        "ended_s": token_s[-1],
        "prompt_tokens": 10,
        "cached_tokens": 3,
        "output_tokens": 6,
        "finish_reason": "length",
        "error": None,
        "message": None,
    }
    return Record(**{**values, **more})


RECORDS = [
    chat(1, 1.0, model="demo:bf16"),
    chat(0, 0.0),
    chat(2, 2.0, error="truncated", message="cut", token_s=(2.5,), chunk_tokens=None, output_tokens=None, ended_s=2.6),
]


def summary() -> dict[str, Any]:
    slo = Slo.parse("ttft=1s")
    return {
        "models": [asdict(of) for of in figures_of(RECORDS, WINDOW, slo=slo)],
        "energy": {"models": {"demo:int8": {"joules_per_output_token": 0.25}}},
        "totals": asdict(total_of(RECORDS, WINDOW, slo=slo)),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_run(tmp_path / "run", summary(), RECORDS, slo=Slo.parse("ttft=1s"))
    return tmp_path / "run"


def test_all_files_are_there_and_nothing_unfinished(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {SUMMARY, SUMMARY_CSV, REQUESTS, TIMESERIES, HISTOGRAMS}


def test_requests_stand_in_their_order_and_are_read_back_as_they_were(folder: Path) -> None:
    assert read_records(folder) == sorted(RECORDS, key=lambda record: record.index)


def test_line_of_a_request_has_its_own_figures(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / REQUESTS).read_text(encoding="utf-8").splitlines()]
    assert [line["slo_met"] for line in lines] == [True, True, False]
    assert (lines[0]["time_to_first_token_s"], lines[0]["end_to_end_s"]) == (0.5, 1.0)


def test_csv_has_a_row_a_model_and_one_for_all(folder: Path) -> None:
    with (folder / SUMMARY_CSV).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["demo:int8", "demo:bf16", "all"]
    assert rows[0]["time_to_first_token_s.mean"] == "0.5"
    assert rows[0]["time_to_first_token_s.p95"] == ""
    assert rows[0]["goodput.attainment"] == "0.5"
    assert [row["energy.joules_per_output_token"] for row in rows] == ["0.25", "", ""]
    assert json.loads(rows[0]["errors"]) == {"truncated": 1}


def test_histograms_are_of_every_model_and_of_all(folder: Path) -> None:
    models = json.loads((folder / HISTOGRAMS).read_text(encoding="utf-8"))["models"]
    assert set(models) == {"all", "demo:int8", "demo:bf16"}
    gaps = Histogram.from_json(models["all"]["inter_chunk_latency_s"])
    assert gaps.count == 4
    assert gaps.quantile(0.5) == pytest.approx(0.25, rel=0.01)


def test_files_of_an_earlier_run_stay_whole_if_the_new_ones_cannot_be_written(folder: Path) -> None:
    before = (folder / SUMMARY).read_bytes()
    with pytest.raises(TypeError):
        write_run(folder, {**summary(), "not JSON": object()}, RECORDS)
    assert (folder / SUMMARY).read_bytes() == before


def test_seconds_show_what_happened_in_each() -> None:
    found = timeseries_of(RECORDS)
    assert found["time_s"] == [0.0, 1.0, 2.0]
    every = found["all"]
    assert {len(column) for column in every.values()} == {3}
    assert every["sent"] == [1, 1, 1]
    # An answer that ends on the stroke of a second belongs to the next one, or to the last there is.
    assert (every["ok"], every["failed"]) == ([0, 1, 1], [0, 0, 1])
    assert every["output_tokens"] == [4.0, 6.0, 2.0]
    assert every["in_flight"] == [1.0, 1.0, pytest.approx(0.6)]
    assert every["ttft_samples"] == [1, 1, 1]
    assert every["ttft_p95_s"] == [pytest.approx(0.5, rel=0.01)] * 3
    assert found["models"]["demo:bf16"]["sent"] == [0, 1, 0]
    assert found["models"]["demo:bf16"]["itl_p50_s"][0] is None


def test_run_of_no_request_has_one_empty_second() -> None:
    found = timeseries_of([])
    assert (found["time_s"], found["all"]["sent"], found["models"]) == ([0.0], [0], {})
