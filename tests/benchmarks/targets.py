"""What is measured: nothing at all, nginx, the peers, and Wattgate as users start it, pure and compiled."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import yaml

from tests.benchmarks import processes
from tests.benchmarks.mock_engine import start_proxy
from tests.benchmarks.peers import LITELLM, SMG, VLLM_ROUTER, Peer, PeerMissingError, compiled

__all__ = ["TARGETS", "Site", "Target", "free_port", "ours_config", "start_ours", "start_target", "wait_ready"]

LITELLM_KEY: Final = "sk-bench-7Kq2vTnX9wLz4RbY"
_START_S: Final = 60.0
_REPOSITORY: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where targets run."""

    folder: Path
    """A temporary folder, for configurations and logs."""
    cache: Path
    """Where the peers' environments are kept."""
    engine: int
    """The engine's port."""
    core: int | None
    """The core that each target has to itself; None: no bounds."""


@dataclass(slots=True, kw_only=True)
class Target:
    """A running gateway, or none (direct)."""

    name: str
    port: int
    api_key: str = ""
    process: psutil.Popen | None = None
    parts: Mapping[str, list[int]] = field(default_factory=dict)
    """Process ids by part; a gateway of one part calls it `all`."""
    metrics_url: str | None = None

    @property
    def pids(self) -> list[int]:
        """All its processes."""
        return [pid for pids in self.parts.values() for pid in pids]

    def find_parts(self) -> None:
        """Look which processes there are, once it serves."""
        self.parts = _parts(self.process) if self.process is not None else {}

    def stop(self) -> None:
        """End it and all it started."""
        if self.process is not None:
            processes.end(self.process)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_target(name: str, site: Site) -> Target:
    """Start a target and wait until it serves. Raises PeerMissingError where it cannot run."""
    kind, _, tree = name.partition("@")
    target = TARGETS[kind](site, Path(tree)) if tree and kind == "ours" else TARGETS[kind](site)
    target.name = name
    try:
        wait_ready(target)
    except TimeoutError as exc:
        target.stop()
        raise PeerMissingError(f"does not answer; the last it said: {_last_words(site.folder)}") from exc
    target.find_parts()
    return target


def _last_words(folder: Path) -> str:
    """Last line of the log that was written last."""
    logs = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
    lines = logs[-1].read_text("utf-8", errors="replace").split("\n") if logs else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")


def wait_ready(target: Target, bound_s: float = _START_S) -> None:
    """Wait until a chat request is answered. Raises TimeoutError."""
    deadline = time.monotonic() + bound_s
    url, body = (
        f"http://127.0.0.1:{target.port}/v1/chat/completions",
        {"model": "demo", "messages": [], "max_tokens": 1},
    )
    headers = {"authorization": f"Bearer {target.api_key}"} if target.api_key else {}
    body["messages"] = [{"role": "user", "content": "hello"}]
    while True:
        try:
            if httpx.post(url, json=body, headers=headers, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline or (target.process is not None and target.process.poll() is not None):
            raise TimeoutError
        time.sleep(0.1)


def _parts(process: psutil.Process) -> dict[str, list[int]]:
    """Wattgate's worker and control plane stand apart; of everything else the tree is one part."""
    parts: dict[str, list[int]] = {}
    for member in processes.tree(process):
        command = " ".join(member.cmdline())
        part = "worker" if "server.gateway" in command else "control" if "server.control" in command else "all"
        part = "launcher" if "server.launcher" in command else part
        parts.setdefault(part, []).append(member.pid)
    return parts


# --- who there is -----------------------------------------------------------------------------------------------------


def _direct(site: Site) -> Target:
    return Target(name="direct", port=site.engine)


def _nginx(site: Site) -> Target:
    port = free_port()
    process = start_proxy(site.folder / "nginx", port=port, engine=site.engine, core=site.core)
    return Target(name="nginx", port=port, process=process)


def _router(peer: Peer, site: Site, *argv: str) -> Target:
    port, metrics = free_port(), free_port()
    command = [
        *(str(peer.environment(site.cache) / "bin" / argv[0]), *argv[1:]),
        *("--host", "127.0.0.1", "--port", str(port), "--worker-urls", f"http://127.0.0.1:{site.engine}"),
        *("--policy", "round_robin", "--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics)),
    ]
    process = processes.start(command, core=site.core, log=site.folder / f"{peer.name}.log", cwd=site.folder)
    return Target(name=peer.name, port=port, process=process, metrics_url=f"http://127.0.0.1:{metrics}/metrics")


def _vllm_router(site: Site) -> Target:
    return _router(VLLM_ROUTER, site, "vllm-router")


def _smg(site: Site) -> Target:
    return _router(SMG, site, "smg", "launch")


def _litellm(site: Site) -> Target:
    port, config = free_port(), site.folder / "litellm.yaml"
    parameters = {"model": "openai/demo", "api_base": f"http://127.0.0.1:{site.engine}/v1", "api_key": "none"}
    content: dict[str, Any] = {
        "model_list": [{"model_name": "demo", "litellm_params": parameters}],
        "litellm_settings": {"callbacks": ["prometheus"]},
    }
    config.write_text(yaml.safe_dump(content), "utf-8")
    environment = LITELLM.environment(site.cache)
    process = processes.start(
        [str(environment / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)],
        core=site.core,
        log=site.folder / "litellm.log",
        cwd=site.folder,
        LITELLM_MASTER_KEY=LITELLM_KEY,
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        PATH=f"{environment / 'bin'}:/usr/bin:/bin",
    )
    metrics_url = f"http://127.0.0.1:{port}/metrics/"
    return Target(name="litellm", port=port, process=process, api_key=LITELLM_KEY, metrics_url=metrics_url)


def _ours(site: Site, tree: Path = _REPOSITORY) -> Target:
    return start_ours(site, ours_config(site), tree=tree)


def _ours_compiled(site: Site) -> Target:
    return _ours(site, compiled(_REPOSITORY, site.cache))


def ours_config(site: Site, **gateway: Any) -> dict[str, Any]:
    """Wattgate's configuration before one engine, with bounds that no load here reaches."""
    bounds = {"max_in_flight": 20_000, "max_queue": 20_000, "max_connections_per_replica": 20_000}
    engine = {"name": "mock", "model": "demo", "precision": "bf16", "url": f"http://127.0.0.1:{site.engine}"}
    return {
        "gateway": {"port": free_port(), "drain_timeout_s": 2, **bounds, **gateway},
        "control": {"port": free_port()},
        "engines": [engine],
    }


def start_ours(site: Site, config: dict[str, Any], *, tree: Path = _REPOSITORY) -> Target:
    """`wattgate up` of the checkout `tree`, without waiting."""
    port = config["gateway"]["port"]
    path = site.folder / f"wattgate-{port}.yaml"
    path.write_text(yaml.safe_dump({"state_dir": str(site.folder / f"state-{port}"), **config}), "utf-8")
    argv = [sys.executable, "-m", "server", "up", "--config", str(path)]
    process = processes.start(argv, core=site.core, log=site.folder / f"wattgate-{port}.log", cwd=tree)
    metrics_url = f"http://127.0.0.1:{config['control']['port']}/metrics"
    return Target(name="ours", port=port, process=process, metrics_url=metrics_url)


TARGETS: Final[Mapping[str, Callable[..., Target]]] = {
    "direct": _direct,
    "nginx": _nginx,
    "vllm-router": _vllm_router,
    "smg": _smg,
    "litellm": _litellm,
    "ours": _ours,
    "ours-compiled": _ours_compiled,
}
