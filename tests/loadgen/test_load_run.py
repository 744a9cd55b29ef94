"""What is sent: shares, ends of a run, mix, prompts."""

from __future__ import annotations

import pytest
from planned import plan
from planned import prepared as prepared_models
from scripted_server import FIXED_TOKENS, scripted_server

from loadgen._errors import LoadError
from loadgen._gateway import Prepared, prepare
from loadgen._mix import Mix, parse_mix
from loadgen._plan import Plan
from loadgen._prompts import Calibration, Prompts
from loadgen._run import Job, Run, Share


def prepared(*models: str) -> Prepared:
    return prepared_models(*models, calibration=Calibration(fixed_tokens=10.0, tokens_a_word=2.0))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run_of(
    of: Plan, *, share: Share | None = None, clock: Clock | None = None, models: tuple[str, ...] = ("a", "b")
) -> Run:
    return Run(of, prepared(*models), share=share or Share(index=0, of=1), clock=clock or Clock())


def test_open_loop_sends_the_whole_schedule_once_whatever_the_number_of_processes() -> None:
    of = plan("--rate", "20", "--arrivals", "poisson", run_time=5.0)
    alone = list(run_of(of).jobs())
    shared = [job for index in range(3) for job in run_of(of, share=Share(index=index, of=3)).jobs()]
    assert sorted(shared, key=lambda job: job.index) == alone
    assert [job.scheduled_s for job in alone] == sorted(job.scheduled_s for job in alone)


def test_open_loop_sends_its_schedule_once_and_names_it_by_a_hash() -> None:
    of = plan("--rate", "5", run_time=2.0)
    runs = [run_of(of), run_of(of)]
    assert runs[0].schedule_times is not None
    assert len(list(runs[0].jobs())) == len(runs[0].schedule_times)
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


def test_processes_share_the_bound_on_requests_in_flight() -> None:
    of = plan("--rate", "5", "--max-in-flight", "10")
    assert [run_of(of, share=Share(index=index, of=3)).max_in_flight for index in range(3)] == [4, 4, 4]


def test_same_seed_sends_the_same_requests_and_another_salt_other_texts_of_the_same_lengths() -> None:
    first, again, salted = (run_of(plan("--salt", salt)).next_job() for salt in ("a", "a", "b"))
    assert first is not None
    assert salted is not None
    assert again is not None
    assert first.ask == again.ask
    assert first.ask.model == salted.ask.model
    assert first.ask.body != salted.ask.body
    assert (first.request_id, salted.request_id) == ("load-a-0", "load-b-0")


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
