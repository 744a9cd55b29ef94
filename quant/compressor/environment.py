"""Where the quant environment's Python is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from quant.errors import QuantError

__all__ = ["quant_python"]

_PYTHON: Final = Path(__file__).resolve().parents[2] / ".venv-quant" / "bin" / "python"


def quant_python() -> Path:
    """The Python with llm-compressor and PEFT. Raises `QuantError` that says how to make it."""
    if not _PYTHON.exists():
        raise QuantError("There is no quant environment with llm-compressor and PEFT. Make it: make .venv-quant")
    return _PYTHON
