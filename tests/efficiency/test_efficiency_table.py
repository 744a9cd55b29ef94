"""The table as JSON over a real socket, the exposition's samples, and the command that shows it."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from server.cli import main
from server.control.admin_efficiency import add_efficiency
from server.efficiency import Efficiency, EngineFacts
from server.efficiency.use import Use
from server.errors import RequestError
from server.models.quality import Quality
from server.telemetry.families import Families
from server.telemetry.metrics import CATALOGUE
from server.units import Bytes
from tests.efficiency.house import House, served, small_work
from tests.fakes.batches import CARD, replica, tokens

BOUND_S = 30.0
SIZES = {"bf16": 8_400_000, "int8": 5_600_000, "int4": 4_000_000}


def demo() -> House:
    """Three variants, a minute of equal work on each; int4 is the thriftiest and the slowest."""
    engines = [
        replica(
            name=f"demo-{variant}",
            variant=variant,
            precision=variant,
            device="cpu",
            memory_bytes=2_000_000_000,
            card=replace(CARD, size_bytes=Bytes(size)),
        )
        for variant, size in SIZES.items()
    ]
    facts = {
        engine.name: EngineFacts(
            work=small_work(), qualities=(Quality(metric="perplexity", dataset="heldout", value=9.0 + place),)
        )
        for place, engine in enumerate(engines)
    }
    house = House(*engines, facts=facts)
    house.pass_time()
    for second in range(5):
        for place, engine in enumerate(engines):
            labels = {"engine": engine.name, "variant": engine.variant, "precision": engine.precision}
            times = [1000.0 + (0.01 + 0.01 * place) * gap for gap in range(20)]
            house.serve(
                served(0.4 + 0.2 * place, 20, **labels), streams=[tokens(times, id=f"{second}-{place}", **labels)]
            )
            key = (engine.name, "demo", engine.variant, engine.precision, "none")
            house.energy.post(3.0 - place, "active", key, phase="decode")
            house.energy.post(5.0, "idle", key)
            house.uses.uses[engine.name] = Use(
                memory_held_bytes=2, memory_allowed_bytes=8, compute_s=1.0, compute_busy_s=0.5
            )
        house.pass_time()
    return house


@contextmanager
def serving(efficiency: Efficiency) -> Iterator[str]:
    """The admin API's part on a real socket."""
    app = FastAPI()

    @app.exception_handler(RequestError)
    async def refuse(_request: Request, exc: RequestError) -> JSONResponse:
        return JSONResponse(exc.body(), status_code=exc.status)

    add_efficiency(app, efficiency)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off")
    listener = config.bind_socket()
    listener.listen()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(BOUND_S)
        listener.close()


def wattgate(url: str, *argv: str, columns: int = 80) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("COLUMNS", str(columns))
        status = main(["efficiency", "--control", url, *argv])
    return status, out.getvalue(), err.getvalue()


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_have_value_rank_unit_and_reason() -> None:
    found = demo().efficiency.table(["variant"])
    assert found["by"] == ["model", "variant"]
    assert [row["group"] for row in found["rows"]] == [{"model": "demo", "variant": variant} for variant in SIZES]
    int4 = found["rows"][2]["values"]
    assert int4["aec_w"] == {"value": pytest.approx(6.0), "unit": "W", "rank": 1, "note": "scope: estimated"}
    assert int4["al_s"] == {"value": pytest.approx(0.8), "unit": "s", "rank": 3}
    assert int4["mfu_ratio"]["rank"] is None
    assert int4["mfu_ratio"]["why_absent"] == "the peak FLOP/s of its device are unknown (efficiency.peaks)"
    assert [row["values"]["amu_ratio"]["rank"] for row in found["rows"]] == [1, 1, 1]
    assert [row["values"]["mcr_ratio"]["rank"] for row in found["rows"]] == [3, 2, 1]


def test_front_is_over_joules_latency_and_quality() -> None:
    found = demo().efficiency.table(["variant"])
    assert found["pareto_axes"] == {"demo": ["output_token_j", "itl_p95_s", "quality_ratio"]}
    assert [row["pareto"] for row in found["rows"]] == [True, True, True]


def test_every_absent_value_says_why_and_every_present_one_is_a_number() -> None:
    for house in (House(), demo()):
        for by in ("engine", "variant", "adapter", "variant,adapter", "precision", "model"):
            for row in house.efficiency.table(by.split(","))["rows"]:
                for cell in row["values"].values():
                    assert (cell["value"] is None) == ("why_absent" in cell)
                    assert cell["value"] is None or cell["value"] == cell["value"]


def test_models_are_ranked_apart() -> None:
    house = House(replica(), replica(name="big-int4", model="big", memory_bytes=9))
    rows = house.efficiency.table(["variant"])["rows"]
    assert [row["group"]["model"] for row in rows] == ["demo", "big"]
    assert [row["values"]["size_bytes"]["rank"] for row in rows] == [1, 1]


def test_loaded_adapter_without_requests_has_a_row() -> None:
    house = House(replica(adapters=frozenset({"json"})))
    rows = house.efficiency.table(["adapter"])["rows"]
    assert [row["group"]["adapter"] for row in rows] == ["none", "json"]


@pytest.mark.parametrize("by", [["colour"], ["variant", ""], [""], []])
def test_unknown_labels_are_refused(by: list[str]) -> None:
    with pytest.raises(ValueError, match="is none of engine, model, variant, precision, adapter"):
        House().efficiency.table(by)


# --- the exposition ---------------------------------------------------------------------------------------------------


def test_samples_fit_the_catalogue_and_unknown_ones_are_none() -> None:
    house = demo()
    families = Families()
    for name, labels, value in house.efficiency.samples():
        assert len(labels) == len(CATALOGUE[name].labels), name
        families.add(name, labels, value)
    names = {sample.name for family in families for sample in family.samples}
    assert names == {
        "wattgate_efficientllm_amu_ratio", "wattgate_efficientllm_pcu_ratio", "wattgate_efficientllm_al_seconds",
        "wattgate_efficientllm_at_tokens_per_second", "wattgate_efficientllm_aec_watts",
        "wattgate_efficientllm_mcr_ratio", "wattgate_model_flops_total", "wattgate_quality_info",
    }  # fmt: skip  # no peak is known, so there is no mfu, no mbu
    int4 = ("demo-int4", "demo", "int4", "int4")
    samples = house.samples()
    assert samples["wattgate_efficientllm_aec_watts", *int4] == pytest.approx(6.0)
    assert samples["wattgate_efficientllm_al_seconds", *int4, "none"] == pytest.approx(0.8)
    assert samples["wattgate_efficientllm_mcr_ratio", *int4, "perplexity:heldout"] == pytest.approx(2.1 * 9 / 11)


def test_house_without_anything_exports_nothing() -> None:
    assert House().samples() == {}


# --- the admin API ----------------------------------------------------------------------------------------------------


def test_table_over_a_real_socket() -> None:
    with serving(demo().efficiency) as url:
        answer = httpx.get(f"{url}/api/efficiency", params={"by": "engine,adapter", "over": "start"}, timeout=BOUND_S)
        assert answer.status_code == 200
        found = answer.json()
        assert (found["by"], found["over"]) == (["engine", "model", "adapter"], "start")
        assert found["rows"][0]["values"]["al_s"]["value"] == pytest.approx(0.4)
        assert httpx.get(f"{url}/api/efficiency", timeout=BOUND_S).json()["by"] == ["model", "variant"]


@pytest.mark.parametrize("by", ["colour", "variant,,adapter", ""])
def test_bad_label_is_a_400_that_names_the_choice(by: str) -> None:
    with serving(House().efficiency) as url:
        answer = httpx.get(f"{url}/api/efficiency", params={"by": by}, timeout=BOUND_S)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "by"
    assert "engine, model, variant, precision, adapter" in error["message"]


# --- the command ------------------------------------------------------------------------------------------------------


def test_command_fits_eighty_columns() -> None:
    with serving(demo().efficiency) as url:
        status, out, _ = wattgate(url)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    lines = {line[:26].strip(): line.split()[-2:] for line in out.splitlines() if line}
    assert lines["AEC average power"] == ["W", "#1"]
    head = next(line for line in out.splitlines() if line.startswith("demo, last 6 s"))
    assert head.split()[-3:] == ["bf16", "int8", "int4"]
    assert "AL average latency" in out
    assert "400 ms #1" in out
    assert "energy: estimated" in out
    assert "MFU, MBU" not in out  # they are absent for different reasons
    assert "— MFU: the peak FLOP/s of its device are unknown (efficiency.peaks)" in out
    assert "p99" not in out


def test_many_columns_go_below_one_another_and_wide_terminals_show_more() -> None:
    house = House(*(replica(name=f"engine-number-{number}", variant=f"v{number}") for number in range(9)))
    house.pass_time()
    with serving(house.efficiency) as url:
        _, narrow, _ = wattgate(url, "--by", "engine")
        _, wide, _ = wattgate(url, "--by", "engine", "--all", columns=400)
    assert max(map(len, narrow.splitlines())) <= 80
    assert narrow.count("AMU memory utilization") > 1
    assert all(narrow.count(f"engine-number-{number}") == 1 for number in range(9))
    assert wide.count("AMU memory utilization") - wide.count("— AMU") == 1
    assert "TTFT p99" in wide


def test_command_writes_json_and_markdown() -> None:
    with serving(demo().efficiency) as url:
        _, as_json, _ = wattgate(url, "--json", "--since-start")
        _, markdown, _ = wattgate(url, "--markdown")
    found: Any = json.loads(as_json)
    assert (found["over"], len(found["rows"])) == ("start", 3)
    lines = markdown.splitlines()
    assert lines[2] == "|  | bf16 | int8 | int4 |"
    assert "| AL average latency | 400 ms (1) | 600 ms (2) | 800 ms (3) |" in lines
    assert {line.count("|") for line in lines if line.startswith("|")} == {5}


def test_command_says_what_is_wrong_with_its_labels() -> None:
    with serving(House().efficiency) as url:
        status, out, err = wattgate(url, "--by", "colour")
    assert (status, out) == (2, "")
    assert "'colour' is none of" in err
