"""Runs jobs that come as JSON lines, in the engine environment; answers one JSON line each."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from quant.cli import main


def command(job: dict[str, Any]) -> dict[str, Any]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(job["arguments"])
    return {"code": code, "stdout": out.getvalue(), "stderr": err.getvalue()}


def source(job: dict[str, Any]) -> dict[str, Any]:
    variables = {"json": json, "Path": Path, **job["variables"]}
    variables |= {name: Path(variables[name]) for name in job["paths"]}
    try:
        exec(job["source"], variables)
    except Exception:  # noqa: BLE001 - the outermost loop: the test shows it
        return {"error": traceback.format_exc()}
    return {"error": None, "result": variables["result"]}


if __name__ == "__main__":
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(command(job) if "arguments" in job else source(job)), flush=True)
