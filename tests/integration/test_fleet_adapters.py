"""Adapters of a running gateway: load, refuse, unload."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.fleet import ROOT, THIRD, Fleet, chat, wait_until

JSON = ROOT / "adapters" / "json"

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]


def wattgate(fleet: Fleet, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *argv, "--control", fleet.control],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def listed(fleet: Fleet) -> set[str]:
    return {model["id"] for model in httpx.get(f"{fleet.gateway}/v1/models", timeout=10).json()["data"]}


def edited(source: Path, target: Path, **changes: Any) -> Path:
    """A copy of an adapter with another adapter_config.json."""
    shutil.copytree(source, target)
    path = target / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return target


@pytest.fixture
def unloaded(fleet: Fleet) -> Iterator[None]:
    """Whatever the test loads under the name `extra` is gone after it."""
    yield
    wattgate(fleet, "adapter", "unload", "extra")


@pytest.mark.usefixtures("unloaded")
def test_adapter_comes_and_goes_while_the_gateway_runs(fleet: Fleet, root: Path) -> None:
    loaded = wattgate(fleet, "adapter", "load", "extra", str(root / "adapters" / "json"), "--model", "demo")
    assert loaded.returncode == 0, loaded.stderr
    wait_until(lambda: {"extra", "extra:bf16", f"extra:{THIRD}"} <= listed(fleet), bound_s=60, what="extra is listed")
    assert "extra:int8" not in listed(fleet)
    answer = httpx.post(f"{fleet.gateway}/v1/chat/completions", json=chat(f"extra:{THIRD}"), timeout=60)
    assert answer.json()["model"] == f"extra:{THIRD}"

    again = wattgate(fleet, "adapter", "load", "extra", str(root / "adapters" / "json"), "--model", "demo")
    assert again.returncode == 2
    assert "extra" in again.stderr

    assert wattgate(fleet, "adapter", "unload", "extra").returncode == 0
    wait_until(lambda: "extra" not in listed(fleet), bound_s=30, what="extra is gone")
    gone = httpx.post(f"{fleet.gateway}/v1/chat/completions", json=chat(f"extra:{THIRD}"), timeout=60)
    assert gone.status_code == 404


def test_adapter_list_says_why_int8_does_not_have_it(fleet: Fleet) -> None:
    said = wattgate(fleet, "adapter", "list", "--json")
    json_adapter = next(adapter for adapter in json.loads(said.stdout) if adapter["name"] == "json")
    assert json_adapter["replicas"]["demo-bf16"]["state"] == "loaded"
    assert json_adapter["replicas"]["demo-int8"]["state"] == "refused"
    assert json_adapter["replicas"]["demo-int8"]["reason"]


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("changes", "words"),
    [({"use_dora": True}, "DoRA"), ({"peft_type": "PREFIX_TUNING"}, "refix"), ({"r": 512}, "rank")],
)
def test_adapter_that_no_engine_can_serve_is_refused_with_the_reason(
    fleet: Fleet, root: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = edited(root / "adapters" / "json", tmp_path / "extra", **changes)
    refused = wattgate(fleet, "adapter", "load", "extra", str(folder), "--model", "demo")
    assert refused.returncode == 2
    assert words in refused.stderr
    assert "extra" not in listed(fleet)
    assert fleet.ready()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["adapter", "load", "extra", "/no/such/folder", "--model", "demo"], "/no/such/folder"),
        (["adapter", "load", "extra", "/tmp", "--model", "nobody"], "nobody"),
        (["adapter", "load", "demo", "/tmp", "--model", "demo"], "demo"),
        (["adapter", "load", "extra", str(JSON), "--model", "demo", "--variant", "int8"], "int8"),
        (["adapter", "unload", "nothing"], "nothing"),
    ],
)
def test_wrong_adapter_command_says_what_is_wrong(fleet: Fleet, argv: list[str], words: str) -> None:
    refused = wattgate(fleet, *argv)
    assert refused.returncode == 2
    assert words in refused.stderr
