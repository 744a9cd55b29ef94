"""The peers, and Wattgate compiled: each in a folder of its own, made when it is first wanted."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["LITELLM", "PEERS", "SMG", "VLLM_ROUTER", "Peer", "PeerMissingError", "compiled"]

_PIP: Final = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet")


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
        _quietly([str(folder / "bin" / "python"), *_PIP, *self.requirements])
        done.touch()
        return folder


def compiled(tree: Path, cache: Path) -> Path:
    """A folder with the packages of the checkout `tree`, compiled: run there, they run so. Raises PeerMissingError.

    What stands there already is of use as long as its sources have not changed.
    """
    folder = cache / "ours-compiled"
    sources, mark = _fingerprint(tree), folder / ".installed"
    if mark.exists() and mark.read_text("utf-8") == sources:
        return folder
    print(f"compiling {tree} into {folder}; this takes some minutes", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="wattgate-compile-") as copy:  # a build leaves much behind
        for path in _sources(tree):
            place = Path(copy, path.relative_to(tree))
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
        _quietly([sys.executable, *_PIP, "--no-deps", "--target", str(folder), copy], WATTGATE_COMPILE="1")
    if not any(folder.glob("*.so")):
        raise PeerMissingError("nothing was compiled")
    mark.write_text(sources, "utf-8")
    return folder


def _sources(tree: Path) -> list[Path]:
    files = (tree / name for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"))
    modules = (path for path in sorted((tree / "server").rglob("*")) if "__pycache__" not in path.parts)
    return [path for path in (*files, *modules) if path.is_file()]


def _fingerprint(tree: Path) -> str:
    """Of the sources and the interpreter."""
    digest = hashlib.sha256(sys.version.encode())
    for path in _sources(tree):
        digest.update(b"%b %d " % (str(path.relative_to(tree)).encode(), path.stat().st_size))
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _quietly(argv: list[str], **env: str) -> None:
    """Run with low priority; what pip says is told only if it fails, and then its last line."""
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},  # noqa: TID251  # as a shell would
        preexec_fn=lambda: os.nice(10) and None,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise PeerMissingError(lines[-1] if lines else f"{argv[0]} ended with {done.returncode}")


VLLM_ROUTER: Final = Peer(name="vllm-router", version="0.1.17", requirements=("vllm-router==0.1.17",))
SMG: Final = Peer(name="smg", version="1.13.0", requirements=("smg==1.13.0",))
LITELLM: Final = Peer(name="litellm", version="1.106.2", requirements=("litellm[proxy]==1.106.2", "prometheus_client"))
PEERS: Final = (VLLM_ROUTER, SMG, LITELLM)
