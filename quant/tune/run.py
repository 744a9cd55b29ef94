"""One training: base and examples in, a folder that is whole or absent out."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoTokenizer

from quant.adapters.peft_model import load_base
from quant.errors import SourceError
from quant.run_energy import EnergyCounter
from quant.tune.examples import read_examples, split
from quant.tune.gauges import Gauges, Machine, OnCpu, OnGpu
from quant.tune.loop import fit, held_out_loss
from quant.tune.methods import Start, method_of
from quant.tune.settings import Settings
from quant.whole_directory import whole_directory

__all__ = ["TRAINING_FILE", "Order", "Trainer"]

TRAINING_FILE: Final = "training.json"
_SHOWN: Final = 10
"""Progress lines, and points of the loss curve."""
_DIGITS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to train on what."""

    base: Path
    data: Path
    method: str
    settings: Settings
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """Trains, and tells how it goes."""

    say: Callable[[str], None]
    counter: EnergyCounter | None

    def tune(self, order: Order, out: Path) -> dict[str, Any]:
        """Write the result and `training.json` into `out`, whole or absent; returns what `training.json` holds.

        Memory: the model in float32, and the optimizer's two copies of what is trained. Raises a `QuantError`.
        """
        method, settings = method_of(order.method), order.settings
        tokenizer = _tokenizer(order.base)
        examples = read_examples(order.data, tokenizer, settings.length)
        train, judged = split(examples, settings.held_out, settings.seed)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        rate = method.rate if settings.rate is None else settings.rate
        torch.manual_seed(settings.seed)
        with whole_directory(out) as folder, tempfile.TemporaryDirectory(prefix="tune-") as scratch:
            model = load_base(order.base).to(order.device)
            before = held_out_loss(model, judged, pad)
            trainee = method.prepare(Start(model=model, base=order.base, scratch=Path(scratch), settings=settings))
            gauges = Gauges(_machine(order.device), clock=time.monotonic, joules=self._joules)
            losses = self._told(order, fit(trainee, train, settings, gauges, rate=rate, pad=pad))
            metrics = gauges.report(trainee.parameters)
            after = held_out_loss(trainee.model, judged, pad)
            trainee.save(folder)
            facts = {
                "method": order.method,
                "settings": asdict(settings) | {"rate": rate},
                "examples": len(train),
                "held_out_examples": len(judged),
                "trained_parameters": trainee.parameters,
                "size_bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
                "loss": _rounded(_recent(losses)),
                "held_out_loss_before": _rounded(before),
                "held_out_loss_after": _rounded(after),
                "metrics": metrics,
                "energy_meter": self.counter.kind if self.counter else None,
                "device": torch.cuda.get_device_name(order.device) if order.device.startswith("cuda") else "cpu",
                "tools": {name: version(name) for name in ("torch", "peft", "transformers")},
                "threads": torch.get_num_threads(),
            }
            (folder / TRAINING_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        return facts

    def _told(self, order: Order, steps: Iterable[float]) -> list[float]:
        """Every step's loss; says a few of them, and reads the counter so that it never wraps twice in between."""
        losses: list[float] = []
        for loss in steps:
            losses.append(loss)
            if len(losses) % max(order.settings.steps // _SHOWN, 1) == 0:
                self.say(f"{order.method} step {len(losses)}/{order.settings.steps} loss {_recent(losses):.3f}")
                self._joules()
        return losses

    def _joules(self) -> float | None:
        return self.counter.joules() if self.counter else None


def _recent(losses: Sequence[float]) -> float:
    """The mean of the last tenth."""
    recent = losses[-max(len(losses) // _SHOWN, 1) :]
    return sum(recent) / len(recent)


def _rounded(loss: float | None) -> float | None:
    return None if loss is None else round(loss, _DIGITS)


def _tokenizer(base: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError) as exc:
        raise SourceError(f"{base} has no tokenizer that can be read. Copy it from the original model.") from exc


def _machine(device: str) -> Machine:
    return OnGpu(device, torch.cuda) if device.startswith("cuda") else OnCpu.now(time.monotonic)
