"""What a device's times cost: watts while idle, in the parts of decoding steps, prefilling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from server.energy.attribution.attribution import Floats, Window
from server.energy.attribution.history import History
from server.energy.attribution.nnls import robust_fit
from server.units import JOULES_PER_MICROJOULE

__all__ = ["ADAPTER", "FIXED", "GROWTH", "KINDS", "LAGS", "PREFILL", "PROMPT", "Power"]

FIXED: Final = 0
"""Seconds of decoding that a step takes whoever is in it."""
GROWTH: Final = 1
"""Those that tokens and their contexts add."""
ADAPTER: Final = 2
"""Those that the first adapter adds."""
PREFILL: Final = 3
"""Seconds beyond decoding."""
PROMPT: Final = 4
"""Seconds that prompt tokens would take by themselves: some hide behind the reading of weights."""
KINDS: Final = 5

LAGS: Final = (0.0, 0.025, 0.05, 0.075, 0.1)
"""Seconds by which a counter may be behind: those of GPUs move every 20 to 100 ms."""

_WINDOWS: Final = 600
_LEAST_WINDOWS: Final = 8
"""With fewer there is no fit at all; a gate asks for more before the fit is trusted."""
_TOLERATED: Final = 0.05
"""Of the mean power. Idle and decoding windows fit to the millijoule; those with prompts in them never do."""
_MOST_ENGINES: Final = 8
"""At one device, since it was first seen; then the history begins anew."""
_TIES: Final = ((GROWTH, FIXED, 0.01), (ADAPTER, FIXED, 0.1), (PROMPT, PREFILL, 0.2))
"""How strongly two kinds are held to the same watts where windows do not tell them apart: as much as a window would in
which they differed by so much of its time. An adapter is in nearly every window, for a small part of it, and prompts
cost time and operations together, so these need strong ones."""


class Power:
    """E = P0 · T + Σ over engines and kinds of time ΔP · T, no watts negative.

    Over P0, so that what engines use at the same time adds up. With one engine and the kinds of decoding at the same
    watts this is E = P_idle · T_idle + P_dec · T_dec + P_pre · T_pre, with no time cheaper than idle time.

    A counter that moves every 100 ms tells of a time that ended some while before it was read. So the fit is made for
    several such lags, and the one that explains most is believed.
    """

    _terms: Floats | None
    _until: float | None
    _late: Floats

    def __init__(self) -> None:
        self._forget()

    def learn(self, window: Window, times: Mapping[str, tuple[Floats, Floats]], *, sound: bool) -> None:
        """A window, by how long each engine was busy: (KINDS,) seconds, and (LAGS, KINDS) of them late in it.

        One that is not `sound` (somebody ran unseen) is no part of the fit.
        """
        self._make_room(times)
        rows = np.zeros((len(LAGS), self._history.columns))
        late = np.zeros_like(rows)
        for engine, (total, lately) in times.items():
            place = slice(2 + KINDS * self._places[engine], 2 + KINDS * (self._places[engine] + 1))
            rows[:, place], late[:, place] = total - lately, lately
        seconds = window.end - window.start
        if sound and self._until == window.start and seconds > 0.0:
            rows = (rows + self._late) / seconds
            rows[:, 0], rows[:, 1] = window.energy * JOULES_PER_MICROJOULE / seconds, 1.0
            self._history.add(rows.reshape(1, -1))
            if self.windows >= _LEAST_WINDOWS and self._history.due():
                self._fit()
        self._until, self._late = (window.end if sound else None), late

    @property
    def windows(self) -> int:
        """That the fit rests on."""
        return len(self._history)

    @property
    def fitted(self) -> bool:
        return self._terms is not None

    @property
    def idle_watts(self) -> float:
        """P0; 1 until there is a fit, and nothing over it: then time alone decides."""
        return 1.0 if self._terms is None else float(self._terms[0])

    def over_idle(self, engine: str) -> Floats:
        """(KINDS,) watts."""
        place = self._places.get(engine)
        if self._terms is None or place is None or 1 + KINDS * place >= len(self._terms):
            return np.zeros(KINDS)
        return self._terms[1 + KINDS * place :][:KINDS]

    def phases(self, engine: str) -> tuple[float, float] | None:
        """Mean watts over idle while it decodes and while it prefills; None: it has not done both."""
        place = self._places.get(engine)
        if place is None:
            return None
        seconds = self._history.of(0)[:, 2 + KINDS * place :][:, :KINDS].sum(axis=0)
        joules = self.over_idle(engine) * seconds
        decoding, prefilling = float(seconds[:PREFILL].sum()), float(seconds[PREFILL])
        if decoding <= 0.0 or prefilling <= 0.0:
            return None
        return float(joules[:PREFILL].sum()) / decoding, float(joules[PREFILL:].sum()) / prefilling

    def _make_room(self, engines: Iterable[str]) -> None:
        for engine in engines:
            if engine not in self._places and len(self._places) == _MOST_ENGINES:
                self._forget()
            self._places.setdefault(engine, len(self._places))

    def _fit(self) -> None:
        terms = 1 + KINDS * len(self._places)
        ties = np.zeros((len(_TIES) * len(self._places), terms))
        for place in range(len(self._places)):
            for row, (kind, other, tie) in enumerate(_TIES, len(_TIES) * place):
                ties[row, 1 + KINDS * place + other] = -tie
                ties[row, 1 + KINDS * place + kind] = tie
        best = np.inf
        for lag in range(len(LAGS)):
            rows = self._history.of(lag)
            watts, busy = rows[:, 0], rows[:, 1 : 1 + terms]
            solution, _ = robust_fit(busy, watts, ties, tolerated=_TOLERATED)
            errors = watts - busy @ solution
            if float(errors @ errors) < best:
                best, self._terms = float(errors @ errors), solution if solution.any() else None
        spread, mean = float(((watts - watts.mean()) ** 2).sum()), max(1e-9, float(watts.mean()))
        self.r_squared = 1.0 - best / spread if spread > 0.0 else 1.0
        self.relative_error = float(np.sqrt(best / len(watts))) / mean

    def _forget(self) -> None:
        self._places: dict[str, int] = {}
        self._history = _Lagged()
        self._terms = None
        self._until = None
        """The end of the last window; None: nobody knows what ran late in it."""
        self._late = np.zeros((len(LAGS), self._history.columns))
        self.r_squared = 0.0
        self.relative_error = 1.0
        """Root mean square, of the mean power."""


class _Lagged(History):
    """Rows for each lag: watts, 1, and of each engine the kinds of time, as parts of the window."""

    columns: Final = 2 + KINDS * _MOST_ENGINES

    def __init__(self) -> None:
        super().__init__(_WINDOWS, len(LAGS) * self.columns)

    def of(self, lag: int) -> Floats:
        return self.rows[:, lag * self.columns : (lag + 1) * self.columns]
