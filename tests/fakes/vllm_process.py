"""A scripted stand-in for vLLM's server, run as a real process in place of the engine's Python.

It takes vLLM's arguments and answers the routes that the control plane uses. Files in the folder that the environment
variable FAKE_VLLM names direct it; `ENGINE` is its first served name with `_` for `:`.

    ENGINE.crash        print the file's text and exit with status 1 before serving
    ENGINE.crash_once   the same, and remove the file
    ENGINE.slow         do not open the port while the file exists
    ENGINE.hang         do not answer /health while the file exists
    ENGINE.hung         answer no completion while the file exists, and count no token
    ENGINE.steps        count one more step with every answer of /metrics while the file exists
    ENGINE.declines     answer 500 with the file's text to /v1/load_lora_adapter
    ENGINE.stubborn     ignore SIGTERM
    ENGINE.family       start a process of its own, in another session, that ignores SIGTERM

It writes `ENGINE.env` and `ENGINE.argv` (JSON), `ENGINE.starts` (one line, its process id, a start), `ENGINE.calls`
(one line of JSON an adapter call), `ENGINE.asked` (one line of JSON a completion), and `ENGINE.grandchild` (the process
id of its family).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_METRICS = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="NAME"} 2.0
vllm:num_requests_waiting{engine="0",model_name="NAME"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="NAME"} 0.25
vllm:prompt_tokens_total{engine="0",model_name="NAME"} 120.0
vllm:generation_tokens_total{engine="0",model_name="NAME"} 64.0
vllm:iteration_tokens_total_count{engine="0",model_name="NAME"} STEPS
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="100"} 1.0
"""


class Stage:
    """The folder with the script's files."""

    def __init__(self, folder: Path, engine: str) -> None:
        self._folder = folder
        self._engine = engine.replace(":", "_")

    def file(self, what: str) -> Path:
        return self._folder / f"{self._engine}.{what}"

    def has(self, what: str) -> bool:
        return self.file(what).exists()

    def note(self, what: str, line: str) -> None:
        with self.file(what).open("a") as file:
            file.write(line + "\n")


def install(environment: Path, stage: Path) -> Path:
    """Make `environment` look like a virtual environment with vLLM, whose Python plays this part on `stage`."""
    package = environment / "lib" / "python3" / "site-packages" / "vllm"
    for folder in (environment / "bin", package, stage):
        folder.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    python = environment / "bin" / "python"
    python.write_text(f"#!/bin/sh\nFAKE_VLLM='{stage}' exec '{sys.executable}' -I -S '{__file__}' \"$@\"\n")
    python.chmod(0o755)
    return environment


class Handler(BaseHTTPRequestHandler):
    """The routes."""

    stage: Stage
    names: list[str]
    key: str
    adapters: dict[str, str]
    steps = 0

    def do_GET(self) -> None:
        if self.path == "/health":
            while self.stage.has("hang"):
                time.sleep(0.05)
            self._answer(200, b"")
        elif self.path == "/version":
            self._json(200, {"version": "0.0.fake"})
        elif self.path == "/metrics":
            Handler.steps += self.stage.has("steps")
            self._answer(200, _METRICS.replace("NAME", self.names[0]).replace("STEPS", str(self.steps)).encode())
        elif self.path == "/v1/models" and self._authorized():
            bases = [{"id": name, "root": "/checkpoint", "parent": None, "max_model_len": 1024} for name in self.names]
            loras = [{"id": name, "root": path, "parent": self.names[0]} for name, path in self.adapters.items()]
            self._json(200, {"object": "list", "data": bases + loras})
        else:
            self._json(404, {"error": {"message": "not found"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._authorized():
            return
        if self.path == "/v1/load_lora_adapter":
            self._load(body)
        elif self.path == "/v1/unload_lora_adapter":
            self.stage.note("calls", json.dumps(["unload", body["lora_name"]]))
            self.adapters.pop(body["lora_name"], None)
            self._answer(200, b"Success")
        elif self.path in {"/v1/chat/completions", "/v1/completions"}:
            self.stage.note("asked", json.dumps([self.path, body["model"]]))
            while self.stage.has("hung"):
                time.sleep(0.05)
            message = {"role": "assistant", "content": "hello"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            self._json(200, {"object": "chat.completion", "model": self.names[0], "choices": choices, "usage": usage})

    def _load(self, body: dict[str, Any]) -> None:
        self.stage.note("calls", json.dumps(["load", body["lora_name"], body["lora_path"]]))
        if self.stage.has("declines"):
            self._json(500, {"error": {"message": self.stage.file("declines").read_text()}})
        elif body["lora_name"] in self.adapters:
            self._json(400, {"error": {"message": "has already been loaded"}})
        else:
            self.adapters[body["lora_name"]] = body["lora_path"]
            self._answer(200, b"Success")

    def _authorized(self) -> bool:
        if self.headers.get("authorization") == f"Bearer {self.key}":
            return True
        self._json(401, {"error": "Unauthorized"})
        return False

    def _json(self, status: int, body: dict[str, Any]) -> None:
        self._answer(status, json.dumps(body).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """No access log."""


def main() -> None:
    """Play the part."""
    argv = sys.argv[1:]
    names = _values(argv, "--served-model-name")
    environ = dict(os.environ)  # noqa: TID251  # a program of its own
    stage = Stage(Path(environ["FAKE_VLLM"]), names[0])
    stage.note("starts", str(os.getpid()))
    stage.file("argv").write_text(json.dumps(argv))
    stage.file("env").write_text(json.dumps(environ))
    for kind in ("crash", "crash_once"):
        if stage.has(kind):
            print(stage.file(kind).read_text(), flush=True)
            if kind == "crash_once":
                stage.file(kind).unlink()
            sys.exit(1)
    if stage.has("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if stage.has("family"):
        deaf = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 60; done"]
        grandchild = subprocess.Popen(deaf, start_new_session=True)
        stage.file("grandchild").write_text(str(grandchild.pid))
    print("INFO Starting to load model /checkpoint...", flush=True)
    while stage.has("slow"):
        time.sleep(0.02)
    Handler.stage, Handler.names, Handler.key, Handler.adapters = stage, names, environ["VLLM_API_KEY"], {}
    ThreadingHTTPServer(("127.0.0.1", int(_values(argv, "--port")[0])), Handler).serve_forever()


def _values(argv: list[str], flag: str) -> list[str]:
    rest = argv[argv.index(flag) + 1 :]
    end = next((index for index, value in enumerate(rest) if value.startswith("--")), len(rest))
    return rest[:end]


if __name__ == "__main__":
    main()
