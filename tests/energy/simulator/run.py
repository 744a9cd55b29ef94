"""A simulated engine with known truth: what a gateway and a meter would have seen of it.

Public names of `tests.energy.simulator`:

    physics.DEVELOPMENT, physics.TESTS   sets of `Physics`, each with its two tenants
    engine.arrivals, engine.Asked        what is sent
    run.simulate(physics, rate=…, seconds=…, seed=…) → Run
    run.Run.of(physics, asked)           the same for requests of one's own
    Run.requests                         list of `engine.Done`: `asked`, `token_times`, `done_at`, the true joules
    Run.windows(seconds=1.0)             `Seen` values: a `Window`, and which of `requests` its requests are
    Run.write_files(folder)              `requests.jsonl`, `meter.jsonl` as `wattgate energy replay` reads them, and
                                         `truth.jsonl`: {"id", "joules", "prefill_joules", "decode_joules"} a request,
                                         last {"meter_joules", "idle_joules"}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from server.energy.attribution import EngineUse, RequestUses, TokenEvents, Window
from server.units import Microjoules, Seconds
from tests.energy.simulator.engine import Asked, Done, Steps, arrivals, serve
from tests.energy.simulator.physics import Physics

__all__ = ["ENGINE", "EPOCH", "Run", "Seen", "simulate"]

ENGINE: Final = "demo-bf16"
EPOCH: Final = 10_000.0
"""Where CLOCK_MONOTONIC stands when the simulation begins."""
_COUNTER_PERIOD_S: Final = 0.1
_PROMPT_TOKEN_MILLITOKENS: Final = 100
_LATENESS_S: Final = 3e-3
"""Of a reading; exponential."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A window as the accountant would close it."""

    window: Window
    numbers: Integers
    """Which of `Run.requests` the window's requests are."""


class Run:
    """What happened, and what was seen of it."""

    def __init__(self, physics: Physics, requests: Sequence[Done], steps: Steps, seed: int = 0) -> None:
        self.physics = physics
        self.requests = requests
        self.steps = steps
        self._start, self._end = np.array(steps.start), np.array(steps.end)
        self._counted = np.array([steps.computed, steps.written])
        self._energy = np.concatenate([[0.0], np.cumsum(steps.joules)])
        self._times = np.concatenate([[0.0], np.cumsum(self._end - self._start)])
        self._random = np.random.default_rng(seed)
        self.seconds = math.ceil(max(self._end[-1], *(one.done_at for one in requests))) + 2
        self._readings = self._read()

    @classmethod
    def of(cls, physics: Physics, asked: Sequence[Asked], seed: int = 0) -> Run:
        return cls(physics, *serve(physics, asked, seed=seed), seed=seed)

    @property
    def idle_joules(self) -> float:
        """The truth, between the first and the last reading."""
        return (self.seconds - float(self._times[-1])) * self.physics.idle_watts

    @property
    def meter_joules(self) -> float:
        return float(self._readings[1][-1] - self._readings[1][0])

    def windows(self, seconds: float = 1.0, hold_s: float = 10.0) -> Iterator[Seen]:
        """One between any two readings; each knows of its requests what was known `hold_s` after its end."""
        at, joules = self._readings
        every = max(1, round(seconds))
        columns = self._columns()
        for first, last in zip(range(0, len(at) - every, every), range(every, len(at), every), strict=False):
            energy = round((joules[last] - joules[first]) * 1e6)
            yield self._window(columns, at[first], at[last], energy, hold_s)

    def write_files(self, folder: Path) -> None:
        """What `wattgate energy replay` reads, and the truth."""
        at, joules = self._readings
        meter = [
            {"t_s": EPOCH + time, "joules_total": total}
            for time, total in zip(at.tolist(), joules.tolist(), strict=True)
        ]
        truth: list[dict[str, Any]] = [
            {
                "id": f"r{number}",
                "joules": one.joules,
                "prefill_joules": one.prefill_joules,
                "decode_joules": one.decode_joules,
            }
            for number, one in enumerate(self.requests)
        ]
        truth.append({"meter_joules": self.meter_joules, "idle_joules": self.idle_joules})
        requests = [_line(number, one) for number, one in enumerate(self.requests)]
        for name, rows in (("requests", requests), ("meter", meter), ("truth", truth)):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def _read(self) -> tuple[Floats, Floats]:
        """Times and readings of a millijoule counter that moves every 100 ms, asked about every second."""
        late = self._random.exponential(_LATENESS_S, self.seconds + 1)
        at = np.arange(self.seconds + 1) + np.concatenate([[0.0], late[1:-1], [0.0]])
        phase = self._random.uniform(0.0, _COUNTER_PERIOD_S)
        moved = np.floor((at - phase) / _COUNTER_PERIOD_S) * _COUNTER_PERIOD_S + phase
        return at, np.floor(self._joules_until(np.maximum(0.0, moved)) * 1e3) * 1e-3

    def _joules_until(self, at: Floats) -> Floats:
        busy = np.interp(at, *_steps_of(self._start, self._end, self._times))
        used = np.interp(at, *_steps_of(self._start, self._end, self._energy))
        return np.asarray(used + (at - busy) * self.physics.idle_watts, np.float64)

    def _columns(self) -> dict[str, Any]:
        requests = self.requests
        counts = [len(one.token_times) if one.asked.streamed else 0 for one in requests]
        times = np.array([time for one in requests if one.asked.streamed for time in one.token_times])
        order = np.argsort(times, kind="stable")
        return {
            "sent_at": np.array([one.asked.sent_at for one in requests]),
            "first": np.array([one.token_times[0] for one in requests]),
            "done_at": np.array([one.done_at for one in requests]),
            "times": times[order],
            "owner": np.repeat(np.arange(len(requests)), counts)[order],
        }

    def _window(self, columns: dict[str, Any], start: float, end: float, energy: int, hold_s: float) -> Seen:
        sent_at, done_at, first = columns["sent_at"], columns["done_at"], columns["first"]
        numbers = ((sent_at < end) & (done_at >= start)).nonzero()[0]
        known = done_at[numbers] <= end + hold_s
        low, high = np.searchsorted(columns["times"], [start, end])
        owner = columns["owner"][low:high]
        events = np.bincount(owner, minlength=len(self.requests))[numbers]
        asked = [self.requests[number].asked for number in numbers]
        streamed = np.array([one.streamed for one in asked], np.bool_)
        prompt = np.array([one.prompt_tokens for one in asked], np.int64)
        computed = prompt - np.array([one.cached_tokens for one in asked], np.int64)
        output = np.array([one.output_tokens for one in asked], np.int64)
        first_known = np.where(streamed & (first[numbers] <= end + hold_s), first[numbers], np.nan)
        before = np.array([np.searchsorted(self.requests[number].token_times, start) for number in numbers], np.float64)
        by_time = _part(sent_at[numbers], done_at[numbers], start, end)
        outputs = np.where(streamed, events, output * by_time) * 1000
        prompts = computed * _PROMPT_TOKEN_MILLITOKENS
        prompts = prompts * np.where(streamed, _part(sent_at[numbers], first[numbers], start, end), by_time)
        uses = RequestUses(
            engine=np.zeros(len(numbers), np.int64),
            millitokens=np.rint(outputs).astype(np.int64) + np.rint(prompts).astype(np.int64),
            overlap_us=np.rint((np.minimum(done_at[numbers], end) - np.maximum(sent_at[numbers], start)) * 1e6).astype(
                np.int64
            ),
            prompt_millitokens=np.rint(prompts).astype(np.int64),
            adapter=np.array([one.adapter for one in asked], np.bool_),
            prompt_tokens=np.where(known, prompt, -1),
            computed_prompt_tokens=np.where(known, computed, -1),
            output_tokens=np.where(known, output, -1),
            tokens_before=np.where(streamed, before, output * _part(sent_at[numbers], done_at[numbers], 0.0, start)),
            sent_at=EPOCH + sent_at[numbers],
            first_token_at=EPOCH + first_known,
            done_at=EPOCH + np.where(known, done_at[numbers], np.nan),
            streamed=streamed,
        )
        first_step, last_step = np.searchsorted(self._end, [start, end], "right")
        counted = self._counted[:, first_step:last_step].sum(axis=1).tolist()
        window = Window(
            device="gpu:0",
            scope="gpu",
            start=Seconds(EPOCH + start),
            end=Seconds(EPOCH + end),
            energy=Microjoules(energy),
            engines=[
                EngineUse(
                    engine=ENGINE,
                    up=True,
                    busy=bool(len(numbers)),
                    counted_prompt_tokens=counted[0],
                    counted_output_tokens=counted[1],
                )
            ],
            requests=uses,
            tokens=TokenEvents(
                times=EPOCH + columns["times"][low:high],
                request=np.searchsorted(numbers, owner),
                tokens=np.ones(high - low),
            ),
        )
        return Seen(window, numbers)


def simulate(physics: Physics, *, rate: float, seconds: float, seed: int = 0) -> Run:
    """Poisson arrivals for `seconds`, served to their end."""
    return Run.of(physics, arrivals(physics, rate=rate, seconds=seconds, seed=seed), seed=seed)


def _steps_of(start: Floats, end: Floats, cumulated: Floats) -> tuple[Floats, Floats]:
    """Points of a function that rises within steps only."""
    points = np.column_stack([start, end]).ravel()
    return points, np.column_stack([cumulated[:-1], cumulated[1:]]).ravel()


def _part(first: Floats, last: Floats, start: float, end: float) -> Floats:
    """The part of first … last that lies in the window."""
    inside = np.maximum(0.0, np.minimum(last, end) - np.maximum(first, start))
    return np.asarray(np.where(last > first, inside / np.where(last > first, last - first, 1.0), 0.0))


def _line(number: int, one: Done) -> dict[str, Any]:
    asked = one.asked
    times = [EPOCH + time for time in one.token_times] if asked.streamed else []
    return {
        "id": f"r{number}",
        "tenant": asked.tenant,
        "adapter": "lora" if asked.adapter else None,
        "engine": ENGINE,
        "prompt_tokens": asked.prompt_tokens,
        "cached_tokens": asked.cached_tokens,
        "output_tokens": asked.output_tokens,
        "start_s": EPOCH + asked.sent_at,
        "first_token_s": times[0] if times else None,
        "token_times_s": times,
        "end_s": EPOCH + one.done_at,
        "outcome": "ok",
    }
