"""What a variant was made of and with: digests, tools, the cache's key, manifest.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any, Final

from quant.errors import SourceError
from server.models.manifest import MANIFEST_FILE, Manifest

__all__ = [
    "combined_sha256",
    "digests_of",
    "files_of",
    "key_of",
    "own_tools",
    "sha256_of",
    "tools_in",
    "write_manifest",
]

_WRITER: Final = 2
"""To be raised when the own methods write other bytes than before: what was cached is then made again."""
_COMPRESSOR_TOOLS: Final = ("llmcompressor", "compressed-tensors", "transformers", "torch")
_HASHED_AT_ONCE: Final = 4


def sha256_of(path: Path) -> str:
    """Raises `SourceError` for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise SourceError(f"{path} cannot be read: {exc.strerror or exc}. Check the file and its rights.") from exc


def digests_of(files: Iterable[Path], digest: Callable[[Path], str] = sha256_of) -> dict[str, str]:
    """File name → digest, sorted by name; several files at a time."""
    ordered = sorted(files)
    with ThreadPoolExecutor(_HASHED_AT_ONCE, "sha256") as pool:
        return dict(zip((file.name for file in ordered), pool.map(digest, ordered), strict=True))


def combined_sha256(digests: Mapping[str, str]) -> str:
    """One digest for all: that of the only file, or of lines "digest  name"."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def key_of(sources: Mapping[str, str], made: Mapping[str, Any]) -> str:
    """The cache's key: equal keys, equal weights. `made`: method, scheme, options, tools."""
    text = json.dumps({"sources": dict(sources), **made}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def own_tools() -> dict[str, str]:
    """Versions of what the own methods run on."""
    return {"wattgate": _version("wattgate"), "writer": str(_WRITER), "torch": _version("torch")}


def tools_in(python: Path) -> dict[str, str]:
    """Versions of llm-compressor and what it runs on, in the environment of `python`; read, not run."""
    folders = [str(folder) for folder in (python.parents[1] / "lib").glob("python*/site-packages")]
    found = {package.metadata["Name"]: package.version for package in distributions(path=folders)}
    return {name: found[name] for name in _COMPRESSOR_TOOLS if name in found}


def files_of(folder: Path) -> dict[str, Any]:
    """Digest and size of every file of a finished variant, for its manifest."""
    paths = [path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST_FILE]
    sizes = {path.name: path.stat().st_size for path in paths}
    return {name: {"sha256": digest, "size_bytes": sizes[name]} for name, digest in digests_of(paths).items()}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
