"""A running test as it is drawn in a terminal."""

from __future__ import annotations

import io

from planned import plan
from rich.console import Console

from loadgen._record import Record
from loadgen._terminal import Glance, Progress, Tally


def record(index: int, *, error: str | None = None) -> Record:
    return Record(
        index=index,
        model="m",
        served_by="m",
        warm_up=False,
        scheduled_s=0.0,
        sent_s=0.0,
        token_s=(0.2, 0.25, 0.3),
        ended_s=0.3,
        prompt_tokens=9,
        cached_tokens=None,
        output_tokens=3,
        finish_reason="length",
        error=error,
        message=error,
    )


def text_of(progress: Progress) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(progress.drawn())
    shown = console.file
    assert isinstance(shown, io.StringIO)
    return shown.getvalue()


def test_every_record_is_counted_once_and_latencies_are_those_since_the_last_look() -> None:
    records, tally = [record(0), record(1, error="truncated")], Tally()
    tally.look(records)
    assert (tally.answered, tally.failed, tally.tokens, tally.new_tokens) == (1, 1, 3, 3)
    assert tally.new_first_token_s.count == 1
    records.append(record(2))
    tally.look(records)
    assert (tally.answered, tally.failed, tally.tokens, tally.new_tokens) == (2, 1, 6, 3)
    tally.look(records)
    assert (tally.answered, tally.new_tokens, tally.new_first_token_s.count) == (2, 0, 0)


def test_picture_says_how_far_the_test_is_and_what_clients_feel() -> None:
    of = plan("--rate", "5", run_time=30.0)
    shown = text_of(Progress(of, lambda: Glance(elapsed_s=3.0, records=[record(0), record(1)], in_flight=4, dropped=7)))
    assert "3 of 30 s" in shown
    for heading, value in (
        ("answered", "2"),
        ("in flight", "4"),
        ("dropped", "7"),
        ("tok/s", "2"),
        ("TTFT p50", "200"),
    ):
        assert heading in shown
        assert value in shown


def test_what_nobody_knows_is_a_dash_and_the_warm_up_is_named() -> None:
    of = plan("--warm-up", "5")
    shown = text_of(Progress(of, lambda: Glance(elapsed_s=1.0, records=[], in_flight=None, dropped=None)))
    assert "—" in shown
    assert "warm-up" in shown


def test_nothing_is_drawn_where_there_is_no_terminal() -> None:
    file = io.StringIO()
    progress = Progress(
        plan(),
        lambda: Glance(elapsed_s=1.0, records=[], in_flight=None, dropped=None),
        console=Console(file=file),
    )
    progress.start()
    progress.stop()
    assert file.getvalue() == ""
