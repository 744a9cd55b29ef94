"""Metric families → the body of /metrics, in the bytes that prometheus_client would write, a few times as fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

__all__ = ["TextFormat"]

_number: Callable[[float], str] = floatToGoString
_MAX_KEPT: Final = 100_000
_SUFFIXES: Final = {"counter": "_total", "info": "_info"}
"""What the plain text format has in a family's name, and OpenMetrics has not."""


class TextFormat:
    """Remembers the names and labels of samples from one scrape to the next; they are most of the text.

    All names of families and labels must be plain ASCII, as the catalogue's are.
    """

    def __init__(self) -> None:
        self._series: dict[tuple[str, ...], str] = {}

    def encode(self, families: Iterable[Family], *, openmetrics: bool) -> bytes:
        """The whole body."""
        if len(self._series) > _MAX_KEPT:
            self._series.clear()
        lines: list[str] = []
        for family in families:
            lines += _openmetrics_head(family) if openmetrics else _plain_head(family)
            for sample in family.samples:
                series = self._series.get((sample.name, *sample.labels.values())) or self._new(sample)
                exemplar = _exemplar(sample.exemplar) if openmetrics and sample.exemplar else ""
                lines.append(f"{series} {_number(sample.value)}{exemplar}\n")
        if openmetrics:
            lines.append("# EOF\n")
        return "".join(lines).encode()

    def _new(self, sample: Sample) -> str:
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(sample.labels.items()))
        series = f"{sample.name}{{{labels}}}" if labels else sample.name
        self._series[(sample.name, *sample.labels.values())] = series
        return series


def _plain_head(family: Family) -> list[str]:
    name = family.name + _SUFFIXES.get(family.type, "")
    text = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
    return [f"# HELP {name} {text}\n", f"# TYPE {name} {'gauge' if family.type == 'info' else family.type}\n"]


def _openmetrics_head(family: Family) -> list[str]:
    head = [f"# HELP {family.name} {_escaped(family.documentation)}\n", f"# TYPE {family.name} {family.type}\n"]
    return [*head, f"# UNIT {family.name} {family.unit}\n"] if family.unit else head


def _exemplar(exemplar: Exemplar) -> str:
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(exemplar.labels.items()))
    return f" # {{{labels}}} {_number(exemplar.value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
