"""Runs a method of llm-compressor in its own environment."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from quant.compressor.environment import quant_python
from quant.errors import MethodError

__all__ = ["run_compressor"]

_ROOT: Final = Path(__file__).resolve().parents[1]
_TIMEOUT_S: Final = 48 * 3600.0
_GRACE_S: Final = 20.0
_LAST_LINES: Final = 5


def run_compressor(method: str, source: Path, folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the empty `folder`; what the method says of itself. Raises a `QuantError`."""
    out = folder / "out"
    command = [quant_python(), "-m", "quant.compressor", method, source, out, "--options", json.dumps(dict(options))]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        said = _run([str(part) for part in command], method, log)
    for path in out.iterdir():
        path.rename(folder / path.name)
    out.rmdir()
    return said


def _run(command: list[str], method: str, log: Any) -> dict[str, Any]:
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        output, _ = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as exc:
        raise MethodError(
            f"{method} was not done after {_TIMEOUT_S / 3600:.0f} hours. Quantize fewer samples."
        ) from exc
    finally:
        _end(process)
    if process.returncode != 0:
        log.seek(0)
        last = [line.strip() for line in log.read().splitlines() if line.strip()][-_LAST_LINES:]
        # A refusal is one line of the method's own; anything longer is a crash.
        reason = last[-1].removeprefix("quant: ") if last and last[-1].startswith("quant: ") else " | ".join(last)
        raise MethodError(f"{method} ended with status {process.returncode}: {reason}")
    return _last_object(output, method)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_object(output: str, method: str) -> dict[str, Any]:
    try:
        said = json.loads(output.strip().splitlines()[-1])
    except (IndexError, ValueError) as exc:
        raise MethodError(f"{method} ended without saying what it did.") from exc
    return said if isinstance(said, dict) else {}
