"""`quant perplexity CHECKPOINT`: held-out perplexity, offline or of a running engine."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Final

from quant.errors import SourceError

__all__ = ["add"]

_HELD_OUT: Final = Path(__file__).parents[1] / "demo" / "heldout.txt"


def add(commands: Any) -> None:
    judge = commands.add_parser("perplexity", help="held-out perplexity of a checkpoint, or of a running engine")
    judge.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="directory; its tokenizer is used")
    judge.add_argument("--text", type=Path, default=_HELD_OUT, help="text file (default: the demo's held-out text)")
    judge.add_argument("--window", type=int, default=512, help="tokens scored together (default 512)")
    judge.add_argument("--url", help="measure this vLLM engine instead, e.g. http://127.0.0.1:8000")
    judge.add_argument("--model", help="the model's name there")
    judge.add_argument("--api-key-env", help="environment variable that holds the engine's key")
    judge.set_defaults(command=_perplexity)


def _perplexity(options: argparse.Namespace) -> None:
    from quant.evaluate import perplexity_of_checkpoint, token_windows  # noqa: PLC0415
    from quant.served import Endpoint, perplexity_served  # noqa: PLC0415

    text = _read_text(options.text)
    if options.url is None:
        print(f"{perplexity_of_checkpoint(options.checkpoint, text, options.window):.4f}")
        return
    key = os.environ.get(options.api_key_env) if options.api_key_env else None  # noqa: TID251 - named by the user
    endpoint = Endpoint(url=options.url.rstrip("/"), model=options.model or "", api_key=key)
    print(f"{perplexity_served(endpoint, token_windows(options.checkpoint, text, options.window)):.4f}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SourceError(f"{path} cannot be read as text: {exc}. Give a UTF-8 file.") from exc
