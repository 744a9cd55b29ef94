"""`make bench`: the side-by-side of gateways, in interleaved rounds of one run."""

from __future__ import annotations

import argparse
import gc
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from tests.benchmarks import machine, processes
from tests.benchmarks.document import write_json, write_section
from tests.benchmarks.measure import WrongAnswersError, measure_round
from tests.benchmarks.mock_engine import OPEN_FILES, start_mock_engine
from tests.benchmarks.peers import PeerMissingError
from tests.benchmarks.report import as_figures, as_markdown, round_line
from tests.benchmarks.targets import TARGETS, Site, Target, free_port, start_target, wait_ready

__all__ = ["main"]

_REPOSITORY = Path(__file__).parents[2]


def main() -> int:
    """Measure; the exit status is 1 where nothing of Wattgate could be measured."""
    options = _parse()
    machine.raise_open_files(OPEN_FILES)
    machine.stay_on_load_core()
    gc.collect()
    gc.freeze()
    gc.disable()
    with tempfile.TemporaryDirectory(prefix="wattgate-bench-") as folder:
        engine_port = free_port()
        engine = start_mock_engine(Path(folder, "engine"), port=engine_port, core=machine.LOAD_CORE)
        site = Site(folder=Path(folder), cache=options.cache, engine=engine_port, core=machine.GATEWAY_CORE)
        targets: list[Target] = []
        try:
            wait_ready(Target(name="mock engine", port=engine_port, process=engine))
            targets, left_out = _start(["direct", *options.only], site)
            rounds = uvloop.run(_measure(targets, options.rounds, options.seconds))
        finally:
            for target in targets:
                target.stop()
            processes.end(engine)
    run = {"machine": machine.describe(), "left_out": left_out, "seconds": options.seconds, "rounds": rounds}
    text = as_markdown(run)
    print(text)
    if options.write:
        write_json("bench", {**run, "figures": as_figures(rounds)})
        write_section("side-by-side", text)
    return 0 if any("ours" in one for one in rounds) else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measure of a round")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=[name for name in TARGETS if name != "direct"],
        help="names with commas between, of " + ", ".join(TARGETS) + "; ours@FOLDER is another checkout",
    )
    parser.add_argument("--cache", type=Path, default=_REPOSITORY / ".bench", help="where peers are installed")
    parser.add_argument("--write", action="store_true", help="write results/ and docs/benchmarks.md")
    return parser.parse_args()


def _start(names: Sequence[str], site: Site) -> tuple[list[Target], dict[str, str]]:
    """The targets that run, and why each of the others does not."""
    targets, left_out = [], {}
    for name in dict.fromkeys(names):
        try:
            target = start_target(name, site)
        except PeerMissingError as exc:
            left_out[name] = str(exc)
            print(f"left out: {name}: {exc}", flush=True)
            continue
        if target.process is not None and not processes.on_core(target.process, machine.GATEWAY_CORE):
            raise RuntimeError(f"{name} runs outside its core")
        targets.append(target)
    return targets, left_out


async def _measure(targets: Sequence[Target], count: int, seconds: float) -> list[dict[str, dict[str, float]]]:
    """Rounds over all targets, in a new random order each; the first round warms up and is not kept."""
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(count + 1):
        one: dict[str, dict[str, float]] = {}
        for target in random.sample(targets, len(targets)):
            try:
                one[target.name] = await measure_round(target, seconds=seconds if number else min(seconds, 1.0))
            except WrongAnswersError as exc:
                print(exc, flush=True)
            gc.collect()
        if number:
            rounds.append(one)
            for name, sample in sorted(one.items()):
                print(round_line(number, name, sample), flush=True)
    return rounds


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(status)
