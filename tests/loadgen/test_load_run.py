"""What is sent: arrivals, mix, prompts, and when a run is over."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import FIXED_TOKENS, scripted_server

from loadgen._arrivals import ARRIVALS
from loadgen._errors import LoadError
from loadgen._gateway import Prepared, chat_body, prepare
from loadgen._mix import Mix, parse_mix
from loadgen._plan import Plan, add_options
from loadgen._prompts import Calibration, Prompts
from loadgen._run import Job, Run, Share


class _Parser(ArgumentParser):
    """Takes Locust's extra arguments, as Locust's own parser does."""

    def add_argument(self, *names: Any, **more: Any) -> Any:
        for extra in ("include_in_web_ui", "is_secret", "env_var"):
            more.pop(extra, None)
        return super().add_argument(*names, **more)


def plan(*arguments: str, run_time: float | None = None, **changes: Any) -> Plan:
    parser = _Parser()
    add_options(parser)
    options = parser.parse_args(arguments)
    options = Namespace(**{**vars(options), "num_users": None, "run_time": run_time, **changes})
    return Plan.of(options, host=changes.get("host"), fresh_salt=lambda: "salt")


def prepared(*models: str) -> Prepared:
    return Prepared(
        mix=Mix(models=models, weights=(1.0,) * len(models)),
        calibrations=dict.fromkeys(models, Calibration(fixed_tokens=10.0, tokens_a_word=2.0)),
        cards={},
    )


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run_of(
    of: Plan, *, share: Share | None = None, clock: Clock | None = None, models: tuple[str, ...] = ("a", "b")
) -> Run:
    return Run(of, prepared(*models), share=share or Share(index=0, of=1), clock=clock or Clock())


@pytest.mark.parametrize("name", sorted(ARRIVALS))
def test_schedule_is_ascending_within_its_horizon_and_of_the_wanted_rate(name: str) -> None:
    times = ARRIVALS[name].schedule(50.0, 200.0, np.random.default_rng(1))
    assert np.all(np.diff(times) >= 0)
    assert times[0] >= 0
    assert times[-1] < 200.0
    # Five standard deviations of a Poisson process's count.
    assert len(times) == pytest.approx(10_000, abs=500)


@pytest.mark.parametrize("name", sorted(ARRIVALS))
@given(rate=st.floats(0.01, 500), horizon=st.floats(0.1, 60), seed=st.integers(0, 2**32))
@settings(max_examples=50)
def test_schedule_is_decided_by_its_seed(name: str, rate: float, horizon: float, seed: int) -> None:
    schedules = [ARRIVALS[name].schedule(rate, horizon, np.random.default_rng(seed)) for _ in range(2)]
    assert np.array_equal(*schedules)
    assert np.all((schedules[0] >= 0) & (schedules[0] < horizon))


def test_constant_arrivals_are_at_equal_distances() -> None:
    assert ARRIVALS["constant"].schedule(4.0, 1.0, np.random.default_rng(1)).tolist() == [0.0, 0.25, 0.5, 0.75]


def test_gaps_of_poisson_arrivals_vary_as_much_as_their_mean() -> None:
    gaps = np.diff(ARRIVALS["poisson"].schedule(100.0, 200.0, np.random.default_rng(1)))
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1.0, abs=0.05)


def test_open_loop_sends_the_whole_schedule_once_whatever_the_number_of_processes() -> None:
    of = plan("--rate", "20", "--arrivals", "poisson", run_time=5.0)
    alone = list(run_of(of).jobs())
    shared = [job for index in range(3) for job in run_of(of, share=Share(index=index, of=3)).jobs()]
    assert sorted(shared, key=lambda job: job.index) == alone
    assert [job.scheduled_s for job in alone] == sorted(job.scheduled_s for job in alone)


def test_open_loop_is_over_with_its_schedule_and_names_it_by_a_hash() -> None:
    of = plan("--rate", "5", run_time=2.0)
    runs = [run_of(of), run_of(of)]
    for run in runs:
        list(run.jobs())
        assert run.ended
    assert runs[0].schedule_hash == runs[1].schedule_hash
    assert runs[0].schedule_hash is not None


def test_run_that_ended_sends_nothing_more() -> None:
    run = run_of(plan())
    assert run.next_job() is not None
    run.end()
    assert run.next_job() is None
    assert list(run_of_ended().jobs()) == []


def run_of_ended() -> Run:
    run = run_of(plan("--rate", "5"))
    run.end()
    return run


def test_closed_loop_ends_after_the_wanted_number_of_measured_requests() -> None:
    clock = Clock()
    run = run_of(plan("--requests", "3", "--warm-up", "2"), clock=clock)
    jobs: list[Job] = []
    while job := run.next_job():
        jobs.append(job)
        clock.now += 1.0
    assert [job.warm_up for job in jobs] == [True, True, False, False, False]
    assert run.steady_until_s == 4.0


@pytest.mark.parametrize("requests", [1, 2, 7])
def test_processes_share_the_wanted_number_of_requests(requests: int) -> None:
    of = plan("--requests", str(requests))
    sent = 0
    for index in range(3):
        run = run_of(of, share=Share(index=index, of=3))
        while run.next_job():
            sent += 1
    assert sent == requests


def test_same_seed_sends_the_same_requests_and_another_salt_other_texts_of_the_same_lengths() -> None:
    first, again, salted = (run_of(plan("--salt", salt)).next_job() for salt in ("a", "a", "b"))
    assert first is not None
    assert salted is not None
    assert first == again
    assert first.model == salted.model
    assert first.text != salted.text
    assert len(first.text.split()) == len(salted.text.split()) == round((128 - 10) / 2)


def test_prompts_differ_from_their_first_words_on() -> None:
    prompts = Prompts(seed=1, salt="s")
    starts = {tuple(prompts.text(index, 64).split()[:8]) for index in range(200)}
    assert len(starts) == 200


def test_mix_follows_its_weights() -> None:
    mix = parse_mix("demo:bf16=3, org/name:int8", [])
    assert mix == Mix(models=("demo:bf16", "org/name:int8"), weights=(3.0, 1.0))
    picked = [mix.pick(index, seed=1) for index in range(2000)]
    assert picked.count("demo:bf16") == pytest.approx(1500, abs=100)
    assert picked == [mix.pick(index, seed=1) for index in range(2000)]


def test_mix_without_names_is_everything_that_is_served() -> None:
    assert parse_mix("", ["a", "b"]) == Mix(models=("a", "b"), weights=(1.0, 1.0))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("demo:int3", "does not list the model 'demo:int3'; it lists demo:int4, demo:int8"),
        ("demo:int4=x", "is not ID or ID=WEIGHT"),
        ("demo:int4=0", "is not ID or ID=WEIGHT"),
        ("=1", "is not ID or ID=WEIGHT"),
        ("demo:int4,demo:int4=2", "twice"),
    ],
)
def test_mix_that_makes_no_sense_is_refused_with_what_is_known(text: str, says: str) -> None:
    with pytest.raises(LoadError, match=says):
        parse_mix(text, ["demo:int4", "demo:int8"])


@pytest.mark.parametrize(
    ("arguments", "run_time", "says"),
    [
        (["--rate", "-1"], None, "--rate"),
        (["--output-tokens", "0"], None, "--output-tokens"),
        (["--warm-up", "5"], 5.0, "leaves nothing"),
        (["--rate", "1e6"], None, "--run-time"),
        (["--rate", "nan"], None, "--rate"),
    ],
)
def test_option_out_of_range_is_refused_by_its_name(arguments: list[str], run_time: float | None, says: str) -> None:
    with pytest.raises(LoadError, match=says):
        plan(*arguments, run_time=run_time)


def test_key_is_neither_written_down_nor_shown() -> None:
    of = plan("--api-key", "sk-secret")
    assert "sk-secret" not in repr(of)
    assert "sk-secret" not in str(of.to_json())


def test_answers_have_equal_lengths_unless_they_may_end_by_themselves() -> None:
    assert chat_body(plan("--output-tokens", "9"), "m", "t")["max_tokens"] == 9
    assert chat_body(plan(), "m", "t")["ignore_eos"] is True
    assert "ignore_eos" not in chat_body(plan("--stop-at-end"), "m", "t")
    assert chat_body(plan(), "m", "t")["stream_options"] == {"include_usage": True}


def test_prompts_are_calibrated_with_the_servers_own_count() -> None:
    with scripted_server("demo:bf16", "demo:int8") as server:
        found = prepare(plan(host=server.url))
    assert found.mix.models == ("demo:bf16", "demo:int8")
    calibration = found.calibrations["demo:int8"]
    assert calibration.fixed_tokens + 2 * calibration.words(128) == pytest.approx(128, abs=1)
    assert calibration == Calibration(fixed_tokens=FIXED_TOKENS, tokens_a_word=2.0)


def test_what_the_master_prepared_reaches_its_workers_unchanged() -> None:
    found = prepared("a", "b")
    assert Prepared.from_json(found.to_json()) == found


def test_request_that_cannot_fit_is_refused_before_anything_is_sent() -> None:
    with scripted_server("demo:bf16") as server, pytest.raises(LoadError, match="do not fit into demo:bf16's 1024"):
        prepare(plan("--prompt-tokens", "1000", host=server.url))
    assert server.probes == 0


def test_wrong_key_is_said_in_one_sentence() -> None:
    with scripted_server("demo:bf16") as server:
        server.api_key = "right"
        with pytest.raises(LoadError, match="refuses the API key"):
            prepare(plan("--api-key", "wrong", host=server.url))
