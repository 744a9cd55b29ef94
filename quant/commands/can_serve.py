"""`quant can-serve CHECKPOINT [--adapter A] --device D`: yes, or no with the rule and what would work instead."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from quant.can_serve import LARGEST_RANK, Question, Verdict, devices_that_can, judge
from server.errors import CheckpointError
from server.models import DeviceFacts, read_adapter, read_checkpoint
from server.models.device import DEVICES
from server.units import Bytes

__all__ = ["add"]

_YES, _NO, _WRONG_INPUT = 0, 1, 2
_BYTES_PER_GIB: Final = 2**30


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "can-serve",
        help="can an engine on this device serve a checkpoint? exit status 0 yes, 1 no, 2 wrong input",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder with config.json")
    parser.add_argument("--adapter", type=Path, help="folder with adapter_config.json, to be served with it")
    parser.add_argument("--device", required=True, help=", ".join(DEVICES))
    parser.add_argument("--dtype", help="the engine's --dtype (default: the checkpoint's own)")
    parser.add_argument("--max-rank", type=int, default=LARGEST_RANK, help="the engine's limit of an adapter's rank")
    parser.add_argument("--memory-gib", type=float, help="memory that weights may take on a GPU")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_can_serve)


def _can_serve(options: argparse.Namespace) -> int:
    device = DEVICES.get(options.device)
    if device is None:
        return _wrong(f"There is no device {options.device!r}. Choose one of: {', '.join(DEVICES)}.")
    try:
        question = _question(options)
    except CheckpointError as exc:
        return _wrong(str(exc))
    verdict = judge(question, _with_memory(device, options.memory_gib))
    answer = _answer(options, question, verdict)
    print(json.dumps(answer, indent=2) if options.json else _sentence(answer))
    return _YES if verdict.served else _NO


def _question(options: argparse.Namespace) -> Question:
    return Question(
        checkpoint=read_checkpoint(options.checkpoint),
        adapter=read_adapter(options.adapter) if options.adapter else None,
        dtype=options.dtype,
        max_rank=options.max_rank,
    )


def _with_memory(device: DeviceFacts, gib: float | None) -> DeviceFacts:
    return device if gib is None else replace(device, memory_bytes=Bytes(int(gib * _BYTES_PER_GIB)))


def _answer(options: argparse.Namespace, question: Question, verdict: Verdict) -> dict[str, Any]:
    card = question.checkpoint.card
    return {
        "checkpoint": str(options.checkpoint),
        "adapter": str(options.adapter) if options.adapter else None,
        "device": options.device,
        "can_serve": verdict.served,
        "rule": verdict.rule,
        "because": verdict.because,
        "instead": verdict.instead,
        "devices": list(devices_that_can(question)),
        "precision": card.precision,
        "scheme": card.scheme,
        "size_bytes": card.size_bytes,
    }


def _sentence(answer: dict[str, Any]) -> str:
    what = answer["checkpoint"] + (f" with {answer['adapter']}" if answer["adapter"] else "")
    stored = answer["scheme"] or answer["precision"]
    if answer["can_serve"]:
        return f"yes: no rule speaks against {what} ({stored}) on {answer['device']}."
    others = ", ".join(answer["devices"]) or "none that is known here"
    return (
        f"no: {answer['because']} (rule {answer['rule']})\n"
        f"instead: {answer['instead']}\n"
        f"devices that can serve {what}: {others}"
    )


def _wrong(message: str) -> int:
    print(f"quant: {message}", file=sys.stderr)
    return _WRONG_INPUT
