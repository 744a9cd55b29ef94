"""Stands in for `wattgate up --config FILE`: the same two ports, no engine. Run as a script."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import yaml
from scripted_server import ScriptedServer


def main(path: Path, behaviour: str) -> None:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    (path.parent / "up.pid").write_text(str(os.getpid()))
    ids = [f"{engine['model']}:{engine['variant']}" for engine in data["engines"]]
    ids += [
        f"{adapter['name']}:{engine['variant']}"
        for adapter in data["adapters"]
        for engine in data["engines"]
        if "adapters" in engine
    ]
    gateway = ScriptedServer(ids, data["gateway"]["port"])
    control = ScriptedServer(ids, data["control"]["port"])
    control.chats = gateway.chats
    control.adapters = {adapter["name"] for adapter in data["adapters"]}
    state = "failed" if behaviour == "fail" else "starting" if behaviour == "hang" else "ready"
    control.status = {"state": state, "engines": [_engine(entry, state) for entry in data["engines"]], "adapters": []}
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    for server in (gateway, control):
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    while not stop.wait(0.05):
        pass


def _engine(entry: dict[str, str], state: str) -> dict[str, object]:
    return {
        "name": entry["name"],
        "model": entry["model"],
        "variant": entry["variant"],
        "state": state,
        "problem": "there is not enough memory" if state == "failed" else None,
        "log_path": "engine.log",
        "restarts": 0,
        "memory_bytes": 2_400_000_000,
        "size_bytes": 11_500_000,
        "bits_per_weight": 16.0,
        "linear_bits_per_weight": 16.0,
        "parameters": 4_700_000,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
