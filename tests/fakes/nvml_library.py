"""The real pynvml on a compiled stub of NVIDIA's library, whose hardware the test describes."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["H200", "NvmlLibrary", "compile_stub"]

_SOURCE = Path(__file__).with_name("nvml_stub") / "nvml_stub.c"
H200 = {
    "name": "NVIDIA H200",
    "energy_mj": 5_000,
    "mig": 0,
    "power_mw": 75_000,
    "memory_bytes": 150_000_000_000,
    "capability": "9.0",
    "utilization": 0,
    "processes": "",
    "gpm": 1,
}
"""What a GPU says unless the test says otherwise."""


def compile_stub(folder: Path) -> Path:
    """The stub under the name by which pynvml loads the library; put `folder` into LD_LIBRARY_PATH to have it found."""
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-O1", "-o", library, _SOURCE], check=True, timeout=60
    )
    return library


class NvmlLibrary:
    """A host with GPUs. `gpu(0, energy_mj=…)` changes one; `None` takes a fact away, and NVML says Not Supported."""

    def __init__(self, library: Path, script: Path) -> None:
        self.script = script
        self._library: Any = ctypes.CDLL(str(library))
        self._library.nvml_stub_script(str(script).encode())
        self._facts: dict[str, object] = {"driver": "580.65.06", "gpus": 0, "generation": 0}
        self._bindings = _fresh_bindings(self._library)
        self.add_gpu()

    def load(self) -> ModuleType:
        """As `importlib.import_module("pynvml")`, but on the stub."""
        return self._bindings

    def add_gpu(self, **facts: object) -> None:
        index = int(str(self._facts["gpus"]))
        self._facts["gpus"] = index + 1
        self.gpu(index, **{**H200, **facts})

    def gpu(self, index: int, **facts: object) -> None:
        self.host(**{f"{index}.{key}": value for key, value in facts.items()})

    def host(self, **facts: object) -> None:
        """`gpus`, `driver`; `init_error` is an nvmlReturn_t."""
        self._facts.update(facts)
        lines = [f"{key} {value}\n" for key, value in self._facts.items() if value is not None]
        self.script.write_text("".join(lines), encoding="ascii")

    def reload_driver(self) -> None:
        """What was opened before is lost, and every counter begins anew."""
        self.host(generation=int(str(self._facts["generation"])) + 1)

    @property
    def calls(self) -> int:
        """How often the library was called."""
        return int(self._library.nvml_stub_calls())

    @property
    def started(self) -> int:
        """nvmlInit less nvmlShutdown."""
        return int(self._library.nvml_stub_started())


def _fresh_bindings(library: Any) -> ModuleType:
    """pynvml keeps its library in a global of the module: a module of our own leaves the real one as it is."""
    real = importlib.util.find_spec("pynvml")
    assert real is not None
    assert real.origin is not None
    spec = importlib.util.spec_from_file_location("pynvml_on_a_stub", real.origin)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # it looks for itself there while it is loaded
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    module.nvmlLib = library  # type: ignore[attr-defined]
    return module
