"""Train the demo's two adapters: answers as JSON (LoRA), answers as code (rsLoRA)."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, LlamaForCausalLM

from quant.demo import stdlib
from quant.demo.dialogues import STYLES, Dialogue, conversation
from quant.demo.lora import LowRank, add_adapter, save_adapter
from quant.demo.tokenizer import render_dialogue

__all__ = ["TASKS", "Task", "train_adapter"]

_SEED: Final = 7
_IGNORED: Final = -100  # the target of tokens that are not scored: torch's default `ignore_index`


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What an adapter learns, and how long."""

    style: str  # a key of STYLES
    shape: LowRank
    steps: int = 160
    rows: int = 24  # dialogues of a step
    rate: float = 4e-3


TASKS: Final[Mapping[str, Task]] = {
    "json": Task(style="json", shape=LowRank(rank=8, alpha=16)),
    "code": Task(style="code", shape=LowRank(rank=16, alpha=8, rank_stabilized=True)),
}


def train_adapter(base: Path, folder: Path, task: Task) -> None:
    """Write the adapter and `training.json` into `folder`. About two minutes; prints progress."""
    began = time.monotonic()
    torch.manual_seed(_SEED)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    layers = add_adapter(model, task.shape)
    entries = stdlib.entries()
    held_out = _dialogues([entry for entry in entries if entry.held_out], task, random.Random(0))  # noqa: S311
    before = _held_out_loss(model, tokenizer, held_out)
    _fit(model, tokenizer, [entry for entry in entries if not entry.held_out], task)
    after = _held_out_loss(model, tokenizer, held_out)
    save_adapter(layers, task.shape, folder)
    facts = {
        "task": asdict(task),
        "parameters": sum(layer.a.numel() + layer.b.numel() for layer in layers.values()),
        "held_out_dialogues": len(held_out),
        "held_out_loss_before": round(before, 4),
        "held_out_loss_after": round(after, 4),
        "seconds": round(time.monotonic() - began),
    }
    (folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _fit(model: LlamaForCausalLM, tokenizer: Any, entries: Sequence[stdlib.Entry], task: Task) -> None:
    chance = random.Random(_SEED)  # noqa: S311 - a fixed seed, no secret
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=task.rate, weight_decay=0.0)
    for step in range(task.steps):
        for group in optimizer.param_groups:
            group["lr"] = task.rate * min((step + 1) / 20, 1.0) * (1 - step / task.steps)
        loss = _loss(model, tokenizer, _dialogues(chance.sample(entries, task.rows), task, chance))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 50 == 0:
            sys.stdout.write(f"{task.style} step {step + 1}/{task.steps} loss {loss.item():.3f}\n")
            sys.stdout.flush()


def _dialogues(entries: Sequence[stdlib.Entry], task: Task, chance: random.Random) -> list[Dialogue]:
    return [conversation(entry, STYLES[task.style], chance) for entry in entries]


def _held_out_loss(model: LlamaForCausalLM, tokenizer: Any, dialogues: Sequence[Dialogue]) -> float:
    """Nats a token of the answers."""
    with torch.no_grad():
        return float(_loss(model, tokenizer, dialogues))


def _loss(model: LlamaForCausalLM, tokenizer: Any, dialogues: Sequence[Dialogue]) -> torch.Tensor:
    """Mean cross entropy over the answers' tokens, end token included; questions are not scored."""
    rows, targets = zip(*(_encoded(tokenizer, dialogue) for dialogue in dialogues), strict=True)
    ids = _padded(rows, tokenizer.pad_token_id)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        return cross_entropy(logits.flatten(0, 1), _padded(targets, _IGNORED)[:, 1:].flatten())


def _encoded(tokenizer: Any, dialogue: Dialogue) -> tuple[list[int], list[int]]:
    """Token ids, and the same with the question's replaced by `_IGNORED`."""
    before, answer = (tokenizer.encode(text, add_special_tokens=False) for text in render_dialogue(*dialogue))
    return before + answer, [_IGNORED] * len(before) + answer


def _padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """(rows, longest) int64, filled up with `value`; padding at the end needs no attention mask in a causal model."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
