"""The side-by-side as tables: medians of the rounds, ratios within them, what is invalid."""

# ruff: noqa: RUF001  # a table has dashes and times signs

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.benchmarks.document import markdown_table, now
from tests.benchmarks.rounds import Figure, Rounds, added, figure, ratio

__all__ = ["REFERENCE", "as_figures", "as_markdown", "round_line"]

REFERENCE: Final = "vllm-router"

_CPU: Final = (("cpu_us_per_request", "CPU µs a request"), ("cpu_us_per_chunk", "CPU µs a chunk"))
_PARTS: Final = ("worker", "control", "launcher")
_ADDED: Final = (
    ("latency_p50_us", "added p50 µs"),
    ("latency_p99_us", "added p99 µs"),
    ("ttft_p50_us", "added first chunk p50 µs"),
    ("ttft_p99_us", "added first chunk p99 µs"),
)


def as_markdown(run: Mapping[str, Any]) -> str:
    """What docs/benchmarks.md says of a run."""
    rounds: Rounds = run["rounds"]
    names = _names(rounds)
    machine, left_out = run["machine"], run["left_out"]
    described = (
        f"{now()}, commit {machine['commit']}, {machine['processor']}, {machine['cores']} cores, "
        f"Linux {machine['kernel']}, Python {machine['python']}, nginx {machine['nginx']}; "
        f"{len(rounds)} rounds of {run['seconds']:g} s a measure. Median; in brackets the quartiles of the rounds; "
        f"× is the ratio to {REFERENCE} within each round. INVALID: the rounds disagree too much to say anything."
    )
    ratios = (f"× {REFERENCE}, {what}" for what in ("request", "chunk"))
    lines = [
        described,
        markdown_table(
            ["", *(title for _, title in _CPU), *ratios, "requests/s", "RSS MB"],
            [_cpu_row(rounds, name) for name in names],
        ),
        "At one connection, over the engine asked directly:",
        markdown_table(["", *(title for _, title in _ADDED)], [_added_row(rounds, name) for name in names[1:]]),
    ]
    lines += [f"Left out: {name} ({why})." for name, why in left_out.items()]
    return "\n\n".join(lines)


def _names(rounds: Rounds) -> list[str]:
    return sorted({name for one in rounds for name in one}, key=lambda name: (name != "direct", name))


def _cpu_row(rounds: Rounds, name: str) -> list[str]:
    return [
        name,
        *(_with_parts(rounds, name, measure) for measure, _ in _CPU),
        *(_ratios(rounds, name, measure) for measure, _ in _CPU),
        _shown(_of(rounds, name, "requests_per_s"), "{:,.0f}"),
        _shown(_of(rounds, name, "rss_mb"), "{:.0f}"),
    ]


def _with_parts(rounds: Rounds, name: str, measure: str) -> str:
    """The sum; of a gateway in parts, then its parts."""
    parts = [
        f"{part} {found.median:.1f}"
        for part in _PARTS
        if (found := _of(rounds, name, measure.replace("cpu", part, 1))) is not None and found.median >= 0.05
    ]
    return _shown(_of(rounds, name, measure), "{:.1f}") + (f" ({', '.join(parts)})" if parts else "")


def _ratios(rounds: Rounds, name: str, measure: str) -> str:
    """All processes over the reference; of a gateway in parts, then its worker alone."""
    whole = ratio(rounds, measure, name, REFERENCE)
    worker = ratio(rounds, measure.replace("cpu", "worker", 1), name, REFERENCE, of_base=measure)
    return _shown(whole, "{:.2f}") + (f"; worker {_shown(worker, '{:.2f}')}" if worker is not None else "")


def _added_row(rounds: Rounds, name: str) -> list[str]:
    return [name, *(_shown(added(rounds, measure, name, "direct"), "{:.0f}") for measure, _ in _ADDED)]


def _of(rounds: Rounds, name: str, measure: str) -> Figure | None:
    values = [one[name][measure] for one in rounds if measure in one.get(name, {})]
    return figure(values) if values else None


def _shown(found: Figure | None, form: str) -> str:
    if found is None:
        return "–"
    text = f"{form.format(found.median)} [{form.format(found.low)}–{form.format(found.high)}]"
    return text if found.valid else f"{text} INVALID"


def as_figures(rounds: Rounds) -> dict[str, dict[str, dict[str, Any]]]:
    """Every measure of every target over all rounds, for JSON."""
    return {
        name: {measure: _as_json(found) for measure in _measures(rounds, name) if (found := _of(rounds, name, measure))}
        for name in _names(rounds)
    }


def _measures(rounds: Rounds, name: str) -> Sequence[str]:
    return list(dict.fromkeys(measure for one in rounds for measure in one.get(name, {})))


def _as_json(found: Figure) -> dict[str, Any]:
    figures = {"median": found.median, "low": found.low, "high": found.high, "rounds": found.rounds}
    return {**{key: round(value, 3) for key, value in figures.items()}, "valid": found.valid}


def round_line(number: int, name: str, sample: Mapping[str, float]) -> str:
    """One target's round, for the terminal."""
    shown = (f"{measure} {sample[measure]:.1f}" for measure in sample if "launcher" not in measure)
    return f"{number:2d} {name:14s} " + "  ".join(shown)
