"""Twins stay twins where a window ends in the middle of what they share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from server.energy.attribution import Attribution, EngineUse, RequestUses, TokenEvents, Window
from server.energy.attribution.attribution import Floats
from server.energy.attribution.phase_time import PhaseTime
from server.units import Microjoules, Seconds

STREAMS = 8
STEP_S = 0.05
APART_S = 0.001
"""Between two arrivals of an iteration."""
PROMPT = 48


def windows(sent: Floats, times: Sequence[Floats], borders: Sequence[float], prompts: Sequence[int]) -> list[Window]:
    """An engine alone on a device that always draws the same; `times` are those of each stream's tokens."""
    return [_window(sent, times, start, end, prompts) for start, end in pairwise(borders)]


def _window(sent: Floats, times: Sequence[Floats], start: float, end: float, prompts: Sequence[int]) -> Window:
    done = np.array([one[-1] for one in times])
    there = np.array([one for one in range(len(times)) if sent[one] < end and done[one] >= start], np.int64)
    before = np.array([np.count_nonzero(times[one] < start) for one in there], np.float64)
    within = [times[one][(times[one] >= start) & (times[one] < end)] for one in there]
    events = sorted((at, place) for place, some in enumerate(within) for at in some)
    counts = np.array([len(some) for some in within])
    requests = RequestUses(
        engine=np.zeros(len(there), np.int64),
        millitokens=1000 * counts,
        overlap_us=np.full(len(there), 1_000_000),
        prompt_millitokens=np.zeros(len(there), np.int64),
        adapter=np.zeros(len(there), np.bool_),
        prompt_tokens=np.array(prompts)[there],
        computed_prompt_tokens=np.array(prompts)[there],
        output_tokens=np.array([len(times[one]) for one in there]),
        tokens_before=before,
        sent_at=sent[there],
        first_token_at=np.array([times[one][0] for one in there]),
        done_at=done[there],
        streamed=np.ones(len(there), np.bool_),
    )
    tokens = TokenEvents(
        times=np.array([at for at, _ in events]),
        request=np.array([place for _, place in events], np.int64),
        tokens=np.ones(len(events)),
    )
    engine = EngineUse(engine="e", up=True, busy=True)
    return Window(
        device="gpu:0",
        scope="gpu",
        start=Seconds(start),
        end=Seconds(end),
        energy=Microjoules(round(100e6 * (end - start))),
        engines=[engine],
        requests=requests,
        tokens=tokens,
    )


def paid(method: Attribution, seen: Sequence[Window], sent: Floats) -> Floats:
    total = dict.fromkeys(sent.tolist(), 0)
    for window in seen:
        shares = method.attribute(window)
        for at, amount in zip(window.requests.sent_at.tolist(), shares.requests.tolist(), strict=True):
            total[at] += amount
    return np.array(list(total.values()), np.float64)


def test_who_came_just_before_a_window_ended_does_not_pay_for_the_whole_iteration() -> None:
    late = APART_S * np.arange(STREAMS)
    sent = 0.01 + 1e-4 * np.arange(STREAMS)
    # The iteration at 1.0 s: half of its tokens come before the window ends.
    times = [0.1 + STEP_S * np.arange(28) - late[STREAMS // 2] + one for one in late]
    amounts = paid(PhaseTime(), windows(sent, times, (0.0, 1.0, 2.0), [PROMPT] * STREAMS), sent)
    assert amounts == pytest.approx(np.full(STREAMS, amounts.mean()), rel=0.005)


def test_iteration_whose_arrivals_something_tore_apart_is_paid_by_all_of_it() -> None:
    sent = 0.01 + 1e-4 * np.arange(STREAMS)
    times = [0.1 + STEP_S * np.arange(28) + APART_S * one for one in range(STREAMS)]
    for torn, gap in ((5, 0.5), (9, 0.35), (14, 0.3)):
        for one in range(torn % 7 + 1, STREAMS):
            times[one][torn] += gap * STEP_S
    times[STREAMS - 1][9] += 0.2 * STEP_S  # in three parts
    amounts = paid(PhaseTime(), windows(sent, times, (0.0, 1.0, 2.0), [PROMPT] * STREAMS), sent)
    assert amounts == pytest.approx(np.full(STREAMS, amounts.mean()), rel=0.005)


@pytest.mark.parametrize("learned", [False, True])
def test_prompts_that_wait_together_over_the_end_of_a_window_pay_the_same(learned: bool) -> None:
    sent = np.concatenate([[0.0], 0.02 + 1e-4 * np.arange(STREAMS)])
    late = APART_S * np.arange(STREAMS)
    times = [np.array([0.6]), *(1.3 + STEP_S * np.arange(10) + one for one in late)]
    method = PhaseTime()
    if learned:
        for turn in range(40):
            begin = 10.0 * turn - 400.0
            own = [begin + 0.01 * one + 0.5 + STEP_S * np.arange(10) for one in range(2)]
            for window in windows(begin + np.arange(2.0), own, (begin, begin + 1.0, begin + 2.0), [PROMPT, 2 * PROMPT]):
                method.learn(window)
    amounts = paid(method, windows(sent, times, (0.0, 1.0, 2.0), [240, *[PROMPT] * STREAMS]), sent)[1:]
    assert amounts == pytest.approx(np.full(STREAMS, amounts.mean()), rel=0.01)
