"""`quant tune BASE DATA.jsonl OUT --method …`: train a small adapter; say what the training cost."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from quant.errors import SchemeError

if TYPE_CHECKING:
    from quant.tune.run import Order, Trainer

__all__ = ["add"]

_METHODS: Final = ("lora", "lora+", "rslora", "dora", "pissa", "freeze", "full")
_ALL: Final = "all"
_KEY_VARIABLE: Final = "WATTGATE_ADMIN_KEY"
_WORDS: Final = {
    "amu_ratio": "AMU {:.1%} of the memory, on average",
    "pcu_ratio": "PCU {:.1%} of the compute was busy",
    "al_seconds_per_step": "AL {:.4g} s a step",
    "st_samples_per_second": "ST {:.4g} samples/s",
    "aec_watts": "AEC {:.4g} W",
    "joules_per_sample": "{:.4g} J a sample",
}


def add(commands: Any) -> None:
    tune = commands.add_parser("tune", help="train an adapter (or the model) on a JSONL file; say what that cost")
    tune.add_argument("base", type=Path, metavar="BASE", help="checkpoint in bf16, fp16 or fp32")
    tune.add_argument("data", type=Path, metavar="DATA.jsonl", help="lines with prompt and completion, or messages")
    tune.add_argument("out", type=Path, metavar="OUT", help="directory to create; must not exist")
    tune.add_argument(
        "--method", choices=(*_METHODS, _ALL), default="lora", help="default lora; all: every one, compared"
    )
    tune.add_argument("--steps", type=int, default=100, help="optimizer steps (default 100)")
    tune.add_argument("--rows", type=int, default=8, help="examples of a step (default 8)")
    tune.add_argument("--rate", type=float, help="peak learning rate (default: the method's own)")
    tune.add_argument("--rank", type=int, default=8, help="of the low-rank methods (default 8)")
    tune.add_argument("--alpha", type=int, default=16, help="of the low-rank methods (default 16)")
    tune.add_argument("--layers", type=int, default=1, help="freeze: how many last layers are trained (default 1)")
    tune.add_argument("--length", type=int, default=512, help="tokens of an example at most (default 512)")
    tune.add_argument("--held-out", type=float, default=0.1, help="share of the examples to judge by (default 0.1)")
    tune.add_argument("--seed", type=int, default=0, help="equal seeds give equal weights on an equal machine")
    tune.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, …")
    tune.add_argument(
        "--control", metavar="URL", help="take joules from this control API (its key: WATTGATE_ADMIN_KEY), not RAPL"
    )
    tune.set_defaults(command=_tune)


def _tune(options: argparse.Namespace) -> int | None:
    from quant.adapters.quant_environment import command_line, elsewhere, has_peft  # noqa: PLC0415

    if not has_peft():
        return elsewhere(command_line(("tune",), options, ("base", "data", "out")))
    from quant.run_energy import energy_counter  # noqa: PLC0415
    from quant.tune.comparison import compare, markdown  # noqa: PLC0415
    from quant.tune.run import Order, Trainer  # noqa: PLC0415
    from quant.tune.settings import Settings  # noqa: PLC0415

    settings = Settings(**{name: getattr(options, name) for name in Settings.names()})
    _require_device(options.device)
    order = Order(base=options.base, data=options.data, method=options.method, settings=settings, device=options.device)
    key = os.environ.get(_KEY_VARIABLE)  # noqa: TID251 - a secret comes by the environment
    trainer = Trainer(say=_say, counter=energy_counter(options.control, key))
    if options.method == _ALL:
        print(markdown(compare(trainer, order, _METHODS, options.out)))
    else:
        _one(trainer, order, options.out)
    return None


def _one(trainer: Trainer, order: Order, out: Path) -> None:
    facts = trainer.tune(order, out)
    before, after = facts["held_out_loss_before"], facts["held_out_loss_after"]
    judged = "" if after is None else f", held out {before:.3f} → {after:.3f}"
    print(f"{out}: {order.method}, {facts['trained_parameters']:,} parameters trained")
    print(f"loss {facts['loss']:.3f} nats a token{judged}")
    for name, words in _WORDS.items():
        if name in facts["metrics"]:
            print(words.format(facts["metrics"][name]))


def _require_device(name: str) -> None:
    import torch  # noqa: PLC0415

    try:
        device = torch.device(name)
        known = device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_available())
    except RuntimeError:
        known = False
    if not known:
        raise SchemeError(f"--device {name}: there is none here. Give cpu, or cuda on a machine with an NVIDIA GPU.")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
