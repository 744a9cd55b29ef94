"""`make soak`: minutes of bad manners and dying engines; nothing may leak, and the books must close."""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from tests.benchmarks import machine, processes
from tests.benchmarks.document import markdown_table, now, write_json, write_section
from tests.benchmarks.rounds import slope
from tests.benchmarks.soak_clients import Clients
from tests.benchmarks.targets import Site, Target, free_port, ours_config, start_ours, wait_ready

__all__ = ["main"]

_ENGINES: Final = 2
_CLIENTS: Final = 40
_MAX_SLOPE_MB_PER_MIN: Final = 0.5
_WARM_UP_SHARE: Final = 0.3
"""Of the time, from its start: memory that is taken in this part (caches, pools, metric series) is no leak."""
_SAMPLE_S: Final = 2.0
_SETTLE_S: Final = 30.0
_OUTCOMES: Final = re.compile(r'^wattgate_requests_total\{[^}]*outcome="(\w+)"[^}]*\} (\S+)', re.MULTILINE)
_GAUGES: Final = re.compile(r"^(wattgate_requests_in_flight|wattgate_queue_depth)\S* (\S+)", re.MULTILINE)
_OPEN: Final = frozenset({"ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1", "FIN_WAIT2"})


class _Engines:
    """Engines that are killed now and then, and come back on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = [free_port() for _ in range(_ENGINES)]
        self.processes = [self._start(port) for port in self.ports]
        self.kills = 0

    def _start(self, port: int) -> psutil.Popen:
        argv = [sys.executable, "-m", "tests.benchmarks.soak_engine", str(port)]
        return processes.start(argv, core=None, log=self.folder / "engine.log", cwd=Path(__file__).parents[2])

    async def trouble(self) -> None:
        """Kill one, let it stay away for a while, start it again; until cancelled."""
        while True:
            await asyncio.sleep(random.uniform(5, 15))
            which = random.randrange(_ENGINES)
            self.processes[which].kill()
            self.processes[which].wait()
            self.kills += 1
            await asyncio.sleep(random.uniform(0, 3))
            self.processes[which] = self._start(self.ports[which])

    def running(self) -> int:
        """Answers that the engines still work on."""
        return sum(int(httpx.get(f"http://127.0.0.1:{port}/running", timeout=5).text) for port in self.ports)

    def stop(self) -> None:
        for process in self.processes:
            processes.end(process)


async def _soak(target: Target, engines: _Engines, minutes: float) -> dict[str, Any]:
    clients = Clients(target.port, _CLIENTS)
    samples: list[dict[str, float]] = []
    await asyncio.sleep(2.0)  # the first request, which found it ready, has been counted by then
    before = await _books(target)
    started = time.monotonic()
    work = asyncio.create_task(clients.run())
    trouble = asyncio.create_task(engines.trouble())
    while (passed := time.monotonic() - started) < 60 * minutes:
        samples.append({"minute": passed / 60, **_memory(target)})
        if len(samples) % round(60 / _SAMPLE_S) == 1:
            print(_line(samples[-1], clients, engines), flush=True)
        await asyncio.sleep(_SAMPLE_S)
        if work.done():
            break
    trouble.cancel()
    with suppress(asyncio.CancelledError):
        await trouble
    clients.stopping.set()
    await work
    return {**await _after(target, engines, clients, before), **_slopes(samples), "samples": samples}


async def _after(target: Target, engines: _Engines, clients: Clients, before: Mapping[str, float]) -> dict[str, Any]:
    """What is left once every client has gone, and whether the counters tell what was sent."""
    deadline = time.monotonic() + _SETTLE_S
    sent = sum(clients.sent.values())
    while True:
        await asyncio.sleep(1.0)
        books = {name: value - before.get(name, 0.0) for name, value in (await _books(target)).items()}
        gauges, counted = await _gauges(target), sum(books.values())
        left = {"engine_answers": engines.running(), **_connections(target, engines.ports)}
        if (not any(gauges.values()) and not any(left.values()) and counted == sent) or time.monotonic() > deadline:
            break
    return {
        "sent": sent,
        "counted": counted,
        "outcomes": books,
        "seen": dict(clients.seen),
        "gauges": gauges,
        "left": left,
        "kills": engines.kills,
    }


async def _text(target: Target) -> str:
    assert target.metrics_url is not None
    async with httpx.AsyncClient() as client:
        return (await client.get(target.metrics_url, timeout=10)).text


async def _books(target: Target) -> dict[str, float]:
    """Ended requests by outcome."""
    books: dict[str, float] = {}
    for outcome, count in _OUTCOMES.findall(await _text(target)):
        books[outcome] = books.get(outcome, 0.0) + float(count)
    return books


async def _gauges(target: Target) -> dict[str, float]:
    gauges: dict[str, float] = {}
    for name, value in _GAUGES.findall(await _text(target)):
        gauges[name] = gauges.get(name, 0.0) + float(value)
    return gauges


def _connections(target: Target, engine_ports: Sequence[int]) -> dict[str, int]:
    """Connections of the worker that should not be: of clients, and to engines that have closed them."""
    (worker,) = target.parts["worker"]
    found = [one for one in psutil.Process(worker).net_connections("tcp") if one.status in _OPEN]
    upstream = [one for one in found if one.raddr.port in engine_ports]
    return {
        "client_connections": sum(1 for one in found if one.laddr.port == target.port),
        "half_closed_upstream": sum(1 for one in upstream if one.status != "ESTABLISHED"),
        "upstream_over_peak": max(0, len(upstream) - _CLIENTS - 2 * 60),
    }


def _memory(target: Target) -> dict[str, float]:
    return {part: processes.rss_bytes(target.parts[part]) / 1e6 for part in ("worker", "control")}


def _slopes(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Growth after the warm-up, MB a minute."""
    late = samples[int(len(samples) * _WARM_UP_SHARE) :]
    minutes = [one["minute"] for one in late]
    return {f"{part}_mb_per_min": slope(minutes, [one[part] for one in late]) for part in ("worker", "control")}


def _line(sample: Mapping[str, float], clients: Clients, engines: _Engines) -> str:
    return (
        f"minute {sample['minute']:4.1f}  worker {sample['worker']:.1f} MB  control {sample['control']:.1f} MB  "
        f"sent {sum(clients.sent.values())}  kills {engines.kills}  {dict(clients.seen)}"
    )


def _verdict(found: Mapping[str, Any]) -> list[str]:
    """What is wrong."""
    wrong = [f"{name} is {value:g}, not 0" for name, value in {**found["gauges"], **found["left"]}.items() if value]
    growth = {part: found[f"{part}_mb_per_min"] for part in ("worker", "control")}
    wrong += [f"{part} grows by {mb:.2f} MB a minute" for part, mb in growth.items() if mb > _MAX_SLOPE_MB_PER_MIN]
    if found["sent"] != found["counted"]:
        wrong.append(f"{found['sent']} requests were sent, {found['counted']:.0f} are in the counters")
    bad = {name: count for name, count in found["seen"].items() if name.startswith(("broken", "500", "Timeout"))}
    wrong += [f"clients saw {count} × {name}" for name, count in bad.items()]  # noqa: RUF001
    return wrong


def _as_markdown(found: Mapping[str, Any], minutes: float, wrong: Sequence[str]) -> str:
    def listed(counts: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {count:,.0f}" for name, count in sorted(counts.items()))

    rows = [
        ["requests sent / in the counters", f"{found['sent']:,} / {found['counted']:,.0f}"],
        ["by outcome", listed(found["outcomes"])],
        ["what clients saw", listed(found["seen"])],
        ["engines killed", str(found["kills"])],
        ["worker RSS", f"{found['worker_mb_per_min']:+.2f} MB a minute"],
        ["control plane RSS", f"{found['control_mb_per_min']:+.2f} MB a minute"],
        ["left at the end", listed({**found["gauges"], **found["left"]})],
    ]
    verdict = "Nothing leaked; the books close." if not wrong else "Wrong: " + "; ".join(wrong) + "."
    run = (
        f"{now()}, commit {machine.describe()['commit']}, {minutes:g} minutes, {_CLIENTS} clients, {_ENGINES} engines."
    )
    return "\n\n".join([run, markdown_table(["", ""], rows), verdict])


def main() -> int:
    """Soak; the exit status is 1 where something leaked or the books do not close."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--write", action="store_true", help="write results/soak.json and docs/benchmarks.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wattgate-soak-") as name:
        folder = Path(name)
        engines = _Engines(folder)
        target: Target | None = None
        try:
            target = _start(folder, engines.ports)
            found = asyncio.run(_soak(target, engines, options.minutes))
        finally:
            if target is not None:
                target.stop()
            engines.stop()
    wrong = _verdict(found)
    text = _as_markdown(found, options.minutes, wrong)
    print(text)
    if options.write:
        write_json("soak", {"machine": machine.describe(), **found, "wrong": wrong})
        write_section("soak", text)
    return 1 if wrong else 0


def _start(folder: Path, ports: Sequence[int]) -> Target:
    site = Site(folder=folder, cache=folder, engine=ports[0], core=None)
    config = ours_config(site)
    first = config["engines"][0]
    config["engines"] = [
        {**first, "name": f"soak-{number}", "variant": "bf16", "url": f"http://127.0.0.1:{port}"}
        for number, port in enumerate(ports)
    ]
    target = start_ours(site, config)
    wait_ready(target)
    target.find_parts()
    return target


if __name__ == "__main__":
    sys.exit(main())
