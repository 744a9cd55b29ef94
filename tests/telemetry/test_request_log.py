"""One line a request: complete, bounded, discreet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from server.telemetry import RequestLog
from server.wire import RequestRecord
from tests.fakes.batches import record
from tests.fakes.clock import FakeClock


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_request_is_one_line_with_wall_time_and_durations(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "requests.jsonl", FakeClock(monotonic=1000.5, wall=1_800_000_000.0))
    log.write([record(received_at=999.5, first_token_at=999.75, ended_at=1000.5), record(id="second")])
    first, second = lines(tmp_path / "requests.jsonl")
    assert first["time"] == "2027-01-15T08:00:00.000+00:00"
    assert (first["duration_s"], first["time_to_first_token_s"], first["outcome"]) == (1.0, 0.25, "ok")
    assert second["id"] == "second"


def test_line_has_no_field_that_could_hold_a_prompt_or_a_key(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "log", FakeClock())
    log.write([record()])
    (line,) = lines(tmp_path / "log")
    assert line.keys() - {"time", "time_to_first_token_s", "duration_s"} <= set(RequestRecord.__struct_fields__)
    assert not {"prompt", "messages", "body", "key", "api_key", "authorization"} & line.keys()


def test_unknown_is_null_and_hostile_text_stays_one_line(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "log", FakeClock())
    log.write([record(id="a\nb" * 1000, requested_model='"\n' * 1000, first_token_at=None, output_tokens=None)])
    (line,) = lines(tmp_path / "log")
    assert line["time_to_first_token_s"] is None
    assert line["output_tokens"] is None
    assert len(line["id"]) == len(line["requested_model"]) == 200


def test_files_rotate_and_their_number_and_size_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = RequestLog(path, FakeClock(), max_bytes=2000, backups=3)
    for number in range(40):
        log.write([record(id=f"r{number}")])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["log", "log.1", "log.2", "log.3"]
    assert all(entry.stat().st_size <= 2000 for entry in tmp_path.iterdir())
    kept = [line["id"] for name in ("log.3", "log.2", "log.1", "log") for line in lines(tmp_path / name)]
    assert kept == [f"r{number}" for number in range(40 - len(kept), 40)]


def test_log_that_cannot_be_written_counts_what_it_lost_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "log"
    log = RequestLog(path, FakeClock())
    log.write([record(), record()])
    assert log.lines_lost == 2
    path.parent.mkdir()
    log.write([record()])
    assert len(lines(path)) == 1
