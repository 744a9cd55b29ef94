"""`wattgate meter`: what people and other programs see."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from server.cli import main
from server.energy.recorded import read_trace
from tests.fakes.nvml_library import NvmlLibrary
from tests.fakes.powercap import INTEL_SERVER, Powercap

TIMEOUT_S = 60


@pytest.fixture
def environ(nvml_stub: Path, nvml: NvmlLibrary) -> dict[str, str]:
    """In which the driver is the stub, found as the real one is."""
    return {
        **os.environ,  # noqa: TID251  # of a child
        "LD_LIBRARY_PATH": str(nvml_stub.parent),
        "NVML_STUB_SCRIPT": str(nvml.script),
        "COLUMNS": "80",
    }


def meter(*arguments: str | Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server", "meter", *map(str, arguments)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests may have it ignored


@contextmanager
def running(*arguments: str | Path, environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "server", "meter", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hear_interrupts,  # noqa: PLW1509  # nothing but a signal's disposition is touched
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)


def test_watch_shows_each_device_within_80_columns(environ: dict[str, str], nvml: NvmlLibrary) -> None:
    nvml.add_gpu(name="NVIDIA H100", mig=1)
    nvml.add_gpu(energy_mj_error=15)
    done = meter("watch", "--once", environ=environ)
    assert (done.returncode, done.stderr) == (0, "")
    title, first, second, problem, *_ = done.stdout.splitlines()
    assert title.split() == ["device", "scope", "watts", "joules"]
    assert first.split() == ["gpu:0", "gpu", "0.0", "0.0"]
    assert second.split() == ["gpu:1", "whole_gpu", "0.0", "0.0"]
    assert problem.startswith("gpu:2: the GPU is lost")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_watch_takes_the_meter_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = Powercap(tmp_path, INTEL_SERVER)
    assert main(["meter", "watch", "--once", "--meter", "rapl", "--path", str(tree.root)]) == 0
    devices = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert devices == ["package:0", "dram:0", "package:1", "dram:1"]


def test_watch_as_json_is_a_recording_that_goes_on_until_it_is_interrupted(
    environ: dict[str, str], nvml: NvmlLibrary, tmp_path: Path
) -> None:
    with running("watch", "--json", environ=environ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        nvml.gpu(0, energy_mj=105_000)
        while json.loads(lines[-1])["joules_since_start"] == 0:
            lines.append(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert (first["device"], first["scope"], first["joules_total"], first["watts"]) == ("gpu:0", "gpu", 5.0, None)
    assert last["joules_since_start"] == pytest.approx(100.0)
    assert last["watts"] > 0
    recording = tmp_path / "meter.jsonl"
    recording.write_text("".join(lines))
    assert [(line.t_s, line.joules_total) for line in read_trace(recording)][-1] == (last["t_s"], 105.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--meter", "rapl", "--path", "/nonexistent"], "There is no RAPL package below /nonexistent"),
        (["--meter", "remote"], "needs `url`"),
        (["--meter", "remote", "--url", "http://127.0.0.1:9"], "does not answer"),
        (["--meter", "crystal"], "no meter of the kind 'crystal'"),
        (["--config", "/nonexistent.yaml"], "no such file"),
    ],
)
def test_without_a_meter_there_is_a_sentence_and_status_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["meter", "watch", "--once", *arguments]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert says in said.err


def test_serve_lets_another_node_watch(environ: dict[str, str]) -> None:
    environ["WATTGATE_METER_TOKEN"] = "s3cret"
    with running("serve", "--meter", "nvml", "--port", "0", environ=environ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("serving nvml at http://127.0.0.1:")
        url = said.split()[-1]
        assert httpx.get(url, trust_env=False).status_code == 401
        done = meter(
            "watch", "--once", "--json", "--meter", "remote", "--url", url.removesuffix("/v1/reading"), environ=environ
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130
    assert (done.returncode, done.stderr) == (0, "")
    line = json.loads(done.stdout.splitlines()[-1])
    assert (line["device"], line["scope"], line["joules_total"]) == ("127.0.0.1/gpu:0", "gpu", 5.0)


def test_serve_to_others_needs_a_token_and_says_where_to_put_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATTGATE_METER_TOKEN", raising=False)
    assert main(["meter", "serve", "--host", "0.0.0.0"]) == 2
    assert "WATTGATE_METER_TOKEN" in capsys.readouterr().err


def test_serve_says_that_its_port_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["meter", "serve", "--meter", "cpu_estimate", "--port", port]) == 3
    assert "--port" in capsys.readouterr().err
