"""`python -m quant.compressor METHOD SOURCE OUT --options JSON`, in the quant environment.

Ends with one JSON line on stdout; a refusal is one line on stderr and exit status 1. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from quant.compressor.table import COMPRESSOR_METHODS, method_options
from quant.errors import QuantError, SchemeError

__all__ = ["main"]

_INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports it
_TOOLS: Final = ("llmcompressor", "compressed-tensors", "transformers", "torch")
_BYTES_PER_RSS_UNIT: Final = 1024 if sys.platform == "linux" else 1  # ru_maxrss, getrusage(2)


def main(arguments: Sequence[str]) -> int:
    """Run one method."""
    given = _parser().parse_args(arguments)
    # A caller that gives up sends SIGTERM: leave no half of an output folder then either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(json.dumps(_run(given)), flush=True)
    except QuantError as exc:
        print(f"quant: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("quant: interrupted; nothing is left behind.", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _run(given: argparse.Namespace) -> dict[str, Any]:
    options = method_options(given.method, _json(given.options))
    # After the options, so that a wrong one is refused at once; before the logger, which llm-compressor sets up.
    from loguru import logger  # noqa: PLC0415

    from quant.compressor.compress import compress  # noqa: PLC0415

    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    began = time.monotonic()
    outcome = compress(given.method, given.source, given.out, options)
    return {
        "seconds": round(time.monotonic() - began, 3),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES_PER_RSS_UNIT,
        "tools": {name: version(name) for name in _TOOLS},
        "calibration_sha256": outcome.calibration_sha256,
    }


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise SchemeError(f"--options is no JSON: {exc}.") from exc
    if not isinstance(value, dict):
        raise SchemeError('--options is no JSON object. Give for example {"group_size": 64}.')
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quant.compressor", description="One variant by llm-compressor.")
    parser.add_argument("method", metavar="METHOD", help=", ".join(COMPRESSOR_METHODS))
    parser.add_argument("source", type=Path, metavar="SOURCE", help="checkpoint directory in bf16, fp16 or fp32")
    parser.add_argument("out", type=Path, metavar="OUT", help="directory to create; must not exist")
    parser.add_argument("--options", default="{}", metavar="JSON", help="what a recipe may say of the method")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
