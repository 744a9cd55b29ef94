"""The demo: its steps against a scripted gateway, its tables, its end."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from rich.console import Console

from loadgen._demo._board import Board
from loadgen._demo._config import DemoConfig, Engine, ports_in_use, read_config, write_on_ports
from loadgen._demo._cpu import serves_int4
from loadgen._demo._load import Measured
from loadgen._demo._processes import Children
from loadgen._demo._results import load_grid, rich_table, size_grid, verdict
from loadgen._demo._variants import make_variants, stale_variants
from loadgen._errors import LoadError

BOUND_S = 60.0
RUN_DEMO = Path(__file__).with_name("run_demo.py")


def distribution(p50: float | None, p95: float | None) -> dict[str, Any]:
    return {"samples": 200, "p50": p50, "p95": p95}


def measured(
    id_: str, *, joules: float | None, speed: float, p95: float | None = 0.02, scope: str = "estimated"
) -> Measured:
    return Measured(
        id=id_,
        figures={
            "requests": 12_345,
            "ok": 12_345,
            "errors": {},
            "warm_up_errors": 0,
            "time_to_first_token_s": distribution(0.0123, p95),
            "inter_token_latency_s": distribution(0.0034, 0.1234),
            "output_tokens_per_s": speed,
        },
        joules_per_output_token=joules,
        scopes=(scope,),
        method="token_share",
        notes=(),
    )


def rendered(*things: Any) -> str:
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    for thing in things:
        console.print(thing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_tables_are_whole_at_eighty_columns() -> None:
    engine = {
        "memory_bytes": 22_400_000_000,
        "size_bytes": 11_500_000,
        "bits_per_weight": 16.0,
        "linear_bits_per_weight": None,
        "parameters": 8_030_261_248,
    }
    rows = [measured(id_, joules=0.01234, speed=12_345.6) for id_ in ("demo:bf16", "longer-name:int4")]
    text = rendered(rich_table(load_grid(rows)), rich_table(size_grid({"demo:bf16": engine})))
    assert max(map(len, text.splitlines())) <= 80
    for shown in ("longer-name:int4", "12,345", "12.3", "20.0", "3.4", "123", "12,346", "0.0123"):
        assert shown in text
    for shown in ("22,400", "11.5", "16.00", "—", "8,030,261,248"):
        assert shown in text


def test_verdict_names_the_cheapest_and_the_fastest_and_admits_an_estimate() -> None:
    lines = "\n".join(
        verdict([measured("demo:bf16", joules=0.02, speed=900.0), measured("demo:int8", joules=0.01, speed=800.0)])
    )
    assert "Cheapest per token: demo:int8 (0.0100 J); fastest: demo:bf16 (900 tokens/s)." in lines
    assert "estimated from CPU time, not measured" in lines
    assert "token_share" in lines
    assert "too few samples" not in lines


def test_verdict_of_a_real_meter_names_its_scope() -> None:
    lines = "\n".join(verdict([measured("demo:bf16", joules=0.02, speed=900.0, p95=None, scope="gpu")]))
    assert "scope: gpu" in lines
    assert "estimated" not in lines
    assert "too few samples" in lines


def test_progress_in_a_log_is_a_line_a_change() -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    with Board(console, "Starting") as board:
        for text in ("starting", "starting", "ready"):
            board.show("demo-int4", text, done=text == "ready")
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "Starting"
    assert [line.partition("s  ")[2] for line in lines[1:]] == ["demo-int4: starting", "demo-int4: ready"]


def test_each_adapter_is_loaded_once_on_one_engine_after_the_other(root: Path) -> None:
    config = read_config(root / "deploy" / "examples" / "demo.yaml")
    assert config.adapter_ids() == ["json:bf16", "json:int4", "code:bf16", "code:int4"]
    assert config.loaded_ids() == ["demo:bf16", "demo:int8", "demo:int4", "json:bf16", "code:int4"]


def test_demo_without_int4_differs_in_its_third_engine_only(root: Path) -> None:
    usual, other = (
        yaml.safe_load((root / "deploy" / "examples" / name).read_text(encoding="utf-8"))
        for name in ("demo.yaml", "demo-fp16.yaml")
    )
    third, replaced = other["engines"].pop(), usual["engines"].pop()
    assert other == usual
    assert third["options"] == replaced["options"] | {"dtype": "float16"}
    assert third["adapters"] == replaced["adapters"]
    config = read_config(root / "deploy" / "examples" / "demo-fp16.yaml")
    assert config.loaded_ids() == ["demo:bf16", "demo:int8", "demo:fp16", "json:bf16", "code:fp16"]
    assert [engine.variant for engine in config.engines if engine.checkpoint == root / "models" / "demo"] == [
        "bf16",
        "fp16",
    ]


@pytest.mark.parametrize(
    ("text", "served"), [("flags : avx2\n", False), ("flags : avx2 avx512f\n", True), ("Features : sve\n", True)]
)
def test_int4_is_left_out_on_x86_without_avx512_only(tmp_path: Path, text: str, served: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    assert serves_int4(cpuinfo, path=str(tmp_path)) is served
    assert serves_int4(tmp_path / "nothing", path=str(tmp_path))
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    assert serves_int4(cpuinfo, path=str(tmp_path))


def test_other_ports_change_nothing_else_and_keep_the_state_apart(root: Path, tmp_path: Path) -> None:
    source = root / "deploy" / "examples" / "demo.yaml"
    before = read_config(source)
    after = write_on_ports(source, tmp_path / "demo.yaml", port=9001, control_port=9002)
    assert (after.port, after.control_port) == (9001, 9002)
    assert after.engines == before.engines
    assert after.engine_python.resolve() == before.engine_python.resolve()
    state = yaml.safe_load((tmp_path / "demo.yaml").read_text(encoding="utf-8"))["state_dir"]
    assert state == str(root / ".state" / "demo-9001")


def test_port_that_somebody_listens_on_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert ports_in_use([port]) == [port]
    assert ports_in_use([port]) == []


# --- variants ---------------------------------------------------------------------------------------------------------

WRITER = """#!/bin/sh
# Stands in for the engine environment's python: `python -m quant rtn SOURCE OUT --scheme SCHEME`.
[ "$6" = --scheme ] || exit 3
[ -e "$4/broken" ] && { echo "the weights are broken"; exit 1; }
mkdir "$5" && echo "$7" > "$5/config.json"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> DemoConfig:
    """A checkpoint, the two variants to make of it, and something that makes them."""
    for folder in ("model", "env/bin", "quant"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "quant" / "rtn.py").write_text("first")
    python = tmp_path / "env" / "bin" / "python"
    python.write_text(WRITER)
    python.chmod(0o755)
    engines = [
        Engine(name=variant, model="demo", variant=variant, checkpoint=tmp_path / folder, takes_adapters=False)
        for variant, folder in (("bf16", "model"), ("int8", "variants/int8"), ("int4", "variants/int4"))
    ]
    return DemoConfig(
        path=tmp_path / "demo.yaml",
        port=1,
        control_port=2,
        engine_python=python,
        engines=tuple(engines),
        adapters=(),
    )


def make(config: DemoConfig) -> list[str]:
    """Make what is stale; returns its variants."""
    root = config.path.parent
    stale = stale_variants(config, root)
    console = Console(file=io.StringIO())
    with Children() as children, Board(console, "making") as board:
        make_variants(config, stale, root=root, logs=root / "logs", children=children, board=board)
    return [engine.variant for engine in stale]


def test_variants_are_made_once(checkout: DemoConfig) -> None:
    assert make(checkout) == ["int8", "int4"]
    assert (checkout.engines[1].checkpoint / "config.json").read_text() == "w8a8-int8\n"
    assert (checkout.engines[2].checkpoint / "config.json").read_text() == "w4a16\n"
    assert make(checkout) == []


@pytest.mark.parametrize("changed", ["model/config.json", "model/weights.safetensors", "quant/rtn.py"])
def test_variants_are_made_again_when_what_they_are_made_of_has_changed(checkout: DemoConfig, changed: str) -> None:
    make(checkout)
    (checkout.path.parent / changed).write_text("second")
    assert make(checkout) == ["int8", "int4"]


def test_variant_gets_what_was_measured_of_it_and_not_what_was_measured_of_another(checkout: DemoConfig) -> None:
    (checkout.engines[0].checkpoint / "quality.json").write_text("of bf16")
    (checkout.engines[0].checkpoint / "quality.int8.json").write_text("of int8")
    make(checkout)
    assert (checkout.engines[1].checkpoint / "quality.json").read_text() == "of int8"
    assert not (checkout.engines[2].checkpoint / "quality.json").exists()


def test_variant_that_was_lost_is_made_again(checkout: DemoConfig) -> None:
    make(checkout)
    shutil.rmtree(checkout.engines[2].checkpoint)
    assert make(checkout) == ["int4"]


def test_variant_that_cannot_be_made_says_why_and_is_tried_again(checkout: DemoConfig) -> None:
    (checkout.path.parent / "model" / "broken").touch()
    with pytest.raises(LoadError, match="the weights are broken"):
        make(checkout)
    (checkout.path.parent / "model" / "broken").unlink()
    assert make(checkout) == ["int8", "int4"]


def test_missing_engine_environment_names_the_command_that_makes_it(checkout: DemoConfig) -> None:
    checkout.engine_python.unlink()
    with pytest.raises(LoadError, match=r"make \.venv-engine"):
        make(checkout)


# --- the whole demo, with a scripted gateway --------------------------------------------------------------------------


def free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A demo of two variants and one adapter that needs nothing made."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    port, control_port = free_ports()
    data = {
        "state_dir": "state",
        "environments": {"engine": "env"},
        "gateway": {"port": port},
        "control": {"port": control_port},
        "engines": [
            {"name": "demo-bf16", "model": "demo", "variant": "bf16", "checkpoint": "model", "adapters": {}},
            {"name": "demo-fp16", "model": "demo", "variant": "fp16", "checkpoint": "model"},
        ],
        "adapters": [{"name": "json", "model": "demo", "path": "json"}],
    }
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(data))
    return tmp_path


@contextmanager
def demo(folder: Path, behaviour: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(RUN_DEMO), str(folder), behaviour, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "80", "PYTHONPATH": str(RUN_DEMO.parents[2]), "PYTHONUNBUFFERED": "1"},  # noqa: TID251
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def gateway_is_gone(folder: Path) -> bool:
    try:
        os.kill(int((folder / "up.pid").read_text()), 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def serves(folder: Path) -> bool:
    """The scripted gateway answers."""
    port = yaml.safe_load((folder / "demo.yaml").read_text())["gateway"]["port"]
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=5).is_success
    except httpx.TransportError:
        return False


def test_once_loads_every_variant_and_adapter_and_ends_with_status_0(folder: Path) -> None:
    with demo(folder, "ok", "--once") as process:
        out, _ = process.communicate(timeout=BOUND_S)
    assert process.returncode == 0, out
    (run,) = (folder / "runs").iterdir()
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert [entry["id"] for entry in results["configurations"]] == ["demo:bf16", "demo:fp16", "json:bf16"]
    assert all(entry["ok"] == 12 and entry["joules_per_output_token"] for entry in results["configurations"])
    assert results["problems"] == []
    assert "| json:bf16 |" in (run / "results.md").read_text(encoding="utf-8")
    picture = (run / "results.svg").read_text(encoding="utf-8")
    assert "json:bf16" in picture
    assert "url(http" not in picture
    assert gateway_is_gone(folder)


def test_interrupt_while_engines_start_stops_everything_without_a_traceback(folder: Path) -> None:
    with demo(folder, "hang", "--once") as process:
        wait_until(lambda: serves(folder))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=BOUND_S)
    assert process.returncode == 130, out
    assert "Traceback" not in out
    assert "everything is stopped" in out
    assert gateway_is_gone(folder)


def test_signal_after_the_table_ends_with_its_verdict(folder: Path) -> None:
    with demo(folder, "ok") as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C stops everything"):
                break
        process.terminate()
        out = "".join(lines) + process.communicate(timeout=BOUND_S)[0]
    assert process.returncode == 0, out
    assert "Traceback" not in out
    assert '"model": "demo:fp16"' in out
    assert '"model": "json:bf16"' in out
    assert gateway_is_gone(folder)


def test_demo_that_is_killed_leaves_no_gateway_behind(folder: Path) -> None:
    with demo(folder, "hang") as process:
        wait_until(lambda: serves(folder))
        process.kill()
        process.wait(timeout=BOUND_S)
        wait_until(lambda: gateway_is_gone(folder))


def test_engine_that_fails_ends_the_demo_with_its_explanation(folder: Path) -> None:
    with demo(folder, "fail", "--once") as process:
        out, _ = process.communicate(timeout=BOUND_S)
    assert process.returncode == 1
    assert "Engine demo-bf16 failed: there is not enough memory" in out
    assert "engine.log" in out
    assert gateway_is_gone(folder)


def test_port_in_use_is_said_before_anything_is_started(folder: Path) -> None:
    port = yaml.safe_load((folder / "demo.yaml").read_text())["gateway"]["port"]
    with socket.create_server(("127.0.0.1", port)), demo(folder, "ok", "--once") as process:
        out, _ = process.communicate(timeout=BOUND_S)
    assert process.returncode == 2
    assert f"Port {port} is in use" in out
    assert "--port" in out
    assert not (folder / "up.pid").exists()
    assert not (folder / "runs").exists()
