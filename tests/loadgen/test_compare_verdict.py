"""What is said of figures: sentences, the Pareto front, the server's view."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from loadgen._compare._analysis import Analysis, analyse
from loadgen._compare._design import Level, Run, twin_of
from loadgen._compare._metrics import METRICS
from loadgen._compare._pareto import front
from loadgen._compare._plan import ComparePlan
from loadgen._compare._plan_file import read_plan
from loadgen._compare._ranks import ServerView, ask_server
from loadgen._compare._reading import Figures
from loadgen._compare._verdict import interval, ratio, verdict

LEVEL = Level(loop="closed", value=8.0)
NONE = ServerView.none("not asked")
PLAN = """\
host: http://127.0.0.1:9
configurations: {bf16: {model: "demo:bf16"}, int8: {model: "demo:int8"}, json: {model: "json:bf16"}}
load: {closed: [8]}
metrics: [tokens_per_s, joules_per_token, itl_p95]
"""


@pytest.fixture
def plan(tmp_path: Path) -> ComparePlan:
    (tmp_path / "plan.yaml").write_text(PLAN, encoding="utf-8")
    return read_plan(tmp_path / "plan.yaml")


def figures(values: dict[str, float], **more: Any) -> Figures:
    fields: dict[str, Any] = {
        "requests": 100,
        "failed": 0,
        "served_by": (),
        "joules_scopes": (),
        "cached_share": None,
        "rate_verdict": "valid",
        "notes": (),
    }
    return Figures(values={**dict.fromkeys(METRICS), **values}, **{**fields, **more})


def analysed(plan: ComparePlan, means: dict[str, dict[str, float]], *, blocks: int = 8, **more: Any) -> Analysis:
    """Every block has the means, up to a spread of 1 %."""
    found = {}
    for block in range(1, blocks + 1):
        for number, (name, values) in enumerate({**means, twin_of("bf16"): means["bf16"]}.items()):
            spread = 1 + 0.01 * (((block * 7 + number * 3) % 5) - 2) / 2
            run = Run(block=block, level=LEVEL, configuration=name)
            found[run] = figures({metric: value * spread for metric, value in values.items()}, **more)
    return analyse(plan, [LEVEL], found)


MEANS = {
    "bf16": {"tokens_per_s": 400.0, "joules_per_token": 0.05, "itl_p95": 0.02},
    "int8": {"tokens_per_s": 840.0, "joules_per_token": 0.023, "itl_p95": 0.02},
    "json": {"tokens_per_s": 400.0, "joules_per_token": 0.06, "itl_p95": 0.03},
}


def test_a_verdict_names_ratios_with_intervals_and_what_is_equal(plan: ComparePlan) -> None:
    sentences = verdict(analysed(plan, MEANS), NONE)
    assert sentences[0] == "A/A (bf16 against itself): equal within ± 5 % in every metric."
    assert sentences[1].startswith("int8 against bf16, 8 in flight: 2.1")
    assert "0.46× J/token (0.4" in sentences[1]  # noqa: RUF001
    assert sentences[1].endswith("no difference beyond ± 5 % in ITL p95.")


def test_quality_is_said_in_the_terms_in_which_it_was_measured(plan: ComparePlan) -> None:
    view = ServerView(
        quality={"bf16": 1.0, "int8": 1 / 1.0007}, quality_of="perplexity:heldout", ranks={}, why_none=None
    )
    sentences = verdict(analysed(plan, MEANS), view)
    assert "int8 against bf16: perplexity +0.07 % on heldout, as measured beforehand." in sentences
    tasks = ServerView(quality={"bf16": 1.0, "int8": 0.99}, quality_of="accuracy:tasks", ranks={}, why_none=None)
    assert any("accuracy -1.00 % on tasks" in one for one in verdict(analysed(plan, MEANS), tasks))


def test_few_blocks_are_believed_nothing(plan: ComparePlan) -> None:
    analysis = analysed(plan, MEANS, blocks=2)
    assert not analysis.trust.trusted
    assert "Believe nothing yet" in verdict(analysis, NONE)[0]


def test_estimated_joules_cached_prompts_and_missed_rates_are_said(plan: ComparePlan) -> None:
    analysis = analysed(plan, MEANS, joules_scopes=("estimated",), cached_share=0.4, rate_verdict="invalid")
    said = " ".join(verdict(analysis, NONE))
    assert "Joules are estimated from CPU time" in said
    assert "int8: up to 40 % of a run's prompt tokens came from the engine's cache." in said
    assert "int8, 8 in flight: the offered rate was not achieved in 8 of 8 runs" in said


def test_the_front_has_whom_nobody_beats_and_quality_takes_part_where_all_have_one(plan: ComparePlan) -> None:
    analysis = analysed(plan, {**MEANS, "int8": {**MEANS["int8"], "itl_p95": 0.01}})
    assert [point.name for point in front(analysis, NONE) if point.on_front] == ["int8"]
    some = ServerView(quality={"bf16": 1.0, "int8": 0.9}, quality_of="q", ranks={}, why_none=None)
    assert [point.name for point in front(analysis, some) if point.on_front] == ["int8"]
    every = ServerView(quality={"bf16": 1.0, "int8": 0.9, "json": 1.0}, quality_of="q", ranks={}, why_none=None)
    assert [point.name for point in front(analysis, every) if point.on_front] == ["bf16", "int8"]


@pytest.mark.parametrize(("value", "shown"), [(2.104, "2.10"), (0.456, "0.46"), (0.0532, "0.053"), (12.34, "12.3")])
def test_ratios_are_written_with_the_digits_that_matter(value: float, shown: str) -> None:
    assert ratio(value) == shown


def test_an_interval_that_leaves_out_1_does_not_seem_to_hold_it(plan: ComparePlan) -> None:
    means = {**MEANS, "int8": {**MEANS["bf16"], "tokens_per_s": 400.0 * 1.0045}}
    found = analysed(plan, means).finding("int8", "tokens_per_s", LEVEL)
    assert found is not None
    assert found.estimate is not None
    assert "." in interval(found.estimate)


def test_ranks_and_quality_are_the_servers_own(plan: ComparePlan) -> None:
    with control_api(_table) as url:
        view = ask_server(plan, url)
    assert view.ranks == {"bf16": {"AL average latency": 2}, "int8": {"AL average latency": 1}, "json": {}}
    assert view.quality == {"bf16": 1.0, "int8": 0.999, "json": 1.0}
    assert view.quality_of == "perplexity:heldout"
    assert ServerView.from_json(json.loads(json.dumps(view.to_json()))) == view


@pytest.mark.parametrize("answer", [[], {"rows": [{}]}, {"rows": 3}, None])
def test_a_server_that_has_no_table_gives_a_reason(plan: ComparePlan, answer: Any) -> None:
    with control_api(lambda path: answer) as url:
        view = ask_server(plan, url)
    assert view.ranks == {}
    assert view.why_none


def test_without_a_control_url_there_are_no_ranks(plan: ComparePlan) -> None:
    assert ask_server(plan, None).why_none == "no control URL was given"
    assert "gave no table" in str(ask_server(plan, "http://127.0.0.1:9").why_none)


def _table(path: str) -> Any:
    if path == "/api/status":
        return {"adapters": [{"name": "json"}]}
    assert path == "/api/efficiency?by=variant,adapter&over=start"

    def cells(quality: float, rank: int | None) -> dict[str, Any]:
        return {
            "al_s": {"value": 0.1, "unit": "s", "rank": rank},
            "quality_ratio": {"value": quality, "unit": "ratio", "rank": None, "note": "perplexity:heldout"},
        }

    return {
        "measures": [{"key": "al_s", "title": "AL average latency"}],
        "rows": [
            {"group": {"model": "demo", "variant": "bf16", "adapter": "none"}, "values": cells(1.0, 2)},
            {"group": {"model": "demo", "variant": "int8", "adapter": "none"}, "values": cells(0.999, 1)},
            {"group": {"model": "demo", "variant": "bf16", "adapter": "json"}, "values": cells(1.0, None)},
        ],
    }


@contextmanager
def control_api(answer: Any) -> Iterator[str]:
    """`answer` says what a path gives; None is 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answer(self.path)
            body = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
