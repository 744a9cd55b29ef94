"""Engines, workers and the control plane killed under way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.integration.fleet import THIRD, Fleet, chat, wait_until

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

LONG = {"max_tokens": 700, "ignore_eos": True, "stream": True}


def frames(fleet: Fleet, body: dict[str, Any]) -> Iterator[str]:
    with httpx.stream("POST", f"{fleet.gateway}/v1/chat/completions", json=body, timeout=120) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: "):
                yield line[6:]


def engine_tree(fleet: Fleet, name: str) -> list[psutil.Process]:
    """The engine's processes, its root first."""
    root = psutil.Process(fleet.engine(name)["pid"])
    return [root, *root.children(recursive=True)]


def test_killed_engine_ends_the_stream_with_an_error_and_comes_back_with_its_adapters(fleet: Fleet) -> None:
    before = fleet.engine(f"demo-{THIRD}")
    tree = engine_tree(fleet, f"demo-{THIRD}")
    stream = frames(fleet, chat(f"json:{THIRD}", **LONG))
    got = [next(stream) for _ in range(5)]
    tree[0].kill()
    got += list(stream)
    assert "error" in json.loads(got[-1]), got[-1]
    assert "[DONE]" not in got
    _, left = psutil.wait_procs(tree, timeout=30)
    assert left == [], "the engine's children outlived it"

    others = httpx.post(f"{fleet.gateway}/v1/chat/completions", json=chat("demo:bf16"), timeout=60)
    assert others.status_code == 200
    fleet.wait_ready()
    after = fleet.engine(f"demo-{THIRD}")
    assert after["restarts"] == before["restarts"] + 1
    wait_until(
        lambda: set(fleet.engine(f"demo-{THIRD}")["adapters"]) == {"json", "code"}, bound_s=60, what="adapters back"
    )

    def answers() -> bool:
        answer = httpx.post(f"{fleet.gateway}/v1/chat/completions", json=chat(f"json:{THIRD}"), timeout=60)
        return answer.status_code == 200 and answer.json()["model"] == f"json:{THIRD}"

    wait_until(answers, bound_s=30, what="the adapter serves again")


def test_killed_control_plane_breaks_no_stream_loses_no_record_and_adopts_the_engines(fleet: Fleet) -> None:
    pids = {engine["name"]: engine["pid"] for engine in fleet.status()["engines"]}
    control = fleet.find("server.control")
    stream = frames(fleet, chat("demo:bf16", **LONG))
    next(stream)
    control.kill()
    got = list(stream)
    assert got[-1] == "[DONE]"
    request = {"x-request-id": "told-after-the-death"}
    httpx.post(f"{fleet.gateway}/v1/chat/completions", json=chat("demo:int8"), headers=request, timeout=60)
    fleet.wait_ready(120)
    assert {engine["name"]: engine["pid"] for engine in fleet.status()["engines"]} == pids
    assert fleet.find("server.control").pid != control.pid

    log = fleet.state_dir / "logs" / "requests.jsonl"
    wait_until(lambda: "told-after-the-death" in log.read_text(encoding="utf-8"), bound_s=20, what="the record arrived")
    assert log.read_text(encoding="utf-8").count("told-after-the-death") == 1


def test_killed_worker_is_replaced_and_no_connection_is_refused(fleet: Fleet) -> None:
    worker = fleet.find("server.gateway")
    worker.kill()
    worker.wait(20)

    def ready() -> bool:
        # Refused connections would raise; a worker that has no routing table yet says 503.
        return httpx.get(f"{fleet.gateway}/ready", timeout=60).status_code == 200

    wait_until(ready, bound_s=30, what="the new worker has its routing table")
    answer = httpx.post(f"{fleet.gateway}/v1/chat/completions", json=chat("demo:bf16"), timeout=60)
    assert answer.status_code == 200
    assert fleet.find("server.gateway").pid != worker.pid
    fleet.wait_ready(60)
