"""The formats of public traces: one reader each, and this table."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar

import msgspec

from loadgen._workloads._files import FileLine

__all__ = ["MOONCAKE_BLOCK", "TRACE_FORMATS", "TraceFormat", "TraceRow"]

MOONCAKE_BLOCK: Final = 512
"""Tokens of a block that `hash_ids` names. Source: Mooncake, FAST 2025, "trace release"."""
_SECONDS_PER_MS: Final = 1e-3


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of a trace."""

    at_s: float
    """On the trace's own clock."""
    prompt_tokens: int
    output_tokens: int
    blocks: Sequence[int] = ()
    """Ids of the prompt's blocks, from its beginning; equal ids are equal text."""


Reader = Callable[[Iterator[FileLine]], Iterator[tuple[FileLine, TraceRow]]]


@dataclass(frozen=True, slots=True)
class TraceFormat:
    """How to know a format by its first line, and to read its rows."""

    known_by: Callable[[str], bool]
    rows: Reader
    """Takes all lines, the first included; gives each request with its line."""


_Value = TypeVar("_Value", int, float)


def _csv_rows(time: Callable[[str], float], columns: tuple[str, str, str]) -> Reader:
    """Columns: of the time, the prompt's tokens, the answer's."""

    def rows(lines: Iterator[FileLine]) -> Iterator[tuple[FileLine, TraceRow]]:
        header = next(lines)
        names = [name.strip() for name in _cells(header)]
        places = [names.index(column) for column in columns]
        for line in lines:
            cells = _cells(line)
            if len(cells) != len(names):
                raise line.error(f"has {len(cells)} columns where the header has {len(names)}")
            at, prompt, output = (cells[place].strip() for place in places)
            yield (
                line,
                TraceRow(
                    _parsed(line, columns[0], at, time),
                    _parsed(line, columns[1], prompt, _tokens),
                    _parsed(line, columns[2], output, _tokens),
                ),
            )

    return rows


def _cells(line: FileLine) -> list[str]:
    return next(csv.reader([line.text]))


def _parsed(line: FileLine, column: str, text: str, parse: Callable[[str], _Value]) -> _Value:
    try:
        return parse(text)
    except ValueError:
        raise line.error(f"has {text[:40]!r} as its {column}") from None


def _tokens(text: str) -> int:
    tokens = float(text)
    if not 0 <= tokens < 1e9 or tokens != int(tokens):
        raise ValueError
    return int(tokens)


def _clock_time(text: str) -> float:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _seconds(text: str) -> float:
    at = float(text)
    if not abs(at) < 1e15:
        raise ValueError
    return at


_Natural = Annotated[int, msgspec.Meta(ge=0)]


class _MooncakeRow(msgspec.Struct):
    timestamp: float
    input_length: _Natural
    output_length: _Natural
    hash_ids: list[int] = []


def _mooncake(lines: Iterator[FileLine]) -> Iterator[tuple[FileLine, TraceRow]]:
    for line in lines:
        try:
            row = msgspec.json.decode(line.text, type=_MooncakeRow)
        except msgspec.DecodeError as exc:
            raise line.error(f"is no request of a Mooncake trace ({exc})") from exc
        at_s = row.timestamp * _SECONDS_PER_MS
        yield line, TraceRow(at_s, row.input_length, row.output_length, row.hash_ids)


def _has(*names: str) -> Callable[[str], bool]:
    return lambda first: set(names) <= {cell.strip() for cell in first.split(",")}


_AZURE: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_BURSTGPT: Final = ("Timestamp", "Request tokens", "Response tokens")

TRACE_FORMATS: Final[Mapping[str, TraceFormat]] = {
    "azure": TraceFormat(_has(*_AZURE), _csv_rows(_clock_time, _AZURE)),
    "burstgpt": TraceFormat(_has(*_BURSTGPT), _csv_rows(_seconds, _BURSTGPT)),
    "mooncake": TraceFormat(lambda first: first.startswith("{"), _mooncake),
}
"""Told apart by the first line: the header of a CSV, or a JSON object."""
