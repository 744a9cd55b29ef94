"""Which failures eject a replica, which do not, and how it comes back; on a clock that stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.control.breaker import Breaker
from server.fleet import SERVING, Ejection, EngineState
from tests.fakes.clock import FakeClock


class Patient:
    """A breaker and its clock."""

    def __init__(self, state: EngineState = EngineState.READY, *, others: bool = True) -> None:
        self.clock = FakeClock()
        self.others = others
        self.breaker = Breaker(self.clock, state, others_serve=lambda: self.others)

    def state(self) -> EngineState:
        return self.breaker.state

    def checks(self, *answers: bool, every: float = 1.0) -> None:
        for answered in answers:
            self.clock.advance(every)
            self.breaker.checked(answered)

    def saw(self, answered: int = 0, failed: int = 0, erred: int = 0) -> None:
        self.breaker.reported(answered=answered, failed=failed, erred=erred)

    def away(self) -> float:
        """Eject it by its checks; how long until it may be tried, its checks answered."""
        while self.state() is not EngineState.UNHEALTHY:
            self.checks(False)
        for tenths in range(1, 1000):
            self.checks(True, every=0.1)
            if self.breaker.may_be_tried:
                return tenths / 10
        raise AssertionError("it never may be tried")


def test_one_missed_check_makes_suspect_and_three_in_a_row_eject() -> None:
    one = Patient()
    one.checks(True, False)
    assert one.state() is EngineState.SUSPECT
    one.checks(False, True, False, False)
    assert one.state() is EngineState.SUSPECT
    one.checks(False)
    assert (one.state(), one.breaker.reason) == (EngineState.UNHEALTHY, Ejection.SILENT)


def test_suspect_is_cleared_after_five_calm_seconds_and_not_before() -> None:
    one = Patient()
    one.saw(answered=3, failed=1)
    one.checks(True, True, True, True)
    assert one.state() is EngineState.SUSPECT
    assert one.breaker.problem == "1 of the last 4 requests to it failed."
    one.checks(True)
    assert one.state() is EngineState.READY
    assert one.breaker.problem is None


def test_errors_that_a_request_may_have_caused_eject_by_their_share_while_others_serve() -> None:
    one, last = Patient(), Patient(others=False)
    for patient in (one, last):
        patient.saw(answered=5, erred=4)
        assert patient.state() is EngineState.SUSPECT
        patient.saw(erred=1)
    assert (one.state(), one.breaker.reason) == (EngineState.UNHEALTHY, Ejection.FAILURES)
    last.saw(erred=100)
    assert last.state() is EngineState.SUSPECT


def test_error_answer_does_not_end_a_row_of_failures() -> None:
    one = Patient(others=False)
    for _ in range(5):
        one.saw(erred=1)
        one.saw(failed=1)
    assert one.state() is EngineState.UNHEALTHY


def test_five_failures_in_a_row_eject_even_the_last_replica() -> None:
    one = Patient(others=False)
    one.saw(answered=100)
    one.saw(failed=2)
    one.saw(failed=2)
    assert one.state() is EngineState.SUSPECT
    one.saw(failed=1)
    assert (one.state(), one.breaker.reason) == (EngineState.UNHEALTHY, Ejection.FAILURES)


def test_failed_request_and_a_missed_check_are_two_witnesses() -> None:
    one = Patient()
    one.saw(failed=1)
    one.checks(False)
    assert (one.state(), one.breaker.reason) == (EngineState.UNHEALTHY, Ejection.SILENT)


@pytest.mark.parametrize(("others", "state"), [(True, EngineState.UNHEALTHY), (False, EngineState.SUSPECT)])
def test_half_of_the_requests_failing_ejects_unless_it_is_the_last_replica(others: bool, state: EngineState) -> None:
    one = Patient(others=others)
    for _ in range(5):
        one.saw(answered=1, failed=1)
    assert one.state() is state


def test_failures_of_long_ago_do_not_count() -> None:
    one = Patient()
    for _ in range(40):
        one.saw(answered=2, failed=1)
        one.clock.advance(11.0)
        one.saw(failed=4)
        assert one.state() is EngineState.SUSPECT
        one.saw(answered=20)
        one.clock.advance(11.0)


def test_ejected_replica_is_tried_after_a_backoff_and_not_while_its_checks_are_missed() -> None:
    one = Patient()
    one.checks(False, False, False)
    one.checks(False, False, False)
    assert not one.breaker.may_be_tried
    one.checks(True)
    assert one.breaker.may_be_tried
    one.breaker.disproved()
    one.checks(True)
    assert not one.breaker.may_be_tried
    one.checks(True)
    assert one.breaker.may_be_tried
    one.breaker.proved()
    assert one.state() is EngineState.READY


def test_each_trial_that_fails_doubles_the_backoff_and_a_good_minute_ends_that() -> None:
    one = Patient()
    away = []
    for _ in range(7):
        away.append(one.away())
        one.breaker.on_trial()
        assert one.state() in SERVING
        one.saw(failed=1)
        assert one.state() is EngineState.UNHEALTHY
        one.breaker.proved()  # it comes back and goes again: that is flapping
    assert away == pytest.approx([1.0, 4.0, 16.0, 30.0, 30.0, 30.0, 30.0], abs=0.2)
    one.clock.advance(61.0)
    assert one.away() == pytest.approx(1.0, abs=0.2)


def test_backoff_begins_anew_after_a_good_minute_even_if_suspicion_came_first() -> None:
    one = Patient()
    for _ in range(3):
        one.away()
        one.breaker.proved()
    one.clock.advance(61.0)
    one.saw(failed=1)
    assert one.state() is EngineState.SUSPECT
    assert one.away() == pytest.approx(1.0, abs=0.2)


def test_trial_ends_with_an_answer_or_five_calm_seconds_and_fails_with_a_missed_check() -> None:
    one = Patient()
    one.away()
    one.breaker.on_trial()
    one.saw(answered=1)
    assert one.state() is EngineState.READY
    one.away()
    one.breaker.on_trial()
    one.checks(True, True, True, True)
    assert one.state() is EngineState.HALF_OPEN
    one.checks(True)
    assert one.state() is EngineState.READY
    one.away()
    one.breaker.on_trial()
    one.checks(False)
    assert one.state() is EngineState.UNHEALTHY


def test_replica_that_was_never_seen_is_ready_at_its_first_answer_however_late() -> None:
    one = Patient(EngineState.STARTING)
    one.checks(False, False)
    assert one.state() is EngineState.STARTING
    one.checks(False)
    assert one.state() is EngineState.UNHEALTHY
    one.checks(True)
    assert one.state() is EngineState.READY


def test_what_workers_report_of_an_ejected_replica_is_no_news() -> None:
    one = Patient()
    one.checks(False, False, False)
    one.saw(failed=9)
    one.saw(answered=9)
    assert one.state() is EngineState.UNHEALTHY


def test_silence_is_timed_from_the_last_answer() -> None:
    one = Patient()
    assert one.breaker.silent_for == pytest.approx(0.0)
    one.checks(False, False, False, every=4.0)
    assert one.breaker.silent_for == pytest.approx(12.0)
    one.checks(True)
    assert one.breaker.silent_for == pytest.approx(0.0)


@given(
    st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans(), st.integers(0, 3), st.integers(0, 3)), max_size=80),
    st.booleans(),
)
def test_answers_never_eject_and_no_ejection_is_shorter_than_its_backoff(
    steps: list[tuple[float, bool, int, int]], others: bool
) -> None:
    one = Patient(others=others)
    ejected_at = None
    for wait, ok, answered, failed in steps:
        one.clock.advance(wait)
        was = one.state()
        if answered or failed:
            one.saw(answered, failed)
        if not failed:
            assert one.state() is was or one.state() is EngineState.READY
        before = one.state()
        one.breaker.checked(ok)
        if ok:
            assert before is one.state() or one.state() is EngineState.READY
        if one.state() is EngineState.UNHEALTHY and was is not EngineState.UNHEALTHY:
            ejected_at = one.clock.monotonic()
        if one.breaker.may_be_tried:
            assert ejected_at is not None
            assert one.clock.monotonic() - ejected_at >= 1.0
            one.breaker.on_trial()
