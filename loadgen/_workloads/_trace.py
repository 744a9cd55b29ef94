"""The requests of a trace: its lengths, its times, its shared prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadgen._arrivals import MAX_ARRIVALS, Times
from loadgen._errors import LoadError
from loadgen._workloads._draws import generator
from loadgen._workloads._files import lines_of
from loadgen._workloads._lengths import Scale, Tokens
from loadgen._workloads._options import Options
from loadgen._workloads._trace_formats import MOONCAKE_BLOCK, TRACE_FORMATS, TraceRow
from loadgen._workloads._workload import Ask, Probes
from loadgen._workloads._writer import Writer

if TYPE_CHECKING:
    from loadgen._gateway import Prepared
    from loadgen._plan import Plan

__all__ = ["Trace"]

_STREAM: Final = 0x6A6974
"""Of the jitter."""
_EXTENT: Final = 0.99
_MS_PER_SECOND: Final = 1000


class Trace:
    """Request `index` is row `index` of the file, and after the last row the first comes again.

    Only lengths and times stand in traces: texts are made up, another for each salt. Lengths shrink by one factor, so
    that 99 % of them fit into the context; what is longer is cut. `rows=` takes the beginning of the file.
    """

    def __init__(self, plan: Plan, prepared: Prepared) -> None:
        if not plan.workload_file:
            raise LoadError("--workload trace needs a file: name it with --workload-file.")
        options = Options.parse(plan.workload_options, {"rows": MAX_ARRIVALS})
        self._write = Writer(plan, prepared, options)
        self._file = plan.workload_file
        self._format, rows = _read(plan.workload_file, options.whole("rows"))
        self._rows = rows
        self._times = _spread(np.array([row.at_s for row in rows]), plan.seed)
        self._scale = _scale(rows, self._write.room)

    @property
    def probes(self) -> Probes:
        return self._write.probes

    @property
    def times_s(self) -> Times:
        return self._times

    def describe(self) -> dict[str, Any]:
        return {
            "file": self._file,
            "format": self._format,
            "rows": len(self._rows),
            "length_s": round(float(self._times[-1]), 3),
            "scale": round(self._scale.factor, 4),
        }

    def ask(self, index: int) -> Ask:
        row = self._rows[index % len(self._rows)]
        prompt, output = self._scale.fit(row.prompt_tokens, row.output_tokens)
        model = self._write.model(index)
        words = self._write.words(model, prompt)
        block = self._write.words_within(model, MOONCAKE_BLOCK * self._scale.factor)
        whole = min(len(row.blocks), words // block)
        shared = [("block", id_, block) for id_ in row.blocks[:whole]]
        text = self._write.joined(*shared, ("", index, words - whole * block))
        return self._write.ask(model, text, prompt_tokens=prompt, output_tokens=output)


def _read(file: str, most: int) -> tuple[str, Sequence[TraceRow]]:
    lines = lines_of(file, most=MAX_ARRIVALS + 1)
    first = next(lines)
    name = next((name for name, kind in TRACE_FORMATS.items() if kind.known_by(first.text)), None)
    if name is None:
        raise first.error(f"begins no trace of a known format ({', '.join(TRACE_FORMATS)})")
    rows: list[TraceRow] = []
    for line, row in islice(TRACE_FORMATS[name].rows(chain([first], lines)), most):
        if rows and row.at_s < rows[-1].at_s:
            raise line.error("is earlier than the line before it: times must not run backwards; sort the file")
        rows.append(row)
    if not rows:
        raise LoadError(f"{file} has a header and no request; --workload-file needs at least one.")
    return name, rows


def _scale(rows: Sequence[TraceRow], room: int | None) -> Scale:
    lengths = np.array([(row.prompt_tokens, row.output_tokens) for row in rows], dtype=np.float64)
    return Scale.of(Tokens(*map(float, np.quantile(lengths, _EXTENT, axis=0))), room)


def _spread(at_s: Times, seed: int) -> Times:
    """From 0 on. Where a trace counts whole seconds, say, requests of one second are spread over it, by the seed."""
    milliseconds = np.rint(at_s * _MS_PER_SECOND).astype(np.int64)
    gaps = np.diff(milliseconds)
    grid_ms = int(np.gcd.reduce(gaps)) if len(gaps) else 0
    spread = at_s
    if grid_ms > 1 and np.any(gaps == 0):
        jitter = generator(seed, _STREAM, 0).random(len(at_s)) * grid_ms / _MS_PER_SECOND
        spread = np.sort(milliseconds / _MS_PER_SECOND + jitter)
    times: Times = spread - spread[0]
    return times
