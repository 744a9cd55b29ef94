"""`wattgate reload` under load: another configuration, and no request fails."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.integration.fleet import Fleet, chat, free_port, start, stop, wait_until
from tests.server.launched import pids_with
from tests.server.steady_clients import BOUND_S, logged, under_load
from tests.server.test_whole_gateway import configuration, wattgate


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Fleet]:
    running = start(*configuration(tmp_path, engines=[engine(tmp_path)]), tmp_path / "up.log")
    try:
        running.wait_ready(BOUND_S)
        yield running
    finally:
        left = stop(running)
        print((tmp_path / "up.log").read_text(encoding="utf-8", errors="replace"))
    assert left == []


def engine(folder: Path, name: str = "one", variant: str = "bf16", **changes: Any) -> dict[str, Any]:
    """On a core of its own choice, so that no other engine changes it."""
    checkpoint = str(folder / "model")
    return {"name": name, "model": "demo", "variant": variant, "checkpoint": checkpoint, "device": "cpu:0", **changes}


def rewrite(running: Fleet, /, **changes: Any) -> dict[str, Any]:
    """Change the configuration file; a section's keys are merged."""
    config = yaml.safe_load(running.config.read_text(encoding="utf-8"))
    for section, value in changes.items():
        config[section] = {**config[section], **value} if isinstance(value, dict) else value
    running.config.write_text(yaml.safe_dump(config), encoding="utf-8")
    return dict(config)


def reload(gateway: Fleet) -> str:
    """What it said; it must go well."""
    done = wattgate("reload", "--config", str(gateway.config), bound_s=2 * BOUND_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def workers(gateway: Fleet) -> set[int]:
    """The pids of all workers, old and new."""
    return pids_with("server.gateway", gateway.processes())


def wait_logged(gateway: Fleet, ids: list[str]) -> None:
    wait_until(lambda: set(ids) <= set(logged(gateway)), bound_s=BOUND_S, what="all records in the log")


def test_changed_settings_take_effect_and_no_request_fails_or_is_counted_twice(gateway: Fleet) -> None:
    old, engine_pid = workers(gateway), gateway.engine("one")["pid"]
    with under_load(gateway) as load:
        rewrite(gateway, gateway={"max_body_bytes": 2048})
        said = reload(gateway)
        load.go_on()
    assert load.failures == []
    assert "engines that run on: one" in said
    assert gateway.engine("one")["pid"] == engine_pid
    assert not old & workers(gateway)
    answer = httpx.post(f"{gateway.gateway}/v1/chat/completions", json=chat("demo", "x" * 4096), timeout=BOUND_S)
    assert answer.status_code == 413
    wait_logged(gateway, load.ids)
    assert {count for name, count in logged(gateway).items() if name in set(load.ids)} == {1}


def test_more_workers_and_fewer_and_no_request_fails(gateway: Fleet) -> None:
    with under_load(gateway, keep_alive=False) as load:
        for count in (3, 1):
            rewrite(gateway, gateway={"workers": count})
            reload(gateway)
            assert len(workers(gateway)) == count
            load.go_on()
    assert load.failures == []
    wait_logged(gateway, load.ids)
    assert set(logged(gateway).values()) == {1}


def test_request_that_runs_during_the_reload_is_finished_by_the_old_worker(gateway: Fleet, tmp_path: Path) -> None:
    old, hung = workers(gateway), tmp_path / "stage" / "demo_bf16.hung"
    hung.touch()
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(httpx.post, f"{gateway.gateway}/v1/chat/completions", json=chat("demo"), timeout=BOUND_S)
        wait_until((tmp_path / "stage" / "demo_bf16.asked").exists, bound_s=BOUND_S, what="the engine has the request")
        rewrite(gateway, gateway={"drain_timeout_s": 60})
        reloading = pool.submit(reload, gateway)
        wait_until(lambda: workers(gateway) - old, bound_s=BOUND_S, what="the successor runs")
        assert not running.done()
        hung.unlink()
        assert running.result(BOUND_S).status_code == 200
        reloading.result(2 * BOUND_S)
    assert not old & workers(gateway)


def test_wrong_file_changes_nothing(gateway: Fleet) -> None:
    before = workers(gateway), gateway.find("server.control").pid
    text = gateway.config.read_text(encoding="utf-8")
    for changes, complaint in (
        ({"gateway": {"worker": 2}}, "Did you mean `workers`"),
        ({"engines": [{"name": "one", "model": "demo", "checkpoint": "/no/such"}]}, "/no/such"),
        ({"gateway": {"port": free_port()}}, "gateway.port"),
        ({"state_dir": "elsewhere"}, "state_dir"),
    ):
        gateway.config.write_text(text, encoding="utf-8")
        rewrite(gateway, **changes)
        done = wattgate("reload", "--config", str(gateway.config))
        assert done.returncode == 2
        assert complaint in done.stderr
    assert before == (workers(gateway), gateway.find("server.control").pid)
    gateway.launcher.send_signal(signal.SIGHUP)
    log = gateway.config.parent / "up.log"
    wait_until(lambda: "`state_dir`" in log.read_text(), bound_s=BOUND_S, what="the complaint in the gateway's log")
    assert before == (workers(gateway), gateway.find("server.control").pid)


def test_engine_is_added_and_the_first_one_taken_away_without_a_failed_request(gateway: Fleet, tmp_path: Path) -> None:
    first = gateway.engine("one")["pid"]
    with under_load(gateway) as load:
        rewrite(gateway, engines=[engine(tmp_path), engine(tmp_path, "two")])
        assert "engines that start: two" in reload(gateway)
        gateway.wait_ready(BOUND_S)
        load.go_on()
        rewrite(gateway, engines=[engine(tmp_path, "two")])
        assert "engines that have ended: one" in reload(gateway)
        load.go_on()
    assert load.failures == []
    assert not psutil.pid_exists(first)
    assert [one["name"] for one in gateway.status()["engines"]] == ["two"]


def test_changed_engine_finishes_its_requests_before_it_starts_anew(gateway: Fleet, tmp_path: Path) -> None:
    first, stage = gateway.engine("one")["pid"], tmp_path / "stage"
    (stage / "demo_bf16.hung").touch()
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(httpx.post, f"{gateway.gateway}/v1/chat/completions", json=chat("demo"), timeout=BOUND_S)
        wait_until((stage / "demo_bf16.asked").exists, bound_s=BOUND_S, what="the engine has the request")
        rewrite(gateway, engines=[engine(tmp_path, options={"max_num_seqs": 7})])
        reloading = pool.submit(reload, gateway)
        wait_until(lambda: gateway.engine("one")["state"] == "draining", bound_s=BOUND_S, what="the engine drains")
        (stage / "demo_bf16.hung").unlink()
        assert running.result(BOUND_S).status_code == 200
        assert "engines that start anew: one" in reloading.result(2 * BOUND_S)
    gateway.wait_ready(BOUND_S)
    assert gateway.engine("one")["pid"] != first
    assert "7" in json.loads((stage / "demo_bf16.argv").read_text())


def test_hang_up_signal_reloads_the_same_file(gateway: Fleet) -> None:
    old = workers(gateway)
    rewrite(gateway, gateway={"workers": 2})
    gateway.launcher.send_signal(signal.SIGHUP)
    wait_until(lambda: len(now := workers(gateway)) == 2 and not now & old, bound_s=BOUND_S, what="two new workers")
    wait_until(gateway.ready, bound_s=BOUND_S, what="ready")


def test_reload_without_a_gateway_says_so(tmp_path: Path) -> None:
    path, _ = configuration(tmp_path)
    done = wattgate("reload", "--config", str(path))
    assert done.returncode == 2
    assert "wattgate up" in done.stderr


def test_two_gateways_share_an_engine_and_count_for_themselves(gateway: Fleet, tmp_path: Path) -> None:
    record = json.loads(next(engine_state(gateway)).read_text(encoding="utf-8"))
    shared = {
        "name": "shared",
        "model": "demo",
        "precision": "bf16",
        "url": f"http://127.0.0.1:{record['port']}",
        "kind": "vllm",
        "upstream_model": "demo:bf16",
        "api_key_env": "SHARED_KEY",
    }
    others = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARED_KEY", record["api_key"])
        for name in ("left", "right"):
            folder = tmp_path / name
            folder.mkdir()
            path, config = configuration(folder, engines=[shared])
            others.append(start(path, config, folder / "up.log"))
    try:
        for each in others:
            each.wait_ready(BOUND_S)
        with under_load(others[0]) as left, under_load(others[1]) as right:
            left.go_on()
            right.go_on()
        assert left.failures == right.failures == []
        for each, load in zip(others, (left, right), strict=True):
            wait_logged(each, load.ids)
            assert sorted(logged(each).elements()) == sorted(load.ids)
    finally:
        assert [stop(each) for each in others] == [[], []]
    assert gateway.ready()


def engine_state(gateway: Fleet) -> Iterator[Path]:
    """Where the gateway keeps its engines' state files."""
    control = gateway.find("server.control").cmdline()
    yield from Path(control[control.index("--runtime") + 1]).glob("engines/one.json")


def test_killed_worker_breaks_only_what_it_was_serving(tmp_path: Path) -> None:
    ports = {"port": free_port(), "workers": 2}
    gateway = start(*configuration(tmp_path, engines=[engine(tmp_path)], gateway=ports), tmp_path / "up.log")
    try:
        gateway.wait_ready(BOUND_S)
        with under_load(gateway, keep_alive=False, clients=(clients := 4)) as load:
            for _ in range(3):
                pid = min(workers(gateway))
                psutil.Process(pid).kill()
                wait_until(lambda pid=pid: len(now := workers(gateway)) == 2 and pid not in now,
                           bound_s=BOUND_S, what="another worker")  # fmt: skip
                load.go_on()
        assert len(load.failures) <= 3 * clients, load.failures
        assert all("ReadError" in one or "RemoteProtocolError" in one for one in load.failures), load.failures
        wait_logged(gateway, load.ids[-10:])
        counts = logged(gateway)
        assert set(counts.values()) == {1}
        lost = set(load.ids) - set(counts)
        print(f"{len(load.ids)} answered, {len(load.failures)} broken, {len(lost)} records lost")
        assert len(lost) < len(load.ids) / 2  # at most a quarter of a second's, three times
    finally:
        assert stop(gateway) == []


def test_stop_under_load_finishes_every_running_request(gateway: Fleet, tmp_path: Path) -> None:
    hung, asked = tmp_path / "stage" / "demo_bf16.hung", tmp_path / "stage" / "demo_bf16.asked"
    hung.touch()
    with ThreadPoolExecutor(8) as pool:
        running = [
            pool.submit(httpx.post, f"{gateway.gateway}/v1/chat/completions", json=chat("demo"), timeout=BOUND_S)
            for _ in range(8)
        ]
        wait_until(lambda: asked.exists() and len(asked.read_text().splitlines()) == 8, bound_s=BOUND_S, what="8 run")
        gateway.launcher.send_signal(signal.SIGTERM)

        def refused() -> bool:
            try:
                httpx.get(f"{gateway.gateway}/health", timeout=1)
            except httpx.ConnectError:
                return True
            return False

        wait_until(refused, bound_s=BOUND_S, what="no new clients")
        hung.unlink()
        assert [one.result(BOUND_S).status_code for one in running] == [200] * 8
    assert gateway.launcher.wait(BOUND_S) == 0
    assert len(logged(gateway)) == 8
