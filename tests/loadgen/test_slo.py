"""What a good request is."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen._errors import LoadError
from loadgen._record import Record
from loadgen._slo import Slo


def record(*token_s: float, **more: Any) -> Record:
    values: dict[str, Any] = {
        "index": 0,
        "model": "demo",
        "served_by": "demo",
        "warm_up": False,
        "scheduled_s": 0.0,
        "sent_s": 0.0,
        "token_s": token_s,
        "ended_s": token_s[-1] if token_s else 1.0,
        "prompt_tokens": 10,
        "cached_tokens": None,
        "output_tokens": len(token_s),
        "finish_reason": "length",
        "error": None,
        "message": None,
        **more,
    }
    return Record(**values)


def test_bounds_are_read_with_their_units() -> None:
    slo = Slo.parse(" ttft=200ms, tpot=1500us ,e2e=2s,itl=0.5s")
    assert slo.bounds_s == {"ttft": 0.2, "tpot": 0.0015, "e2e": 2.0, "itl": 0.5}
    assert Slo.parse(str(slo)) == slo


def test_no_text_is_no_slo() -> None:
    assert not Slo.parse("  ")
    assert Slo.parse("ttft=1s")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ttff=200ms", "'ttff=200ms' bounds nothing that is measured; bound ttft, tpot, itl, e2e"),
        ("ttft=200", "no time above 0 with its unit"),
        ("ttft=0ms", "no time above 0"),
        ("ttft", "no time above 0"),
        ("ttft=-5ms", "no time above 0"),
        ("ttft=1s,ttft=2s", "ttft twice"),
    ],
)
def test_typo_is_refused_with_what_could_be_meant(text: str, says: str) -> None:
    with pytest.raises(LoadError, match=says):
        Slo.parse(text)


def test_all_bounds_must_be_kept() -> None:
    one = record(0.1, 0.2, 0.3)
    assert Slo.parse("ttft=100ms,itl=101ms,tpot=101ms,e2e=300ms").met(one) is True
    for broken in ("ttft=99ms", "itl=99ms", "tpot=99ms", "e2e=299ms"):
        assert Slo.parse(broken).met(one) is False


def test_first_token_and_end_count_from_the_scheduled_time() -> None:
    late = record(1.1, 1.2, scheduled_s=0.0, sent_s=1.0)
    assert Slo.parse("ttft=500ms").met(late) is False
    assert Slo.parse("e2e=500ms").met(late) is False


def test_one_long_gap_in_twenty_is_kept_and_two_are_not() -> None:
    steady = [0.01 * number for number in range(21)]
    one_stall = [*steady[:20], steady[19] + 1.0]
    assert Slo.parse("itl=20ms").met(record(*one_stall)) is True
    two_stalls = [*steady[:19], steady[18] + 1.0, steady[18] + 2.0]
    assert Slo.parse("itl=20ms").met(record(*two_stalls)) is False


def test_failure_is_never_good() -> None:
    assert Slo.parse("e2e=10s").met(record(0.1, error="http_429", message="later")) is False


def test_bound_on_what_the_answer_does_not_have_cannot_be_judged() -> None:
    whole = record(streamed=False, output_tokens=5)
    assert Slo.parse("ttft=1s").met(whole) is None
    assert Slo.parse("e2e=2s").met(whole) is True
    assert Slo.parse("e2e=500ms,ttft=1s").met(whole) is False
    assert Slo.parse("tpot=1s").met(record(0.1, 0.2, output_tokens=None)) is None


def test_answer_of_one_token_has_no_gap_that_could_be_too_long() -> None:
    assert Slo.parse("itl=1ms,tpot=1ms").met(record(0.1)) is True
