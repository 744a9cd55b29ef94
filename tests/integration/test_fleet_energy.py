"""Joules of requests to three real engines: on answers, in the ledger, in tables."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.integration.fleet import THIRD, Fleet, chat, wait_until

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

JOULES = "x-wattgate-energy-joules"


def new_id() -> str:
    return f"energy-{secrets.token_hex(6)}"


def ask(fleet: Fleet, model: str, *, id_: str | None = None, **more: Any) -> httpx.Response:
    """A request for a fixed number of tokens; the prompt is new each time, so no prefix cache holds it."""
    body = chat(model, f"{secrets.token_hex(8)}: what does json.dumps do?", ignore_eos=True, **more)
    headers = {"x-request-id": id_ or new_id(), "x-wattgate-energy": "include"}
    answer = httpx.post(f"{fleet.gateway}/v1/chat/completions", json=body, headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer


def leave(fleet: Fleet, model: str, *, id_: str, after: int, **more: Any) -> None:
    """Take some chunks of a stream, then go."""
    body = chat(model, f"{secrets.token_hex(8)}: what does json.dumps do?", ignore_eos=True, stream=True, **more)
    with httpx.stream(
        "POST", f"{fleet.gateway}/v1/chat/completions", json=body, headers={"x-request-id": id_}, timeout=120
    ) as answer:
        for _, line in zip(range(2 * after), answer.iter_lines(), strict=False):  # a blank line follows each event
            assert line == "" or line.startswith("data: ")


def final(fleet: Fleet, id_: str) -> dict[str, Any]:
    """What the ledger says, once the request's energy is final."""

    def known() -> dict[str, Any] | None:
        answer = httpx.get(f"{fleet.control}/api/requests/{id_}", timeout=10)
        found = answer.json() if answer.status_code == 200 else {}
        return dict(found) if found.get("final") else None

    found = wait_until(known, bound_s=30, what=f"the energy of {id_} is final")
    return dict(found)


def wait_for_prices(fleet: Fleet, model: str) -> None:
    """Until the gateway knows what a token costs at the model's engine."""
    wait_until(lambda: JOULES in ask(fleet, model).headers, bound_s=30, what=f"a price of {model}")


def wattgate(fleet: Fleet, *arguments: str, control: bool = True) -> str:
    where = ("--control", fleet.control) if control else ()
    said = subprocess.run(
        [sys.executable, "-m", "server", *arguments, *where],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"COLUMNS": "80", "PATH": "/usr/bin:/bin"},
    )
    assert said.returncode == 0, said.stderr
    assert max(map(len, said.stdout.splitlines())) <= 80
    return said.stdout


def test_whole_answer_tells_its_joules_and_the_ledger_its_final_ones(fleet: Fleet) -> None:
    wait_for_prices(fleet, "demo:int8")
    id_ = new_id()
    answer = ask(fleet, "demo:int8", id_=id_)
    provisional = float(answer.headers[JOULES])
    assert answer.headers["x-wattgate-engine"] == "demo-int8"
    note = answer.json()["usage"]["wattgate"]
    assert (note["energy_joules"], note["scope"], note["provisional"]) == (provisional, "estimated", True)
    record = final(fleet, id_)
    energy = record["energy"]
    assert energy["whole"]
    assert energy["scope"] == "estimated"
    assert energy["microjoules"] == round(1e6 * (energy["prefill_joules"] + energy["decode_joules"]))
    assert provisional / 5 < energy["joules"] < provisional * 5  # a price is a mean over a minute of all batch sizes


def test_stream_that_asks_for_it_ends_with_its_joules(fleet: Fleet) -> None:
    wait_for_prices(fleet, "demo:bf16")
    lines = ask(fleet, "demo:bf16", stream=True).text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    *tokens, last = events
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 32
    assert last["usage"]["wattgate"]["energy_joules"] > 0
    assert last["usage"]["wattgate"]["provisional"]
    assert not any("wattgate" in json.dumps(event) for event in tokens)


def test_ledger_and_counters_agree_to_the_microjoule(fleet: Fleet) -> None:
    models = ["demo:bf16", "demo:int8", f"demo:{THIRD}", "json:bf16", f"code:{THIRD}", "demo:int8"]
    ids = [new_id() for _ in models]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda pair: ask(fleet, pair[0], id_=pair[1], max_tokens=16), zip(models, ids, strict=True)))
    assert all(final(fleet, id_)["energy"]["microjoules"] > 0 for id_ in ids)
    seen: set[tuple[int, ...]] = set()

    def equal() -> bool:
        live = httpx.get(f"{fleet.control}/api/energy", timeout=10).json()["microjoules"]
        assert sum(live["accounts"].values()) == sum(live["devices"].values())
        seen.add(tuple(live["accounts"].values()))
        ledger = httpx.get(f"{fleet.control}/api/energy", params={"by": "variant"}, timeout=10).json()
        assert {row["variant"] for row in ledger["rows"] if row["joules"]["active"]} == {"bf16", "int8", THIRD}
        booked = ledger["total"]["microjoules"]
        return tuple(booked[account] or 0 for account in live["accounts"]) in seen

    wait_until(equal, bound_s=30, what="the ledger says what the counters said")


def test_cancelled_stream_is_charged_less_than_its_twin(fleet: Fleet) -> None:
    whole, cut = new_id(), new_id()
    ask(fleet, "demo:bf16", id_=whole, stream=True, max_tokens=160)
    leave(fleet, "demo:bf16", id_=cut, after=40, max_tokens=160)
    cancelled = final(fleet, cut)
    assert cancelled["outcome"] == "cancelled"
    assert cancelled["tokens_spared"] > 0
    assert 0 < cancelled["energy"]["microjoules"] < 0.75 * final(fleet, whole)["energy"]["microjoules"]
    saved = httpx.get(f"{fleet.control}/api/energy", timeout=10).json()["saved_by_cancellation"]
    assert next(row["joules"] for row in saved if row["engine"] == "demo-bf16") > 0


def test_tables_of_energy_and_efficiency_fit_eighty_columns(fleet: Fleet) -> None:
    ask(fleet, "demo:int8", max_tokens=8)
    report = wattgate(fleet, "energy", "report", "--by", "variant,adapter")
    assert "int8" in report
    assert "Joules are estimated" in report
    efficiency = wattgate(fleet, "efficiency")
    for row in ("AMU", "PCU", "AL", "AT", "AEC", "MCR", "energy/output token"):
        assert row in efficiency
    assert "estimated" in wattgate(fleet, "meter", "watch", "--once", control=False)
