"""`quant rtn SOURCE OUT --scheme …`: one variant by rounding to nearest, without a recipe."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

__all__ = ["add"]


def add(commands: Any) -> None:
    rtn = commands.add_parser("rtn", help="round a checkpoint to integers (round to nearest)")
    rtn.add_argument("source", type=Path, metavar="SOURCE", help="checkpoint directory in bf16, fp16 or fp32")
    rtn.add_argument("out", type=Path, metavar="OUT", help="directory to create; must not exist")
    rtn.add_argument("--scheme", required=True, help="w8a8-int8, w4a16, fp8-dynamic or fp8-block")
    rtn.add_argument("--group-size", type=int, help="w4a16: inputs that share a scale, 32, 64 or 128 (default 128)")
    rtn.set_defaults(command=_rtn)


def _rtn(options: argparse.Namespace) -> None:
    from quant.methods import Options, method_of  # noqa: PLC0415
    from quant.rtn import round_to_nearest  # noqa: PLC0415

    # One variant by hand takes what loses least; in a recipe one chooses.
    best = {"w4a16": Options(search=True), "w8a8-int8": Options(precise=True)}
    chosen = best.get(options.scheme, Options())
    if options.group_size is not None:
        chosen = replace(chosen, group_size=options.group_size)
    method = method_of(options.scheme, chosen)
    round_to_nearest(options.source, options.out, method)
    size = sum(file.stat().st_size for file in options.out.glob("*.safetensors"))
    print(f"{options.out}: {options.scheme}, {size / 1e6:.2f} MB of weights")
