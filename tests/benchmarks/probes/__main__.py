"""Run every probe on every gateway; the exit status is 1 where Wattgate is wrong in a cell."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.benchmarks import machine
from tests.benchmarks.document import now, write_json, write_section
from tests.benchmarks.peers import PeerMissingError
from tests.benchmarks.probes import bounds, disconnects, failures, framing, requests
from tests.benchmarks.probes.engine import ProbeEngine, answer
from tests.benchmarks.probes.ground import Cell, Ground, Probe
from tests.benchmarks.probes.matrix import Matrix, as_markdown
from tests.benchmarks.targets import Site, Target, ours_config, start_ours, start_target, wait_ready

_REPOSITORY: Final = Path(__file__).parents[3]
_PROBES: Final[Sequence[Probe]] = (
    *disconnects.PROBES,
    *requests.PROBES,
    *framing.PROBES,
    *bounds.PROBES,
    *failures.PROBES,
)
_PROBE_S: Final = 60.0
_RECOVER_S: Final = 3.0
_CLIENT_SILENCE_S: Final = 20
"""Wattgate's idle_timeout_s here; its default, 120 s, is longer than the probes wait."""


def title(probe: Probe) -> str:
    """A probe's name in the matrix: its docstring."""
    return (probe.__doc__ or "").strip()


async def _matrix(names: Sequence[str], chosen: str, site_of: Mapping[str, Path]) -> tuple[Matrix, dict[str, str]]:
    matrix: Matrix = {}
    left_out: dict[str, str] = {}
    for name in names:
        async with ProbeEngine().running() as engine:
            site = Site(folder=site_of["folder"], cache=site_of["cache"], engine=engine.port, core=None)
            try:
                matrix[name] = await _column(name, site, engine, chosen)
            except PeerMissingError as exc:
                left_out[name] = str(exc)
                print(f"left out: {name}: {exc}", flush=True)
    return matrix, left_out


async def _column(name: str, site: Site, engine: ProbeEngine, chosen: str) -> dict[str, Cell]:
    """All cells of one gateway, which is started anew when a probe has left it unable to serve."""
    target = await asyncio.to_thread(_start, name, site)
    cells: dict[str, Cell] = {}
    slow = {}
    try:
        slow = {
            title(probe): asyncio.create_task(_cell(probe, Ground(target, ProbeEngine())))
            for probe in bounds.SLOW_PROBES
            if chosen in title(probe)
        }
        for probe in _PROBES:
            if chosen not in title(probe):
                continue
            if not await _serves(Ground(target, engine)):
                cells |= {titled: await task for titled, task in slow.items()}
                await asyncio.to_thread(target.stop)
                target = await asyncio.to_thread(_start, name, site)
            cells[title(probe)] = await _cell(probe, Ground(target, engine))
            _say(name, probe, cells[title(probe)])
        cells |= {titled: await task for titled, task in slow.items()}
    finally:
        for task in slow.values():
            task.cancel()
        await asyncio.to_thread(target.stop)
    return cells


def _start(name: str, site: Site) -> Target:
    if name != "ours":
        return start_target(name, site)
    target = start_ours(site, ours_config(site, idle_timeout_s=_CLIENT_SILENCE_S))
    try:
        wait_ready(target)
    except TimeoutError as exc:
        target.stop()
        raise PeerMissingError("`wattgate up` does not serve") from exc
    target.find_parts()
    return target


async def _serves(ground: Ground) -> bool:
    """Whether a plain request is answered, soon."""
    for _ in range(int(_RECOVER_S / 0.25)):
        got = await ground.ask(ground.chat(), script=answer(), bound_s=5.0)
        if got.status == 200:
            return True
        await asyncio.sleep(0.25)
    return False


async def _cell(probe: Probe, ground: Ground) -> Cell:
    """A probe that cannot be made is wrong, and says why."""
    try:
        async with asyncio.timeout(_PROBE_S + 20):
            return await probe(ground)
    except (TimeoutError, OSError, ValueError) as exc:
        return Cell(False, f"{type(exc).__name__} {exc}".strip())


def _say(name: str, probe: Probe, cell: Cell) -> None:
    print(f"{name:12s} {'right' if cell.right else 'WRONG':6s} {title(probe)}: {cell.note}", flush=True)


def main() -> int:
    """Probe, print, write; see the module's first line."""
    parser = argparse.ArgumentParser(prog="make probes", description=__doc__)
    parser.add_argument("--only", type=lambda text: text.split(","), default=["ours", "vllm-router", "smg", "litellm"])
    parser.add_argument("--probe", default="", help="only the probes whose title has this in it")
    parser.add_argument("--cache", type=Path, default=_REPOSITORY / ".bench", help="where peers are installed")
    parser.add_argument("--write", action="store_true", help="write results/probes.json and docs/benchmarks.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wattgate-probes-") as folder:
        sites = {"folder": Path(folder), "cache": options.cache}
        matrix, left_out = asyncio.run(_matrix(options.only, options.probe, sites))
    text = as_markdown(matrix, left_out, f"{now()}, commit {machine.describe()['commit']}.")
    print(text)
    if options.write:
        write_section("probes", text)
        cells = {
            name: {row: [cell.right, cell.note] for row, cell in column.items()} for name, column in matrix.items()
        }
        write_json("probes", {"machine": machine.describe(), "left_out": left_out, "cells": cells})
    ours = matrix.get("ours", {})
    wrong = [row for row, cell in ours.items() if not cell.right]
    print(f"ours: {len(ours) - len(wrong)} of {len(ours)} right" + "".join(f"\n  wrong: {row}" for row in wrong))
    return 1 if wrong or not ours else 0


if __name__ == "__main__":
    sys.exit(main())
