"""The peers: each in an environment of its own, made when it is first wanted."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["LITELLM", "PEERS", "SMG", "VLLM_ROUTER", "Peer", "PeerMissingError"]


class PeerMissingError(Exception):
    """A peer cannot be installed or does not start here; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A public gateway or router at one version."""

    name: str
    version: str
    requirements: tuple[str, ...]

    def environment(self, cache: Path) -> Path:
        """The peer's virtual environment, with the peer in it. Raises PeerMissingError."""
        folder = cache / f"{self.name}-{self.version}"
        done = folder / ".installed"
        if done.exists():
            return folder
        print(f"installing {self.name} {self.version} into {folder}", flush=True)
        _quietly([sys.executable, "-m", "venv", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        _quietly([*pip, *self.requirements])
        done.touch()
        return folder


def _quietly(argv: list[str]) -> None:
    """Run with low priority; what pip says is told only if it fails, and then its last line."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, preexec_fn=lambda: os.nice(10) and None)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise PeerMissingError(lines[-1] if lines else f"{argv[0]} ended with {done.returncode}")


VLLM_ROUTER: Final = Peer(name="vllm-router", version="0.1.17", requirements=("vllm-router==0.1.17",))
SMG: Final = Peer(name="smg", version="1.13.0", requirements=("smg==1.13.0",))
LITELLM: Final = Peer(name="litellm", version="1.106.2", requirements=("litellm[proxy]==1.106.2", "prometheus_client"))
PEERS: Final = (VLLM_ROUTER, SMG, LITELLM)
