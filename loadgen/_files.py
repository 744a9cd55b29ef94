"""The files of a run; each is whole or is not there.

summary.json      provenance, validity and the figures of every model (schema 2, `_harvest.py`)
summary.csv       one row a model: the same figures, flat
requests.jsonl    one request a line in the order of the requests, with its own figures
timeseries.json   the run second by second
histograms.json   the whole distribution of each latency
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from loadgen._record import Record
from loadgen._slo import Slo
from loadgen._summary import ALL, histograms_of
from loadgen._timeseries import timeseries_of
from loadgen._whole_file import write_whole

__all__ = ["HISTOGRAMS", "REQUESTS", "SUMMARY", "SUMMARY_CSV", "TIMESERIES", "read_records", "write_run"]

SUMMARY: Final = "summary.json"
SUMMARY_CSV: Final = "summary.csv"
REQUESTS: Final = "requests.jsonl"
TIMESERIES: Final = "timeseries.json"
HISTOGRAMS: Final = "histograms.json"

_SCHEMA: Final = 2
_JOULES: Final = ("joules", "joules_by_phase")
_PARTS: Final = frozenset({"goodput", "energy"})
"""Of a model's entry: each part becomes a column."""
_NOT_FLAT: Final = frozenset({"validity"})
"""Of a model's entry; its verdicts stand in columns of their own."""


def write_run(
    folder: Path,
    summary: Mapping[str, Any],
    records: Sequence[Record],
    *,
    slo: Slo | None = None,
    joules: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """All files; `summary.json` comes last: where it is, the others are. `joules`: by request id, what it took."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(records, key=lambda record: record.index)
    write_whole(folder / REQUESTS, (_line(record, slo, (joules or {}).get(record.request_id)) for record in ordered))
    write_whole(folder / TIMESERIES, [json.dumps(timeseries_of(ordered)) + "\n"])
    write_whole(folder / HISTOGRAMS, [json.dumps(_histograms(ordered)) + "\n"])
    write_whole(folder / SUMMARY_CSV, [_csv([*map(_with_energy(summary), summary["models"]), summary["totals"]])])
    write_whole(folder / SUMMARY, [json.dumps(summary, indent=2) + "\n"])


def read_records(folder: Path) -> list[Record]:
    """What `write_run` wrote of the requests."""
    with (folder / REQUESTS).open(encoding="utf-8") as lines:
        return [Record.from_json(json.loads(line)) for line in lines]


def _line(record: Record, slo: Slo | None, joules: Mapping[str, Any] | None) -> str:
    figures = {
        "time_to_first_token_s": record.time_to_first_token_s,
        "time_per_output_token_s": record.time_per_output_token_s,
        "end_to_end_s": record.end_to_end_s,
        "slo_met": slo.met(record) if slo else None,
    }
    # Without known joules the names are there and null: every line has the same.
    return json.dumps({**record.to_json(), **figures, **(joules or dict.fromkeys(_JOULES))}) + "\n"


def _histograms(records: Sequence[Record]) -> dict[str, Any]:
    models = dict.fromkeys(record.model for record in records)
    chosen = {ALL: records, **{model: [one for one in records if one.model == model] for model in models}}
    return {
        "schema": _SCHEMA,
        "models": {
            model: {name: found.to_json() for name, found in histograms_of(mine).items()}
            for model, mine in chosen.items()
        },
    }


def _with_energy(summary: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    models = (summary.get("energy") or {}).get("models") or {}
    return lambda model: {**model, "energy": models.get(model["model"]) or {}}


def _csv(models: Sequence[Mapping[str, Any]]) -> str:
    rows = [dict(_flat(model)) for model in models]
    columns = dict.fromkeys(column for row in rows for column in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(model: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """`time_to_first_token_s.p50`, …; unknown is an empty field. Kinds of errors and the like stand as JSON in one."""
    for name, value in model.items():
        if name in _NOT_FLAT:
            continue
        if not isinstance(value, Mapping):
            yield name, value
        elif name.endswith("_s") or name in _PARTS:
            yield from ((f"{name}.{part}", inner) for part, inner in value.items())
        else:
            yield name, json.dumps(value)
    yield from ((f"{name}.verdict", verdict["verdict"]) for name, verdict in model["validity"].items())
