"""Options become a checked plan, or one sentence."""

from __future__ import annotations

import tomllib
from argparse import Namespace
from pathlib import Path

import pytest
from planned import options, plan

from loadgen._errors import LoadError
from loadgen._options import set_user_count
from loadgen._run import schedule_of


@pytest.mark.parametrize(
    ("arguments", "run_time", "says"),
    [
        (["--rate", "-1"], None, "--rate"),
        (["--rate", "nan"], None, "--rate"),
        (["--rate", "inf"], None, "--rate"),
        (["--output-tokens", "0"], None, "--output-tokens"),
        (["--warm-up", "5"], 5.0, "leaves nothing"),
        (["--arrivals", "gamma"], None, "--arrivals gamma is for open loop: give --rate too"),
        (["--arrivals-options", "shape=1"], None, "'poisson' has no option 'shape'"),
        (["--rate", "5", "--arrivals", "weibull", "--arrivals-options", "k=0"], None, "k is 0; it must be at least"),
        (["--salt", "a\r\nb"], None, "--salt must be printable"),
        (["--api-key", "sk 1"], None, "--api-key must be printable"),
    ],
)
def test_option_out_of_range_is_refused_by_its_name(arguments: list[str], run_time: float | None, says: str) -> None:
    with pytest.raises(LoadError, match=says):
        plan(*arguments, run_time=run_time)


@pytest.mark.parametrize("host", ["localhost:8080", "ftp://x"])
def test_host_without_http_is_refused(host: str) -> None:
    with pytest.raises(LoadError, match="must start with http"):
        plan(host=host)


def test_host_may_end_in_the_api_s_own_path() -> None:
    assert plan(host="http://engine:8000/v1/").host == "http://engine:8000"


def test_schedule_that_no_generator_could_send_is_refused() -> None:
    with pytest.raises(LoadError, match="shorten --run-time"):
        schedule_of(plan("--rate", "1e6"))


def test_schedule_without_a_request_says_what_to_change() -> None:
    with pytest.raises(LoadError, match="no request at all within 1 s"):
        schedule_of(plan("--rate", "0.001", run_time=1.0))


def test_keys_are_neither_written_down_nor_shown() -> None:
    of = plan("--api-key", "sk-secret", "--control-token", "ct-secret")
    for shown in (repr(of), str(of.to_json())):
        assert "secret" not in shown
    assert of.secrets() == {"api_key": "sk-secret", "control_token": "ct-secret"}


def test_locusts_users_are_the_connections_of_closed_loop_and_the_processes_of_open_loop() -> None:
    def users(*, rate: float = 0.0, arrivals: str = "poisson", workers: int | None = None) -> int:
        options = Namespace(
            num_users=None, spawn_rate=None, concurrency=8, rate=rate, arrivals=arrivals, expect_workers=workers
        )
        set_user_count(options)
        return int(options.num_users)

    assert users() == 8
    assert users(rate=5.0) == users(arrivals="trace") == 1
    assert users(rate=5.0, workers=3) == 3


def test_defaults_of_the_checkout_are_those_of_everywhere_else(root: Path) -> None:
    """Outside of the checkout Locust does not find pyproject.toml: a run must not change with the folder."""
    written = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["locust"]
    everywhere = vars(options())
    for name, value in written.items():
        if name not in {"locustfile", "host"}:
            assert everywhere[name.replace("-", "_")] == value, name
