"""`wattgate` as a user runs it, all processes real but for the engines' vLLM, which is a scripted one."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.fakes.certificates import make_certificate
from tests.fakes.safetensors_file import write_checkpoint
from tests.fakes.vllm_process import install
from tests.integration.fleet import Fleet, chat, free_port, start, stop, wait_until

BOUND_S = 30.0


def configuration(folder: Path, **changes: Any) -> tuple[Path, dict[str, Any]]:
    checkpoint = folder / "model"
    if not checkpoint.exists():
        write_checkpoint(checkpoint)
    config: dict[str, Any] = {
        "state_dir": str(folder / "state"),
        "environments": {"engine": str(install(folder / "venv", folder / "stage"))},
        "gateway": {"port": free_port(), "drain_timeout_s": 5},
        "control": {"port": free_port()},
        "engines": [{"name": "one", "model": "demo", "variant": "bf16", "checkpoint": str(checkpoint)}],
        **changes,
    }
    path = folder / "wattgate.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path, config


def wattgate(*argv: str, bound_s: float = BOUND_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *argv], capture_output=True, text=True, timeout=bound_s, check=False
    )


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Fleet]:
    running = start(*configuration(tmp_path), tmp_path / "up.log")
    try:
        running.wait_ready(BOUND_S)
        yield running
    finally:
        stop(running)


def ask(gateway: Fleet, model: str = "demo") -> httpx.Response:
    return httpx.post(f"{gateway.gateway}/v1/chat/completions", json=chat(model), timeout=BOUND_S)


def test_request_reaches_the_engine_and_its_record_the_metrics_and_the_log(gateway: Fleet) -> None:
    answer = ask(gateway)
    assert answer.status_code == 200
    assert answer.headers["x-wattgate-engine"] == "one"

    def counted() -> bool:
        text = httpx.get(f"{gateway.control}/metrics", timeout=BOUND_S).text
        lines = [line for line in text.splitlines() if line.startswith("wattgate_requests_total{")]
        return any('outcome="ok"' in line and 'engine="one"' in line and line.endswith(" 1.0") for line in lines)

    wait_until(counted, bound_s=BOUND_S, what="the request on /metrics")
    (line,) = (gateway.state_dir / "logs" / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["id"] == answer.headers["x-request-id"]
    assert "What does" not in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_launcher(gateway: Fleet, number: signal.Signals) -> None:
    family = gateway.processes()
    assert len(family) >= 5  # launcher, control plane, worker, keeper, engine
    assert stop(gateway, number) == []
    assert [process for process in family if process.is_running()] == []


def test_killed_control_plane_adopts_the_running_engine(gateway: Fleet) -> None:
    before = gateway.engine("one")
    gateway.find("server.control").kill()
    assert ask(gateway).status_code == 200
    wait_until(gateway.ready, bound_s=BOUND_S, what="the next control plane is ready")
    assert gateway.engine("one")["pid"] == before["pid"]
    assert gateway.engine("one")["restarts"] == before["restarts"]


def test_no_request_fails_while_the_control_plane_is_replaced(gateway: Fleet) -> None:
    control = gateway.find("server.control")
    over = threading.Event()

    def ask_on() -> set[int]:
        seen: set[int] = set()
        with httpx.Client(timeout=BOUND_S) as client:
            while not over.is_set():
                seen.add(client.post(f"{gateway.gateway}/v1/chat/completions", json=chat("demo")).status_code)
        return seen

    with ThreadPoolExecutor(1) as pool:
        statuses = pool.submit(ask_on)
        try:
            control.kill()
            control.wait(BOUND_S)
            wait_until(gateway.ready, bound_s=BOUND_S, what="the next control plane is ready")
        finally:
            over.set()
        assert statuses.result(BOUND_S) == {200}


def test_record_of_a_request_during_the_death_of_the_control_plane_is_kept_and_told_once(gateway: Fleet) -> None:
    control = gateway.find("server.control")
    control.suspend()  # it takes nothing from now on, and acknowledges nothing
    answer = ask(gateway)
    control.kill()
    log = gateway.state_dir / "logs" / "requests.jsonl"

    def told() -> int:
        return log.read_text(encoding="utf-8").count(answer.headers["x-request-id"]) if log.exists() else 0

    wait_until(lambda: told() >= 1, bound_s=BOUND_S, what="the record arrived at the next control plane")
    wait_until(gateway.ready, bound_s=BOUND_S, what="the next control plane is ready")
    assert told() == 1


def test_killed_worker_is_replaced_and_no_connection_is_refused(gateway: Fleet) -> None:
    worker = gateway.find("server.gateway")
    worker.kill()
    worker.wait(BOUND_S)
    wait_until(lambda: ask(gateway).status_code == 200, bound_s=BOUND_S, what="the next worker serves")


def test_worker_and_engine_are_on_different_cores(gateway: Fleet) -> None:
    if len(psutil.Process().cpu_affinity()) < 2:
        pytest.fail("this test needs two cores")
    engine = psutil.Process(gateway.engine("one")["pid"])
    wait_until(
        lambda: not set(engine.cpu_affinity()) & set(gateway.find("server.gateway").cpu_affinity()),
        bound_s=BOUND_S,
        what="worker and engine on different cores",
    )


def test_second_gateway_on_the_same_state_folder_is_refused(gateway: Fleet) -> None:
    second = wattgate("up", "--config", str(gateway.config))
    assert second.returncode == 2
    assert "runs already" in second.stderr
    assert ask(gateway).status_code == 200


def test_status_names_engine_state_and_a_gateway_that_does_not_run(gateway: Fleet) -> None:
    said = wattgate("status", "--config", str(gateway.config))
    assert said.returncode == 0
    assert "demo:bf16" in said.stdout
    nobody = wattgate("status", "--control", f"http://127.0.0.1:{free_port()}")
    assert nobody.returncode == 2
    assert "wattgate up" in nobody.stderr


def test_engine_restarts_on_demand(gateway: Fleet) -> None:
    before = gateway.engine("one")["pid"]
    answer = httpx.post(f"{gateway.control}/api/engines/restart", json={"name": "one"}, timeout=BOUND_S)
    assert answer.status_code == 202
    wait_until(lambda: gateway.engine("one")["pid"] not in {before, None}, bound_s=BOUND_S, what="another engine")
    wait_until(gateway.ready, bound_s=BOUND_S, what="ready again")
    unknown = httpx.post(f"{gateway.control}/api/engines/restart", json={"name": "two"}, timeout=BOUND_S)
    assert unknown.status_code == 404
    assert "one" in unknown.json()["error"]["message"]


def test_wrong_admin_body_gets_a_clear_error(gateway: Fleet) -> None:
    answer = httpx.post(f"{gateway.control}/api/adapters", json={"name": "x"}, timeout=BOUND_S)
    assert answer.status_code == 400
    assert "model" in answer.json()["error"]["message"]
    unknown = httpx.get(f"{gateway.control}/api/summary?by=colour", timeout=BOUND_S)
    assert unknown.status_code == 400
    assert "colour" in unknown.json()["error"]["message"]


def broken_engine(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    return [{"name": "one", "model": "demo", "variant": "bf16", "checkpoint": str(folder / "model"), **changes}]


@pytest.mark.parametrize("verb", ["check", "up"])
def test_missing_checkpoint_is_said_before_anything_starts(tmp_path: Path, verb: str) -> None:
    path, _ = configuration(tmp_path, engines=broken_engine(tmp_path, checkpoint="/no/such/model"))
    said = wattgate(*([verb] if verb == "check" else [verb, "--config"]), str(path))
    assert said.returncode == 2
    assert "/no/such/model" in said.stderr
    assert len(said.stderr.splitlines()) < 20


def test_broken_checkpoint_names_the_file(tmp_path: Path) -> None:
    path, _ = configuration(tmp_path)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"\xff" * 64)
    said = wattgate("check", str(path))
    assert said.returncode == 2
    assert "model.safetensors" in said.stderr


def test_two_engines_of_one_name_are_refused(tmp_path: Path) -> None:
    path, _ = configuration(tmp_path, engines=broken_engine(tmp_path) * 2)
    said = wattgate("up", "--config", str(path))
    assert said.returncode == 2
    assert "two entries are named 'one'" in said.stderr


def test_missing_vllm_names_the_one_command_that_installs_it(tmp_path: Path) -> None:
    path, _ = configuration(tmp_path, environments={"engine": str(tmp_path / "nowhere")})
    said = wattgate("up", "--config", str(path))
    assert said.returncode == 2
    assert "make .venv-engine" in said.stderr


def test_too_little_memory_is_said_with_both_figures(tmp_path: Path) -> None:
    path, _ = configuration(tmp_path, engines=broken_engine(tmp_path, options={"kv_cache_gib": 4000}))
    said = wattgate("up", "--config", str(path))
    assert said.returncode == 2
    assert "GB" in said.stderr or "GiB" in said.stderr


def test_port_in_use_ends_the_start_with_its_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path, _ = configuration(tmp_path, gateway={"port": port})
        said = wattgate("up", "--config", str(path))
    assert said.returncode == 3
    assert f"port {port}" in said.stderr
    assert "`gateway.port`" in said.stderr


def test_engine_that_cannot_start_ends_the_gateway_with_the_reason_and_leaves_nothing(tmp_path: Path) -> None:
    path, config = configuration(tmp_path, engines=broken_engine(tmp_path, restart={"give_up_after": 1}))
    (tmp_path / "stage" / "demo_bf16.crash").write_text("torch.OutOfMemoryError: CUDA out of memory.\n")
    running = start(path, config, tmp_path / "up.log")
    assert running.launcher.wait(BOUND_S) == 1
    said = (tmp_path / "up.log").read_text(encoding="utf-8")
    assert "memory" in said
    assert "nothing to serve" in said
    for process in psutil.process_iter(["cmdline"]):
        assert str(tmp_path) not in " ".join(process.info["cmdline"] or [])


def test_ipv6_loopback_is_reached_by_the_commands(tmp_path: Path) -> None:
    path, _ = configuration(tmp_path, control={"host": "::1", "port": free_port()})
    nobody = wattgate("status", "--config", str(path))
    assert nobody.returncode == 2
    assert "http://[::1]:" in nobody.stderr


def test_wrong_flag_is_an_error_and_help_fits_eighty_columns() -> None:
    assert wattgate("up", "--confg", "x").returncode == 2
    assert wattgate("--nonsense").returncode == 2
    said = wattgate("--help")
    assert said.returncode == 0
    assert max(map(len, said.stdout.splitlines())) <= 80


def test_gateway_with_a_certificate_serves_over_tls_and_says_so(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    files = {"tls_certificate": certificate.name, "tls_key": key.name}
    path, config = configuration(tmp_path, gateway={"port": free_port(), "drain_timeout_s": 5, **files})
    running = start(path, config, tmp_path / "up.log")
    try:
        running.wait_ready(BOUND_S)
        url = f"https://127.0.0.1:{config['gateway']['port']}"
        assert url in wattgate("status", "--config", str(path)).stdout.replace("\n", "")
        trust = ssl.create_default_context(cafile=str(certificate))
        answer = httpx.post(f"{url}/v1/chat/completions", json=chat("demo"), timeout=BOUND_S, verify=trust)
        assert answer.status_code == 200
    finally:
        stop(running)


@pytest.mark.parametrize("verb", [("check",), ("up", "--config")])
def test_certificate_that_cannot_serve_is_told_before_anything_starts(tmp_path: Path, verb: tuple[str, ...]) -> None:
    make_certificate(tmp_path)
    (tmp_path / "cert.pem").write_text("no certificate", encoding="ascii")
    path, _ = configuration(
        tmp_path, gateway={"port": free_port(), "tls_certificate": "cert.pem", "tls_key": "key.pem"}
    )
    said = wattgate(*verb, str(path))
    assert said.returncode == 2
    assert "gateway.tls_certificate" in said.stderr
