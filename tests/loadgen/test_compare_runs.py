"""`wattgate compare` from plan to verdict, with a load whose truth is known."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loadgen._compare._analysis import MAX_GOODPUT, analyse
from loadgen._compare._campaign import Campaign
from loadgen._compare._design import TWIN, Level, Run, block_of
from loadgen._compare._main import Places, main
from loadgen._compare._metrics import METRICS
from loadgen._compare._plan_file import read_plan
from loadgen._compare._reading import Figures, read_figures
from loadgen._compare._statistics import Outcome
from loadgen._compare._store import Store
from loadgen._compare._target import GivenTarget
from loadgen._demo._processes import Children
from tests.fakes.timed_engine import timed_engine
from tests.loadgen.run_compare import places
from tests.loadgen.scripted_load import main as scripted_load

BOUND_S = 90.0
RUN_COMPARE = Path(__file__).with_name("run_compare.py")

MODELS = {
    "demo:bf16": {"tokens_per_s": 400.0, "itl_s": 0.020, "ttft_s": 0.060, "joules": 0.050},
    "demo:int8": {"tokens_per_s": 840.0, "itl_s": 0.0095, "ttft_s": 0.060, "joules": 0.023},
}
PLAN = """\
host: http://127.0.0.1:9
configurations:
  bf16: {model: "demo:bf16"}
  int8: {model: "demo:int8"}
load: {closed: [8]}
metrics: [tokens_per_s, joules_per_token, ttft_p50, itl_p50]
"""
LADDER = PLAN.replace("{closed: [8]}", '{rates: {percent_of_capacity: [10, 50, 100]}, slo: "ttft=200ms"}').replace(
    "itl_p50]", "itl_p50, goodput]"
)


class Comparison:
    """A folder with a plan and the truth that the scripted load follows."""

    def __init__(self, folder: Path, *, plan: str = PLAN, **truth: Any) -> None:
        self.folder = folder
        self.plan, self.truth = folder / "plan.yaml", folder / "truth.json"
        self.plan.write_text(plan, encoding="utf-8")
        self.set(**truth)

    def set(self, *, models: Mapping[str, Any] = MODELS, **truth: Any) -> None:
        self.truth.write_text(json.dumps({"noise": 0.01, "drift": 0.1, "models": models, **truth}), encoding="utf-8")

    def fill(self, blocks: int = 8) -> Comparison:
        """Have the runs of these blocks done without a process for each."""
        plan = read_plan(self.plan)
        store = Store(self.folder / "out", plan)
        store.save()
        for block in range(1, blocks + 1):
            for run in block_of(
                block, configurations=plan.names, levels=plan.fixed_levels(), seed=plan.seed, restarts=plan.restarts
            ):
                folder, model = store.run_folder(run), plan.configuration(run.configuration.removesuffix(TWIN)).model
                options = ["--output", folder, "--salt", run.key, "--seed", plan.seed + block, "--models", model]
                scripted_load(str(self.truth), *map(str, options))
                store.finish(run, read_figures(folder, model))
        self.before = len(self.started)
        return self

    def run(self, *options: str) -> Told:
        """In this process; the loads are processes."""
        console = Console(file=io.StringIO(), width=80, force_terminal=False)
        argv = [str(self.plan), "--output", str(self.folder / "out"), *options]
        status = main(argv, places=places(self.truth), console=console)
        assert isinstance(console.file, io.StringIO)
        return Told(status=status, text=console.file.getvalue())

    @property
    def started(self) -> list[str]:
        """Every load that was started: folder, salt, seed, model."""
        file = self.folder / "started.txt"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    @property
    def results(self) -> Any:
        return json.loads((self.folder / "out" / "results.json").read_text(encoding="utf-8"))

    @property
    def sentences(self) -> str:
        return " ".join(self.results["verdict"])

    def finding(self, metric: str) -> Any:
        return next(
            one for one in self.results["findings"] if (one["configuration"], one["metric"]) == ("int8", metric)
        )


@dataclass(frozen=True, kw_only=True)
class Told:
    """What compare said and ended with."""

    status: int
    text: str

    @property
    def flat(self) -> str:
        """Without the folds of a narrow terminal."""
        return " ".join(self.text.split())


def test_true_ratios_are_found_and_the_reference_equals_itself(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path)
    told = comparison.run()
    assert told.status == 0, told.text
    assert comparison.results["trust"] == "equal"
    for metric, truth in (("tokens_per_s", 2.1), ("joules_per_token", 0.46), ("itl_p50", 0.475)):
        found = comparison.finding(metric)
        assert found["outcome"] == "differs"
        # One interval in twenty misses, and then by little: how often is tested where draws cost nothing.
        assert found["estimate"]["low"] * 0.99 <= truth <= found["estimate"]["high"] * 1.01
        assert found["estimate"]["high"] / found["estimate"]["low"] < 1.05
    assert comparison.finding("ttft_p50")["outcome"] == "equivalent"
    assert "A/A (bf16 against itself): equal within ± 5 % in every metric." in told.text
    assert "tokens/s (2." in comparison.sentences
    assert "no difference beyond ± 5 % in TTFT p50." in comparison.sentences
    assert max(map(len, told.text.splitlines())) <= 80
    for name in ("report.html", "results.md"):
        assert "int8 against bf16" in (tmp_path / "out" / name).read_text(encoding="utf-8")
    _check_the_design(comparison)


def _check_the_design(comparison: Comparison) -> None:
    """Runs of a block share lengths and arrivals (the seed) but no text (the salt)."""
    runs = [line.split() for line in comparison.started]
    assert len(runs) == 8 * 3
    seeds: dict[str, set[str]] = {}
    for key, _, seed, _ in runs:
        seeds.setdefault(key[:3], set()).add(seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len(set.union(*seeds.values())) == 8
    assert len({salt for _, salt, _, _ in runs}) == len(runs)


def test_a_twin_that_differs_makes_all_of_it_not_trustworthy(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path, twin=1.3).fill()
    told = comparison.run()
    assert told.status == 3
    assert comparison.results["trust"] == "NOT TRUSTWORTHY"
    assert "NOT TRUSTWORTHY. A/A (bf16 against itself)" in told.flat


def test_a_ladder_is_a_part_of_the_largest_capacity(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path, plan=LADDER, sleep_s=0.0)
    plan = read_plan(comparison.plan)
    store = Store(tmp_path / "out", plan)
    with Children() as children:
        campaign = Campaign(
            plan=plan,
            store=store,
            target=GivenTarget(host="http://127.0.0.1:9", control=None),
            children=children,
            console=Console(file=io.StringIO()),
            root=tmp_path,
            locust=places(comparison.truth).locust,
        )
        ladder = campaign.levels(None)
    assert [level.value for level in ladder] == [5.25, 26.2, 52.5]
    assert [line.split()[0] for line in comparison.started] == ["b00-closed-16-bf16", "b00-closed-16-int8"]


def test_over_a_ladder_goodput_is_compared_at_the_slo(tmp_path: Path) -> None:
    levels = [Level(loop="open", value=rate) for rate in (2.0, 4.0, 8.0)]
    plan = read_plan(Comparison(tmp_path, plan=LADDER).plan)
    good = {"bf16": (2.0, 3.0, 0.0), "bf16 (A/A)": (2.0, 3.0, 0.0), "int8": (2.0, 4.0, 6.0)}
    figures = {
        Run(block=block, level=level, configuration=name): _figures(goodput=rates[number] * (1 + block / 1000))
        for block in range(1, 9)
        for name, rates in good.items()
        for number, level in enumerate(levels)
    }
    analysis = analyse(plan, levels, figures)
    best = analysis.finding("int8", MAX_GOODPUT, None)
    assert best is not None
    assert best.estimate is not None
    assert best.estimate.ratio == pytest.approx(2.0)
    assert best.outcome is Outcome.DIFFERS
    at_the_top = analysis.finding("int8", "goodput", levels[2])
    assert at_the_top is not None
    assert at_the_top.estimate is None
    assert "0 for bf16 in 8 of 8 blocks" in str(at_the_top.missing)


def _figures(**values: float) -> Figures:
    return Figures(
        values={**dict.fromkeys(METRICS), **values},
        requests=200,
        failed=0,
        served_by=(),
        joules_scopes=(),
        cached_share=None,
        rate_verdict="valid",
        notes=(),
    )


def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path).fill(blocks=7)
    comparison.set(sleep_s=30)
    process = subprocess.Popen(
        [sys.executable, str(RUN_COMPARE), str(comparison.truth), str(comparison.plan), "--output", tmp_path / "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait_until(lambda: len(comparison.started) > comparison.before)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=BOUND_S)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert len(list((tmp_path / "out").rglob("figures.json"))) == 21
    comparison.set()
    told = comparison.run()
    assert told.status == 0, told.text
    again = [line.split()[0] for line in comparison.started[comparison.before + 1 :]]
    assert len(again) == 3
    assert all(key.startswith("b08-") for key in again)


def test_a_finished_comparison_is_only_told_again(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path).fill()
    assert comparison.run().status == 0
    first = comparison.results
    assert comparison.run().status == 0
    assert len(comparison.started) == comparison.before
    assert comparison.results == first


def test_runs_of_a_changed_plan_are_not_mixed_with_those_before(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path).fill()
    comparison.plan.write_text(PLAN.replace("closed: [8]", "closed: [4]"), encoding="utf-8")
    told = comparison.run()
    assert told.status == 2
    assert "changed since: load.closed" in told.flat


def test_more_blocks_are_run_where_the_first_ones_scatter(tmp_path: Path) -> None:
    plan = PLAN + "blocks: {at_least: 8, at_most: 9, half_width: 0.012}\n"
    comparison = Comparison(tmp_path, plan=plan, noise=0.03).fill()
    told = comparison.run()
    assert comparison.results["blocks"] == 9
    assert "9 blocks in all" in told.text


def test_no_more_blocks_are_run_than_are_needed(tmp_path: Path) -> None:
    plan = PLAN + "blocks: {at_least: 8, at_most: 40, half_width: 0.05}\n"
    comparison = Comparison(tmp_path, plan=plan).fill()
    comparison.run()
    assert comparison.results["blocks"] == 8
    assert len(comparison.started) == comparison.before


def test_a_regression_ends_with_status_1_and_no_change_with_0(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path).fill()
    comparison.run()
    stored = comparison.results
    baseline = tmp_path / "baseline.json"
    for factor, status in ((1.0, 0), (1.6, 1), (0.5, 0)):
        changed = json.loads(json.dumps(stored))
        for entry in changed["samples"]:
            if (entry["configuration"], entry["metric"]) == ("int8", "itl_p50"):
                entry["values"] = [value / factor for value in entry["values"]]
        baseline.write_text(json.dumps(changed), encoding="utf-8")
        told = comparison.run("--baseline", str(baseline))
        assert told.status == status, told.text
        assert ("REGRESSION: int8, ITL p50" in told.flat) == bool(status)
        assert ("No regression" in told.flat) != bool(status)


def test_a_baseline_of_another_load_is_refused(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path).fill()
    comparison.run()
    stored = str(tmp_path / "out" / "results.json")
    other = Comparison(tmp_path, plan=PLAN.replace("closed: [8]", "closed: [4]"))
    told = other.run("--baseline", stored)
    assert told.status == 2
    assert "another load" in told.flat
    told = other.run("--baseline", str(other.plan))
    assert told.status == 2
    assert "is no results.json" in told.flat
    assert len(other.started) == comparison.before


def test_failed_requests_stand_beside_the_verdict(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path, fail=10).fill()
    comparison.run()
    assert "80 of 1600 requests failed (5 %)" in comparison.sentences


def test_a_load_in_which_everything_fails_stops_the_comparison(tmp_path: Path) -> None:
    told = Comparison(tmp_path, fail=200).run()
    assert told.status == 3
    assert "all 200 requests failed" in told.flat


def test_what_is_not_valid_in_a_run_is_not_compared(tmp_path: Path) -> None:
    models = {**MODELS, "demo:int8": {**MODELS["demo:int8"], "itl_verdict": "n/a"}}
    comparison = Comparison(tmp_path, models=models).fill()
    comparison.run()
    assert comparison.finding("itl_p50")["estimate"] is None
    assert "not known: ITL p50 (unknown for int8" in comparison.sentences


def test_check_only_says_what_would_be_done(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path)
    told = comparison.run("--check")
    assert told.status == 0
    assert "24 runs" in told.flat
    assert not comparison.started
    assert not (tmp_path / "out").exists()


def test_a_gateway_of_its_own_is_reconfigured_where_engine_options_change(tmp_path: Path, root: Path) -> None:
    config = root / "deploy" / "examples" / "demo.yaml"
    plan = PLAN.replace("host: http://127.0.0.1:9", f"config: {config}").replace(
        '{model: "demo:int8"}', '{model: "demo:bf16", engine_options: {max_num_seqs: 4}}'
    )
    comparison = Comparison(tmp_path, plan=plan).fill(blocks=6)
    told = comparison.run()
    assert told.status in {0, 3}, told.text
    assert len(comparison.started) == comparison.before + 6
    reloads = (tmp_path / "reloads.txt").read_text(encoding="utf-8").splitlines()
    # Two blocks: the one with other options stands first, last or between the reference and its twin.
    assert 2 <= len(reloads) <= 5
    assert "No ranks and no quality: configurations share an engine" in told.flat


def test_figures_of_a_real_locust_are_read(tmp_path: Path, root: Path) -> None:
    plan_file = tmp_path / "plan.yaml"
    with timed_engine() as engine, Children() as children:
        plan_file.write_text(
            f"host: {engine.url}\nconfigurations:\n  plain: {{model: plain}}\n  steady: {{model: steady}}\n"
            "load: {closed: [4], run_time_s: 30, warm_up_s: 0, requests: 24, slo: 'ttft=9s',\n"
            "       options: {output-tokens: 4}}\n",
            encoding="utf-8",
        )
        plan = read_plan(plan_file)
        store = Store(tmp_path / "out", plan)
        campaign = Campaign(
            plan=plan,
            store=store,
            target=GivenTarget(host=engine.url, control=None),
            children=children,
            console=Console(file=io.StringIO()),
            root=root,
            locust=Places().locust,
        )
        run = Run(block=1, level=plan.fixed_levels()[0], configuration="steady")
        figures = campaign.measured(run)
    assert (figures.requests, figures.failed, figures.served_by) == (24, 0, ("steady",))
    assert figures.values["tokens_per_s"]
    assert figures.values["goodput"]
    assert figures.values["e2e_p50"]
    assert figures.values["joules_per_token"] is None
    assert store.finished(run) == figures


def test_the_command_is_handed_over(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "server", "compare", "deploy/examples/plans/demo.yaml", "--check"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "int8 against bf16, and bf16 against itself" in done.stdout


def _wait_until(condition: Any) -> None:
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
