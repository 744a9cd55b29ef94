"""`wattgate key`, before the first start and while a gateway runs; the rule of loopback; revocation under way."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.cli import main
from tests.integration.fleet import Fleet, chat, free_port, start, stop, wait_until
from tests.server.test_whole_gateway import configuration

BOUND_S = 30.0


@dataclass(frozen=True)
class Said:
    returncode: int
    stdout: str
    stderr: str


def wattgate(*argv: str, admin_key: str = "") -> Said:
    """The command in this process; `up` would take the process over, so it must not come here."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("WATTGATE_ADMIN_KEY", admin_key)
        try:
            status = main(argv)
        except SystemExit as exc:  # argparse
            status = int(exc.code or 0)
    return Said(status, out.getvalue(), err.getvalue())


def key(path: Path, verb: str, *argv: str, admin_key: str = "") -> Any:
    """`wattgate key … --json`, which must succeed."""
    done = wattgate("key", verb, *argv, "--config", str(path), "--json", admin_key=admin_key)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- before the first start -------------------------------------------------------------------------------------------


def test_keys_are_made_listed_and_revoked_while_no_gateway_runs(tmp_path: Path) -> None:
    path, _ = configuration(tmp_path)
    made = key(
        path, "create", "--tenant", "acme", "--models", "demo,demo:bf16", "--requests-per-minute", "60",
        "--tokens-per-minute", "9000", "--concurrency", "4", "--priority", "-1", "--expires", "30",
    )  # fmt: skip
    (listed,) = key(path, "list")
    assert "digest" not in listed
    assert {**listed, "secret": made["secret"]} == made
    assert (listed["tenant"], listed["models"], listed["state"]) == ("acme", ["demo", "demo:bf16"], "active")
    assert (listed["requests_per_minute"], listed["tokens_per_minute"], listed["concurrency"]) == (60, 9000, 4)
    assert listed["expires"] - listed["created"] == pytest.approx(30 * 86_400)
    shown = wattgate("key", "list", "--config", str(path)).stdout
    assert made["secret"][:9] in shown
    assert made["secret"] not in shown
    assert key(path, "revoke", made["id"])["state"] == "revoked"
    again = wattgate("key", "revoke", made["id"], "--config", str(path))
    assert (again.returncode, again.stdout) == (2, "")
    assert "revoked before" in again.stderr


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--tenant", "no spaces here"], "tenant"),
        (["--requests-per-minute", "0"], "requests_per_minute"),
        (["--expires", "-1"], "expires_in_days"),
        (["--models", ","], "models"),
        (["--admin", "--metrics"], "not allowed with"),
    ],
)
def test_key_that_makes_no_sense_is_not_made(tmp_path: Path, argv: list[str], words: str) -> None:
    path, _ = configuration(tmp_path)
    done = wattgate("key", "create", *argv, "--config", str(path))
    assert done.returncode == 2
    assert words in done.stderr
    assert key(path, "list") == []


def test_address_that_others_reach_needs_a_key_and_the_refusal_says_how_to_make_it(tmp_path: Path) -> None:
    path, _ = configuration(
        tmp_path, gateway={"host": "0.0.0.0", "port": free_port()}, control={"host": "0.0.0.0", "port": free_port()}
    )
    up = [sys.executable, "-m", "server", "up", "--config", str(path)]
    for said in (
        wattgate("check", str(path)),
        subprocess.run(up, capture_output=True, text=True, timeout=BOUND_S, check=False),
    ):
        assert said.returncode == 2
        assert "gateway.host: 0.0.0.0 is not a loopback address" in said.stderr
        assert "wattgate key create --config FILE" in said.stderr
        assert "wattgate key create --admin --config FILE" in said.stderr
    key(path, "create")
    key(path, "create", "--admin")
    assert wattgate("check", str(path)).returncode == 0


# --- while a gateway runs ---------------------------------------------------------------------------------------------


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Fleet]:
    running = start(*configuration(tmp_path), tmp_path / "up.log")
    try:
        running.wait_ready(BOUND_S)
        yield running
    finally:
        stop(running)


def ask(gateway: Fleet, secret: str | None = None, header: str = "authorization", **more: Any) -> httpx.Response:
    headers = {} if secret is None else {header: f"Bearer {secret}" if header == "authorization" else secret}
    body = chat("demo", **more)
    return httpx.post(f"{gateway.gateway}/v1/chat/completions", json=body, headers=headers, timeout=BOUND_S)


def becomes(gateway: Fleet, status: int, secret: str | None = None) -> None:
    wait_until(lambda: ask(gateway, secret).status_code == status, bound_s=BOUND_S, what=f"status {status}")


def test_first_key_closes_the_gateway_and_a_revoked_one_is_refused(gateway: Fleet) -> None:
    assert ask(gateway).status_code == 200
    first, second = key(gateway.config, "create"), key(gateway.config, "create")
    becomes(gateway, 200, second["secret"])
    assert ask(gateway, first["secret"], "x-api-key").status_code == 200
    nobody, stranger = ask(gateway), ask(gateway, "wg-unknown")
    assert (nobody.status_code, stranger.status_code) == (401, 401)
    assert nobody.headers["www-authenticate"] == "Bearer"
    assert nobody.json()["error"]["message"] != stranger.json()["error"]["message"]
    assert "wg-unknown" not in stranger.text
    key(gateway.config, "revoke", first["id"])
    becomes(gateway, 401, first["secret"])
    assert ask(gateway, second["secret"]).status_code == 200
    key(gateway.config, "revoke", second["id"])
    becomes(gateway, 401, second["secret"])
    assert ask(gateway).status_code == 401


def test_keys_outlive_the_control_plane(gateway: Fleet) -> None:
    secret = key(gateway.config, "create")["secret"]
    becomes(gateway, 401)
    gateway.find("server.control").kill()
    assert ask(gateway).status_code == 401
    assert ask(gateway, secret).status_code == 200
    wait_until(gateway.ready, bound_s=BOUND_S, what="the next control plane is ready")
    assert ask(gateway).status_code == 401
    assert ask(gateway, secret).status_code == 200


def test_control_port_closes_with_the_first_admin_key(gateway: Fleet) -> None:
    admin = key(gateway.config, "create", "--admin")["secret"]
    metrics = key(gateway.config, "create", "--metrics", admin_key=admin)["secret"]
    refused = wattgate("status", "--config", str(gateway.config))
    assert refused.returncode == 2
    assert "WATTGATE_ADMIN_KEY" in refused.stderr
    assert wattgate("status", "--config", str(gateway.config), admin_key=admin).returncode == 0
    assert wattgate("status", "--config", str(gateway.config), "--admin-key", admin).returncode == 0
    url = f"{gateway.control}/metrics"
    assert httpx.get(url, timeout=BOUND_S).status_code == 401
    assert httpx.get(url, headers={"authorization": f"Bearer {metrics}"}, timeout=BOUND_S).status_code == 200
    assert httpx.get(f"{gateway.control}/health", timeout=BOUND_S).status_code == 200
    last = wattgate("key", "revoke", _id_of(gateway, admin), "--config", str(gateway.config), admin_key=admin)
    assert last.returncode == 2
    assert "last admin key" in last.stderr


def _id_of(gateway: Fleet, admin: str) -> str:
    return next(str(one["id"]) for one in key(gateway.config, "list", admin_key=admin) if one["kind"] == "admin")
