"""`locust -f loadgen/` as a user starts it, against a server whose answers are known."""

from __future__ import annotations

import json
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
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


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
    assert of_model(tmp_path, "demo:bf16")["ok"] >= 10


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
