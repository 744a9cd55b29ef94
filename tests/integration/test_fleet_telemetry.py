"""Metrics, energy and dashboards of three real engines under load."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.prometheus import Prometheus, grafana_queries, has_number
from tests.integration.fleet import THIRD, Fleet, chat, wait_until

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

ROUNDS = 15
"""Of load, before a query that still says nothing is silent."""

SILENT = {
    "Retries": "there is one replica of each variant: nowhere else to try",
    "Refused for load": "this load is below every bound",
    "Utilization of compute and of memory bandwidth": "nobody told or measured the peak of this CPU",
    "Time to load": "unknown of adapters that a control plane found loaded, after another test's reload",
}
"""Panels that a healthy fleet under this load leaves empty, and why."""

SPREAD = ["demo:bf16", "demo:int8", f"demo:{THIRD}", "json:bf16", f"code:{THIRD}"]


def load(fleet: Fleet, requests: int = 20) -> None:
    """A small mixed load, streamed and not."""

    def one(index: int) -> int:
        body = chat(SPREAD[index % len(SPREAD)], f"Question {index}", stream=index % 2 == 0, ignore_eos=True)
        return httpx.post(f"{fleet.gateway}/v1/chat/completions", json=body, timeout=120).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(one, range(requests))) == {200}


def leave_early(fleet: Fleet) -> None:
    """A client that goes after the first token, and spares the rest."""
    body = chat("demo:bf16", "Tell me", stream=True, ignore_eos=True, max_tokens=400)
    with httpx.stream("POST", f"{fleet.gateway}/v1/chat/completions", json=body, timeout=60) as answer:
        next(line for line in answer.iter_lines() if '"content":"' in line)


def samples(fleet: Fleet) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(httpx.get(f"{fleet.control}/metrics", timeout=20).text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def total(fleet: Fleet, name: str, **labels: str) -> float:
    return sum(value for found, value in samples(fleet).get(name, []) if labels.items() <= found.items())


def test_exposition_passes_promtool_in_text_and_parses_as_openmetrics(fleet: Fleet) -> None:
    load(fleet)
    text = httpx.get(f"{fleet.control}/metrics", timeout=20).text
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    open_metrics = httpx.get(f"{fleet.control}/metrics", headers=accept, timeout=20).text
    assert open_metrics.endswith("# EOF\n")
    assert {family.name for family in parse_openmetrics(open_metrics)} >= {"wattgate_requests", "wattgate_tokens"}


def test_requests_and_tokens_are_counted_per_variant_and_adapter(fleet: Fleet) -> None:
    labels = {"variant": THIRD, "adapter": "code"}
    before = {
        "ok": total(fleet, "wattgate_requests_total", outcome="ok", **labels),
        "output": total(fleet, "wattgate_tokens_total", kind="output", **labels),
    }
    for _ in range(3):
        body = chat(f"code:{THIRD}", ignore_eos=True, stream=True, max_tokens=16)
        assert httpx.post(f"{fleet.gateway}/v1/chat/completions", json=body, timeout=60).status_code == 200

    def counted() -> bool:
        ok = total(fleet, "wattgate_requests_total", outcome="ok", **labels) - before["ok"]
        output = total(fleet, "wattgate_tokens_total", kind="output", **labels) - before["output"]
        assert ok <= 3
        assert output <= 48
        return ok == 3 and output == 48

    wait_until(counted, bound_s=20, what="3 requests of 16 tokens each")


def test_joules_of_all_accounts_add_up_to_the_meter_exactly(fleet: Fleet) -> None:
    load(fleet)

    def settled() -> dict[str, Any] | None:
        energy = httpx.get(f"{fleet.control}/api/energy", timeout=10).json()
        return energy if energy["accounts"]["active"] > 0 else None

    energy = wait_until(settled, bound_s=60, what="joules were attributed")
    micro = energy["microjoules"]
    assert sum(micro["accounts"].values()) == sum(micro["devices"].values())
    assert sum(micro["configurations"]) == micro["accounts"]["active"]
    assert {row["variant"] for row in energy["configurations"] if row["active_joules"] > 0} == {"bf16", "int8", THIRD}
    assert {device["scope"] for device in energy["devices"]} == {"estimated"}

    exported = samples(fleet)
    accounts = sum(value for _, value in exported["wattgate_energy_joules_total"])
    meter = sum(value for _, value in exported["wattgate_device_energy_joules_total"])
    assert accounts == pytest.approx(meter, rel=1e-9)


def test_every_query_of_every_dashboard_panel_returns_data_from_a_real_prometheus(fleet: Fleet, root: Path) -> None:
    queries = [
        (board.name, title, query)
        for board in sorted((root / "grafana" / "dashboards").glob("*.json"))
        for title, query in grafana_queries(board.read_text(encoding="utf-8"), rate_interval="10s")
    ]
    assert queries
    with Prometheus(targets=[fleet.control.removeprefix("http://")]) as prometheus:

        def unanswered() -> list[tuple[str, str, str]]:
            load(fleet, 10)
            leave_early(fleet)
            return [entry for entry in queries if not has_number(prometheus.query(entry[2]))]

        silent: list[tuple[str, str, str]] = []
        for _ in range(ROUNDS):
            silent = [entry for entry in unanswered() if entry[1] not in SILENT]
            if not silent:
                break
    assert silent == []


def test_status_command_shows_every_engine_within_eighty_columns(fleet: Fleet) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "server", "status", "--control", fleet.control],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"COLUMNS": "80", "PATH": "/usr/bin:/bin"},
    )
    assert said.returncode == 0, said.stderr
    for name in ("demo-bf16", "demo-int8", f"demo-{THIRD}"):
        assert name in said.stdout
    assert max(map(len, said.stdout.splitlines())) <= 80


def test_planes_stay_small(fleet: Fleet) -> None:
    def pss(module: str) -> int:
        return int(fleet.find(module).memory_full_info().pss)

    assert pss("server.gateway") <= 80e6
    assert pss("server.control") <= 150e6
    everything = 0
    for process in fleet.processes():
        try:
            everything += process.memory_full_info().pss
        except psutil.Error:
            continue
    assert everything <= 7.8e9
