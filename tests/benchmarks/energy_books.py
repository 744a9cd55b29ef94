"""Whether the energy books close: accounts, counters, ledger and single requests, in integer microjoules."""

from __future__ import annotations

import csv
import io
import re
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, Final

import httpx

from loadgen._energy import settled_counters

__all__ = ["Books", "close_books"]

_MICRO: Final = 1e6
_SETTLE_S: Final = 90.0
_EQUAL_WITHIN_S: Final = 30.0
_POLL_S: Final = 0.1
_GROUPS: Final = ("tenant", "adapter", "variant", "engine", "model")
_ACCOUNTS: Final = ("active", "idle", "unattributed", "other")
_REQUESTS: Final = re.compile(r"^wattgate_requests_total\{[^}]*\} (\S+)", re.MULTILINE)
_TOKENS: Final = re.compile(r'^wattgate_tokens_total\{[^}]*kind="(\w+)"[^}]*\} (\S+)', re.MULTILINE)
_JOULES: Final = re.compile(
    r'^wattgate_energy_joules_total\{(?=[^}]*account="active")[^}]*engine="([^"]+)"[^}]*\} (\S+)', re.MULTILINE
)
_RELATIVE: Final = 1e-9
"""A metric is a float of joules: fifteen digits."""

Books = Mapping[str, Any]


def close_books(control: str, *, began: float) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Once all is settled: what the books say, and the records since `began` (seconds since 1970)."""
    _, settled = settled_counters(control, ended_at=time.monotonic(), wait_s=_SETTLE_S)
    wrong = [] if settled else [f"after {_SETTLE_S:g} s there are windows that are not closed"]
    ledger, live = _equal(control)
    wrong += [] if live else [f"within {_EQUAL_WITHIN_S:g} s the ledger never said what the counters said"]
    live = live or _energy(control)
    accounts = live["microjoules"]["accounts"]
    meter = sum(live["microjoules"]["devices"].values())
    if sum(accounts.values()) != meter:
        wrong.append(f"accounts less meter is {sum(accounts.values()) - meter} µJ")
    rows = _records(control, began)
    single = sum(round(float(row["joules"]) * _MICRO) for row in rows if row["joules"])
    if single != accounts["active"]:
        wrong.append(f"single requests less the account `active` is {single - accounts['active']} µJ")
    wrong += _against_metrics(control, ledger)
    books = {
        "meter_microjoules": meter,
        "accounts_microjoules": dict(accounts),
        "requests_microjoules": single,
        "ledger_microjoules": {account: ledger["total"]["microjoules"][account] for account in _ACCOUNTS},
        "requests": len(rows),
        "unknown": sum(not row["joules"] for row in rows),
        "not_whole": sum(row["whole"] == "false" for row in rows),
        "prices": live["prices"],
        "method": live["method"],
        "confidence": live["confidence"],
        "saved_by_cancellation_joules": sum(each["joules"] for each in live["saved_by_cancellation"]),
    }
    return {**books, "wrong": wrong}, rows


def _equal(control: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The ledger's sums, and the counters that they equal in all accounts; None: they never did.

    Idle joules come with every window, and reach the ledger a moment later: so its sums are looked for among the
    counters seen so far.
    """
    seen: dict[tuple[int, ...], dict[str, Any]] = {}
    until = time.monotonic() + _EQUAL_WITHIN_S
    while True:
        live = _energy(control)
        seen[tuple(live["microjoules"]["accounts"][account] for account in _ACCOUNTS)] = live
        ledger = _energy(control, by="engine")
        key = tuple(ledger["total"]["microjoules"][account] or 0 for account in _ACCOUNTS)
        if key in seen or time.monotonic() > until:
            return ledger, seen.get(key)
        time.sleep(_POLL_S)


def _against_metrics(control: str, ledger: Mapping[str, Any]) -> list[str]:
    """Requests, tokens and active joules of the ledger, by every label, against `/metrics`."""
    text = httpx.get(f"{control}/metrics", timeout=20).text
    requests = sum(float(value) for value in _REQUESTS.findall(text))
    tokens: Counter[str] = Counter()
    for kind, value in _TOKENS.findall(text):
        tokens[kind] += round(float(value))
    wrong = []
    for label in _GROUPS:
        total = _energy(control, by=label)["total"]
        found = (total["requests"], total["output_tokens"] or 0, total["prompt_tokens"] or 0)
        if found != (requests, tokens["output"], tokens["prompt"]):
            wrong.append(f"by {label} the ledger has {found} requests and tokens, /metrics {requests:.0f}, {tokens}")
    joules: defaultdict[str, float] = defaultdict(float)
    for engine, value in _JOULES.findall(text):
        joules[engine] += float(value)
    for row in ledger["rows"]:
        counted, booked = joules[row["engine"]], row["joules"]["active"] or 0.0
        if abs(counted - booked) > _RELATIVE * max(counted, booked):
            wrong.append(f"{row['engine']}: {booked} J in the ledger, {counted} J in /metrics")
    return wrong


def _energy(control: str, **query: str) -> dict[str, Any]:
    answer = httpx.get(f"{control}/api/energy", params=query, timeout=20)
    answer.raise_for_status()
    return dict(answer.json())


def _records(control: str, began: float) -> list[dict[str, str]]:
    answer = httpx.get(f"{control}/api/requests.csv", params={"from": f"{began:.3f}"}, timeout=60)
    answer.raise_for_status()
    return list(csv.DictReader(io.StringIO(answer.text)))
