"""The command line of `python -m quant`.

Heavy modules are imported by the command that needs them: torch takes seconds, `--help` must not.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from quant.errors import QuantError, SourceError

__all__ = ["main"]

_HELD_OUT: Final = Path(__file__).parent / "demo" / "heldout.txt"


def main(arguments: Sequence[str]) -> int:
    """Run one command; 0 if it worked, 1 with one line on stderr if it was refused, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except QuantError as exc:
        print(f"quant: {exc}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quant", description="Make variants of a checkpoint; judge them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    rtn = commands.add_parser("rtn", help="round a checkpoint to integers (round to nearest)")
    rtn.add_argument("source", type=Path, metavar="SOURCE", help="checkpoint directory in bf16, fp16 or fp32")
    rtn.add_argument("out", type=Path, metavar="OUT", help="directory to create; must not exist")
    rtn.add_argument("--scheme", required=True, help="w8a8-int8 or w4a16")
    rtn.add_argument("--group-size", type=int, help="w4a16: inputs that share a scale, 32, 64 or 128 (default 128)")
    rtn.set_defaults(command=_rtn)
    judge = commands.add_parser("perplexity", help="held-out perplexity of a checkpoint, or of a running engine")
    judge.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="directory; its tokenizer is used")
    judge.add_argument("--text", type=Path, default=_HELD_OUT, help="text file (default: the demo's held-out text)")
    judge.add_argument("--window", type=int, default=512, help="tokens scored together (default 512)")
    judge.add_argument("--url", help="measure this vLLM engine instead, e.g. http://127.0.0.1:8000")
    judge.add_argument("--model", help="the model's name there")
    judge.add_argument("--api-key-env", help="environment variable that holds the engine's key")
    judge.set_defaults(command=_perplexity)
    return parser


def _rtn(options: argparse.Namespace) -> None:
    from quant.methods import Options, method_of  # noqa: PLC0415
    from quant.rtn import round_to_nearest  # noqa: PLC0415

    method = method_of(options.scheme, Options(group_size=options.group_size))
    round_to_nearest(options.source, options.out, method)
    size = sum(file.stat().st_size for file in options.out.glob("*.safetensors"))
    print(f"{options.out}: {options.scheme}, {size / 1e6:.2f} MB of weights")


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
