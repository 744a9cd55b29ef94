"""`locust -f loadgen/` as a user starts it, against a server whose answers are known."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from scripted_server import ScriptedServer, scripted_server

BOUND_S = 60.0


def command(root: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "locust", "-f", str(root / "loadgen"), *options]


def locust(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(root, "--headless", "--only-summary", *options),
        cwd=root,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def summary(folder: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return written


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()]


def of_model(folder: Path, model: str) -> dict[str, Any]:
    return next(entry for entry in summary(folder)["models"] if entry["model"] == model)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_closed_loop_counts_exactly_what_the_server_answered(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:bf16", "demo:int8") as server:
        said = locust(
            root,
            *("--host", server.url, "--control", server.url, "--output", str(tmp_path), "--output-tokens", "5"),
            *("--requests", "60", "--concurrency", "4", "-t", "30s", "--seed", "3"),
        )
    assert said.returncode == 0, said.stderr
    models = summary(tmp_path)["models"]
    assert sum(model["ok"] for model in models) == len(server.chats) == len(records(tmp_path)) == 60
    for model in models:
        mine = [chat for chat in server.chats if chat["model"] == model["model"]]
        assert (model["requests"], model["errors"]) == (len(mine), {})
        assert model["output_tokens"] == 5 * len(mine)
        assert model["served_by"] == {model["model"]: len(mine)}
        assert model["inter_token_latency_s"]["samples"] == 4 * len(mine)
        assert model["inter_token_latency_exact"]
    assert {chat["max_tokens"] for chat in server.chats} == {5}
    assert all(chat["ignore_eos"] for chat in server.chats)
    assert "demo:int8" in said.stdout


def test_joules_of_the_run_are_joined_from_the_control_api(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:int4") as server:
        said = locust(
            root,
            *("--host", server.url, "--control", server.url, "--output", str(tmp_path)),
            *("--output-tokens", "4", "--requests", "12", "-t", "30s"),
        )
    assert said.returncode == 0, said.stderr
    energy = summary(tmp_path)["energy"]
    assert [(use["variant"], use["active_joules"], use["output_tokens"]) for use in energy["uses"]] == [
        ("int4", 12.0, 48)
    ]
    assert energy["scopes"] == ["estimated"]
    assert "0.2500" in said.stdout


def test_every_kind_of_failure_is_told_apart_and_ends_with_status_1(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:bf16", "cut", "broken", "busy") as server:
        said = locust(
            root,
            *("--host", server.url, "--output", str(tmp_path), "--output-tokens", "6"),
            *("--requests", "80", "--concurrency", "4", "-t", "30s"),
        )
    assert said.returncode == 1
    for model, kind in (("cut", "truncated"), ("broken", "error_event"), ("busy", "http_429")):
        found = of_model(tmp_path, model)
        assert found["ok"] == 0
        assert found["errors"] == {kind: found["requests"]}
        assert found["time_to_first_token_s"]["samples"] == 0
    assert of_model(tmp_path, "broken")["first_message"] == "the engine died"
    assert of_model(tmp_path, "demo:bf16")["errors"] == {}


def test_open_loop_sends_its_schedule_and_says_how_late_it_was(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:bf16") as server:
        said = locust(
            root,
            *("--host", server.url, "--output", str(tmp_path), "--output-tokens", "3"),
            *("--rate", "20", "--arrivals", "constant", "-t", "10s", "--requests", "20", "--warm-up", "0.5"),
        )
    assert said.returncode == 0, said.stderr
    sent = records(tmp_path)
    assert [record["scheduled_s"] for record in sent] == pytest.approx([number / 20 for number in range(30)])
    assert [record["warm_up"] for record in sent] == [number < 10 for number in range(30)]
    assert all(record["sent_s"] >= record["scheduled_s"] for record in sent)
    assert summary(tmp_path)["schedule_lateness_s"]["samples"] == 20
    assert summary(tmp_path)["schedule_hash"]


def test_schedule_that_ends_together_with_the_run_time_is_reported(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:bf16") as server:
        said = locust(
            root,
            *("--host", server.url, "--output", str(tmp_path), "--output-tokens", "2", "--arrivals", "constant"),
            *("--rate", "25", "-t", "2s"),
        )
    assert said.returncode == 0, said.stderr
    sent = [record["index"] for record in records(tmp_path)]
    # What is due in the last moments comes before or after the end.
    assert sent == list(range(len(sent)))
    assert 0 < len(sent) <= 50
    assert "demo:bf16" in said.stdout


def test_open_loop_over_several_processes_is_one_schedule_with_one_beginning(root: Path, tmp_path: Path) -> None:
    """Users are not its senders: even with one user for two workers both send their part."""
    with scripted_server("demo:bf16") as server:
        said = locust(
            root,
            *("--host", server.url, "--output", str(tmp_path), "--output-tokens", "2", "--arrivals", "constant"),
            *("--rate", "20", "--requests", "40", "-t", "20s", "--processes", "2", "-u", "1"),
            *("--master-bind-port", str(port := closed_port()), "--master-port", str(port)),
        )
    assert said.returncode == 0, said.stderr
    sent = records(tmp_path)
    assert summary(tmp_path)["processes"] == 2
    assert [record["index"] for record in sent] == list(range(40))
    assert [record["scheduled_s"] for record in sent] == pytest.approx([number / 20 for number in range(40)])


def test_rate_beyond_the_generator_is_marked_and_says_what_was_sent(root: Path, tmp_path: Path) -> None:
    """A bound on requests in flight stands for every reason: what was due was not sent."""
    with scripted_server("stuck") as server:
        said = locust(
            root,
            *("--host", server.url, "--output", str(tmp_path), "--rate", "50", "--arrivals", "constant"),
            *("--max-in-flight", "3", "-t", "2s", "--stop-timeout", "1"),
        )
    written = summary(tmp_path)
    assert written["unfinished"] == 3
    assert written["dropped"] > 10
    assert written["validity"]["rate"]["verdict"] == "invalid"
    assert f"{written['dropped']}" in said.stdout


def test_answers_that_are_not_streamed_have_no_first_token(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:bf16") as server:
        said = locust(
            root,
            *("--host", server.url, "--output", str(tmp_path), "--no-stream", "--requests", "20", "-t", "20s"),
        )
        probes = server.probes
    assert said.returncode == 0, said.stderr
    assert probes >= 20
    assert {record["streamed"] for record in records(tmp_path)} == {False}
    found = of_model(tmp_path, "demo:bf16")
    assert (found["ok"], found["time_to_first_token_s"]["samples"]) == (20, 0)
    assert found["end_to_end_s"]["samples"] == 20


def test_every_request_bears_an_id_of_its_own(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:bf16") as server:
        locust(
            root,
            *("--host", server.url, "--output", str(tmp_path), "--requests", "5", "-t", "20s", "--salt", "s1"),
        )
    assert [record["request_id"] for record in records(tmp_path)] == [f"load-s1-{number}" for number in range(5)]


def test_several_processes_bring_in_one_result(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:bf16") as server:
        said = locust(
            root,
            *("--host", server.url, "--output", str(tmp_path), "--output-tokens", "3"),
            *("--requests", "40", "--concurrency", "4", "-t", "30s", "--processes", "2"),
            *("--master-bind-port", str(port := closed_port()), "--master-port", str(port)),
        )
    assert said.returncode == 0, said.stderr
    assert summary(tmp_path)["processes"] == 2
    assert sorted(record["index"] for record in records(tmp_path)) == list(range(40))
    assert of_model(tmp_path, "demo:bf16")["ok"] == len(server.chats) == 40


def test_result_says_where_it_comes_from_and_hides_the_key(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:bf16") as server:
        server.api_key = "sk-secret"
        said = locust(
            root,
            *("--host", server.url, "--output", str(tmp_path), "--api-key", "sk-secret"),
            *("--requests", "2", "-t", "30s", "--seed", "5", "--salt", "abc"),
        )
    assert said.returncode == 0, said.stderr
    written = summary(tmp_path)
    assert (written["arguments"]["seed"], written["arguments"]["salt"]) == (5, "abc")
    assert written["versions"]["locust"]
    assert written["serving"]["demo:bf16"]["max_model_len"] == 1024
    assert "sk-secret" not in (tmp_path / "summary.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("processes", [[], ["--processes", "2"]])
def test_unreachable_host_is_one_sentence_and_status_2(root: Path, tmp_path: Path, processes: list[str]) -> None:
    host = f"http://127.0.0.1:{closed_port()}"
    master = ["--master-bind-port", str(port := closed_port()), "--master-port", str(port)] if processes else []
    said = locust(root, "--host", host, "--output", str(tmp_path), "-t", "5s", *processes, *master)
    assert said.returncode == 2
    assert f"Nothing answers at {host}" in said.stderr
    assert "Traceback" not in said.stderr
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--api-key", "wrong"], "refuses the API key"),
        (["--slo", "tftt=200ms"], "tftt"),
        (["--rate", "5", "--arrivals", "gamma", "--arrivals-options", "shap=1"], "'gamma' has no option 'shap'"),
        (["--arrivals", "gamma"], "give --rate too"),
        (["--workload", "jsonl", "--workload-file", "missing.jsonl"], "missing.jsonl"),
        (["--control", "http://127.0.0.1:1"], "http://127.0.0.1:1"),
        (["--find-saturation"], "needs --slo"),
        (["--rate", "0.0001"], "no request at all within 5 s"),
        (["--rate", "9000000"], "shorten --run-time"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(root: Path, tmp_path: Path, options: list[str], says: str) -> None:
    with scripted_server("demo:bf16") as server:
        server.api_key = "right"
        key = [] if "--api-key" in options else ["--api-key", "right"]
        said = locust(root, "--host", server.url, "--output", str(tmp_path), "-t", "5s", *key, *options)
    assert said.returncode == 2
    assert says in said.stderr
    assert "Traceback" not in said.stderr
    assert server.chats == []


def test_another_folder_than_the_checkout_changes_nothing(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:bf16") as server:
        said = subprocess.run(
            command(root, "--headless", "--host", server.url, "--requests", "3", "-t", "20s"),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    assert said.returncode == 0, said.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    asked = summary(folder)["arguments"]
    assert (asked["workload"], asked["prompt_tokens"], asked["concurrency"]) == ("fixed", 128, 8)


def test_search_for_saturation_shows_every_level_it_tried(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:bf16") as server:
        said = locust(
            root,
            *("--host", server.url, "--output", str(tmp_path), "--find-saturation", "--slo", "ttft=1us"),
            *("--concurrency", "2", "--requests", "20", "-t", "3s"),
        )
    assert said.returncode == 0, said.stderr
    assert "No level holds, down to 1 requests in flight." in said.stdout
    curve = json.loads((tmp_path / "curve.json").read_text(encoding="utf-8"))
    assert [(one["level"], one["passed"]) for one in curve["levels"]] == [(1.0, False), (2.0, False)]
    assert (curve["axis"], curve["best"], curve["partial"]) == ("concurrency", None, False)
    assert (tmp_path / "report.html").exists()
    assert "0% of the requests met the SLO" in curve["levels"][0]["why"]
    assert summary(tmp_path / "concurrency-2")["arguments"]["concurrency"] == 2


def test_unknown_model_names_those_that_are_served(root: Path) -> None:
    with scripted_server("demo:bf16", "demo:int4") as server:
        said = locust(root, "--host", server.url, "--models", "demo:int3", "-t", "5s")
    assert said.returncode == 2
    assert "does not list the model 'demo:int3'; it lists demo:bf16, demo:int4" in said.stderr
    assert server.chats == []


def test_interrupt_leaves_a_partial_result_that_says_so(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:bf16") as server:
        process = subprocess.Popen(
            command(root, "--headless", "--host", server.url, "--output", str(tmp_path), "--loglevel", "ERROR"),
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _wait_for_chats(server, 10)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert "Interrupted: the results are partial." in out
    assert summary(tmp_path)["notes"] == ["Interrupted: the results are partial."]
    assert summary(tmp_path)["partial"] is True
    assert of_model(tmp_path, "demo:bf16")["ok"] >= 10


def test_ctrl_c_over_several_processes_leaves_what_all_have_measured(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:bf16") as server:
        process = subprocess.Popen(
            [
                *command(root, "--headless", "--host", server.url, "--output", str(tmp_path), "--processes", "2"),
                *("--master-bind-port", str(port := closed_port()), "--master-port", str(port)),
            ],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _wait_for_chats(server, 20)
            # As a terminal does: to all of the group at once.
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=BOUND_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate(timeout=BOUND_S)
    assert process.returncode == 0, err
    assert "Interrupted: the results are partial." in out
    written = summary(tmp_path)
    assert (written["partial"], written["processes"]) == (True, 2)
    assert len(records(tmp_path)) + written["unfinished"] == len(server.chats)


def test_web_page_shows_the_options_and_starts_a_run(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:bf16") as server:
        web = f"http://127.0.0.1:{(port := closed_port())}"
        process = subprocess.Popen(
            command(root, "--host", server.url, "--output", str(tmp_path), "--web-port", str(port), "--seed", "7"),
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            page = _wait_for_page(web)
            for option in ("prompt_tokens", "arrivals", "models", "salt"):
                assert option in page
            form = {"user_count": "2", "spawn_rate": "2", "host": server.url, "requests": "10", "output_tokens": "4"}
            assert httpx.post(f"{web}/swarm", data=form, timeout=10).json()["success"]
            _wait_for_file(tmp_path / "summary.json")
        finally:
            process.terminate()
            _, err = process.communicate(timeout=BOUND_S)
    assert "Traceback" not in err
    assert of_model(tmp_path, "demo:bf16")["ok"] == 10
    assert summary(tmp_path)["arguments"]["output_tokens"] == 4


def _wait_for_chats(server: ScriptedServer, number: int) -> None:
    _wait_until(lambda: len(server.chats) >= number)


def _wait_for_file(path: Path) -> None:
    _wait_until(lambda: path.exists() and path.read_text(encoding="utf-8").endswith("}\n"))


def _wait_for_page(url: str) -> str:
    found: list[str] = []

    def answers() -> bool:
        try:
            found.append(httpx.get(url, timeout=5).text)
        except httpx.TransportError:
            return False
        return True

    _wait_until(answers)
    return found[0]


def _wait_until(condition: Any) -> None:
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
