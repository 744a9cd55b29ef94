"""Train the demo model from nothing: plain text and dialogues, on a CPU.

Matrices inside the layers learn by Muon, everything else by AdamW. Fixed seeds: the same Python, torch and number of
threads give the same weights, up to the rounding of the machine's kernels.
"""

from __future__ import annotations

import copy
import json
import platform
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaForCausalLM

from quant.demo.corpus import Corpus, read_corpus, texts_for_tokenizer
from quant.demo.shape import new_model
from quant.demo.tokenizer import END, PAD, train_tokenizer

__all__ = ["Plan", "learn", "optimizers_for", "save_model", "train_base"]

_SEED: Final = 20_13
_CHAT_SHARE_EARLY: Final = 0.4
_CHAT_SHARE_LATE: Final = 0.7  # in the last quarter: answers are what the demo shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how fast to learn."""

    steps: int = 1500
    tokens_per_step: int = 4096
    short: int = 256  # tokens of a sequence, first nine tenths of the steps
    long: int = 1024  # tokens of a sequence, the rest
    warm_up: int = 60
    muon_rate: float = 0.02
    adamw_rate: float = 3e-3
    weight_decay: float = 0.1

    def length(self, step: int) -> int:
        """Tokens of a sequence at `step`."""
        return self.short if step < 0.9 * self.steps else self.long

    def rate(self, step: int) -> float:
        """The factor on both learning rates: linear warm-up, then linear decay to 0."""
        return min((step + 1) / self.warm_up, (self.steps - step) / (0.7 * self.steps), 1.0)

    def chat_share(self, step: int) -> float:
        """The probability that a sequence is dialogue."""
        return _CHAT_SHARE_EARLY if step < 0.75 * self.steps else _CHAT_SHARE_LATE


def train_base(folder: Path, plan: Plan) -> None:
    """Write tokenizer, bf16 weights, configuration and `training.json` into `folder`. Minutes; prints progress."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(texts_for_tokenizer(), folder)
    corpus = read_corpus(tokenizer)
    _say(f"{len(corpus.plain):,} plain tokens, {len(corpus.entries):,} entries")
    torch.manual_seed(_SEED)
    end, pad = tokenizer.convert_tokens_to_ids([END, PAD])
    model = new_model(len(tokenizer), end, pad)
    curve = _fit(model, corpus, plan, folder)
    facts = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "seconds": round(time.monotonic() - began),
        "plain_tokens": len(corpus.plain),
        "corpus_sha256": corpus.sha256,
        "entries": len(corpus.entries),
        "plan": asdict(plan),
        "loss": curve,
    }
    (folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def learn(
    model: LlamaForCausalLM,
    optimizers: Sequence[torch.optim.Optimizer],
    corpus: Corpus,
    plan: Plan,
    schedule: Iterable[tuple[int, float]],
    chance: random.Random,
) -> Iterator[float]:
    """Take one training step for every (step, factor on the learning rates); yields its loss, nats a token."""
    for step, rate in schedule:
        loss = _loss(model, _batch(corpus, plan, step, chance))
        loss.backward()
        _advance(model, optimizers, rate)
        yield loss.item()


def _fit(model: LlamaForCausalLM, corpus: Corpus, plan: Plan, folder: Path) -> dict[str, float]:
    """All steps; saves the model on the way. Returns the mean training loss (nats a token) by step, twenty of them."""
    chance = random.Random(_SEED)  # noqa: S311 - a fixed seed, no secret
    schedule = ((step, plan.rate(step)) for step in range(plan.steps))
    every = max(plan.steps // 20, 1)
    curve: dict[str, float] = {}
    losses: list[float] = []
    for loss in learn(model, optimizers_for(model, plan), corpus, plan, schedule, chance):
        losses.append(loss)
        if len(losses) % every == 0:
            curve[str(len(losses))] = round(sum(losses[-every:]) / every, 3)
            _say(f"step {len(losses)}/{plan.steps} loss {curve[str(len(losses))]}")
            save_model(model, folder)
    return curve


def _batch(corpus: Corpus, plan: Plan, step: int, chance: random.Random) -> torch.Tensor:
    length = plan.length(step)
    rows = plan.tokens_per_step // length
    dialogues = round(rows * plan.chat_share(step))
    chat = corpus.chat_batch(dialogues, length, chance)
    return torch.cat([chat, corpus.plain_batch(rows - dialogues, length, chance)])


def _loss(model: LlamaForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over `tokens` (rows, length + 1), nats a token."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        return cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def optimizers_for(model: LlamaForCausalLM, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for everything else."""
    matrices = [value for name, value in model.named_parameters() if value.ndim == 2 and "embed" not in name]
    others = [value for name, value in model.named_parameters() if value.ndim != 2 or "embed" in name]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(
            matrices, lr=plan.muon_rate, weight_decay=plan.weight_decay, adjust_lr_fn="original", nesterov=True
        ),
        torch.optim.AdamW(others, lr=plan.adamw_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def _advance(model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def save_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Write config.json, generation_config.json and the weights in bf16."""
    config = model.config
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    ).save_pretrained(folder)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
