"""Energy end to end on the demo's real engines: `python -m tests.benchmarks.energy [--minutes 2] [--write]`.

A mixed load first, then blocks that differ in one thing only, in random order; at last the books are closed. Engines
have one part of the machine, the gateway and this client the other. On a machine without an energy counter joules are
estimated from CPU time: figures compare configurations, and are no measurement of a device.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from tests.benchmarks import machine, processes
from tests.benchmarks.document import markdown_table, now, write_json, write_section
from tests.benchmarks.energy_blocks import TWINS, comparisons, send_batch
from tests.benchmarks.energy_books import close_books
from tests.benchmarks.energy_figures import charged, figures, methods, wrong_figures
from tests.benchmarks.energy_load import Client, Keys, Mix
from tests.benchmarks.interval import Interval
from tests.integration.fleet import THIRD, Fleet, make_variants, start, stop, write_config

__all__ = ["main"]

_TENANTS: Final = ("alpha", "beta")
_MODELS: Final = ("demo:bf16", "demo:int8", f"demo:{THIRD}", "json:bf16", f"code:{THIRD}")


async def _run(fleet: Fleet, keys: Keys, minutes: float, blocks: int) -> tuple[Client, dict[str, Any]]:
    chance, salt = random.Random(), secrets.token_hex(4)
    async with Client.at(fleet.gateway, keys, f"energy-{salt}") as client:
        mix = Mix(_MODELS, _TENANTS, chance, salt)
        await mix.run(client, 5.0)  # what is only slow the first time
        print(f"mixed load, {minutes:g} minutes", flush=True)
        control = [fleet.find("server.control").pid]
        cpu_ns, began = processes.cpu_ns(control), time.monotonic()
        await mix.run(client, 60 * minutes)
        seconds = time.monotonic() - began
        overhead = {
            "control_cpu_of_a_core": (processes.cpu_ns(control) - cpu_ns) / 1e9 / seconds,
            "control_rss_mb": processes.rss_bytes(control) / 1e6,
            "mix_seconds": seconds,
        }
        parts = comparisons(blocks, chance)
        print(f"{len(parts)} batches that are compared", flush=True)
        for asks in parts:
            await send_batch(client, asks, chance)
    return client, overhead


def _make_keys(fleet: Fleet) -> Keys:
    keys = {}
    for tenant in _TENANTS:
        answer = httpx.post(f"{fleet.control}/api/keys", json={"tenant": tenant}, timeout=30)
        answer.raise_for_status()
        keys[tenant] = str(answer.json()["secret"])
    return keys


def _measure(folder: Path, minutes: float, blocks: int) -> dict[str, Any]:
    print("starting three engines", flush=True)
    make_variants()
    path, config = write_config(folder)
    fleet = start(path, config, folder / "up.log")
    try:
        fleet.wait_ready()
        os.sched_setaffinity(0, {machine.GATEWAY_CORE})
        keys, began, before = _make_keys(fleet), time.time(), psutil.cpu_times()  # noqa: TID251  # the ledger's time
        client, overhead = asyncio.run(_run(fleet, keys, minutes, blocks))
        after = psutil.cpu_times()
        print("closing the books", flush=True)
        books, rows = close_books(fleet.control, began=began)
    finally:
        stop(fleet)
    known = charged(client.asked, rows, client.came)
    found = figures(known)
    tokens = sum(one.tokens for one in known if one.ask.group == "mix")
    return {
        "minutes": minutes,
        "sent": len(client.asked),
        "problems": dict(client.problems),
        "books": books,
        "methods": methods(known),
        "figures": found,
        "provisional_over_final": _provisional(client, rows),
        "overhead": {**overhead, "output_tokens_per_s": tokens / overhead["mix_seconds"]},
        "stolen_share": (after.steal - before.steal) / max(1e-9, sum(after) - sum(before)),
        "wrong": [*books["wrong"], *wrong_figures(found), *_problems(client)],
    }


def _provisional(client: Client, rows: Sequence[Mapping[str, str]]) -> dict[str, Any] | None:
    """What the header said of whole answers, over what the ledger says."""
    final = {row["id"]: float(row["joules"]) for row in rows if row["joules"]}
    ratios = sorted(said / final[id_] for id_, said in client.provisional.items() if final.get(id_))
    if not ratios:
        return None
    count = len(ratios)
    return {"answers": count, "p10": ratios[count // 10], "p50": ratios[count // 2], "p90": ratios[count * 9 // 10]}


def _problems(client: Client) -> list[str]:
    return [f"{count} requests ended with {what}" for what, count in client.problems.items()]


def _as_markdown(found: Mapping[str, Any]) -> str:
    books, values, overhead = found["books"], found["figures"], found["overhead"]
    accounts = books["accounts_microjoules"]
    rows = [
        ["requests", f"{found['sent']:,}"],
        ["meter", f"{books['meter_microjoules']:,} µJ"],
        ["… requests + idle + unattributed + other", " + ".join(f"{amount:,}" for amount in accounts.values())],
        ["… difference", f"{sum(accounts.values()) - books['meter_microjoules']} µJ"],
        ["single requests, from the ledger", f"{books['requests_microjoules']:,} µJ"],
        ["int8 over bf16, J/output token", _shown(values["int8_over_bf16"])],
        ["adapter over base, J/output token, in the same batches", _shown(values["adapter_over_base_together"])],
        ["… in batches of their own", _shown(values["adapter_over_base_apart"])],
        ["base beside adapters, over base alone", _shown(values["base_beside_adapters_over_base"])],
        [f"{TWINS} alike in the same steps: farthest from their mean", _shown_twins(values["twins"])],
        [
            "cancelled, over one that was to be as short from the start",
            _shown(values["cancelled_over_as_short"]),
        ],
        ["method, by joules", ", ".join(f"{name} {share:.0%}" for name, share in found["methods"].items())],
        ["confidence at the end", f"{books['confidence']:.2g}"],
        ["provisional over final, p10 / p50 / p90", _shown_provisional(found["provisional_over_final"])],
        ["control plane", f"{overhead['control_cpu_of_a_core']:.1%} of a core, {overhead['control_rss_mb']:.0f} MB"],
        ["CPU time that the hypervisor took", f"{found['stolen_share']:.1%}"],
    ]
    run = (
        f"{now()}, commit {machine.describe()['commit']}, {found['minutes']:g} minutes of mixed load at "
        f"{overhead['output_tokens_per_s']:.0f} output tokens/s, then blocks. Scope: estimated from CPU time. "
        "Ratios are geometric means over blocks, with 95 % t-intervals."
    )
    verdict = "The books close." if not found["wrong"] else "Wrong: " + "; ".join(found["wrong"]) + "."
    return "\n\n".join([run, markdown_table(["", ""], rows), verdict])


def _shown(value: Interval | None) -> str:
    return "–" if value is None else f"{value}"  # noqa: RUF001  # a dash


def _shown_twins(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "–"  # noqa: RUF001  # a dash
    return f"{value['worst']:.1%}, median {value['median_of_worst']:.1%} of {value['blocks']} blocks"


def _shown_provisional(value: Mapping[str, Any] | None) -> str:
    return "–" if value is None else " / ".join(f"{value[name]:.2f}" for name in ("p10", "p50", "p90"))  # noqa: RUF001


def main() -> int:
    """Measure; the exit status is 1 where the books do not close or a figure is out of bounds."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.energy", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of mixed load; default: %(default)s")
    parser.add_argument("--blocks", type=int, default=8, help="of each comparison; default: %(default)s")
    parser.add_argument("--write", action="store_true", help="write results/energy.json and docs/benchmarks.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wattgate-energy-") as folder:
        found = _measure(Path(folder), options.minutes, options.blocks)
    text = _as_markdown(found)
    print(text)
    if options.write:
        plain = {name: dataclasses.asdict(v) if isinstance(v, Interval) else v for name, v in found["figures"].items()}
        write_json("energy", {"machine": machine.describe(), **found, "figures": plain})
        write_section("energy", text)
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
