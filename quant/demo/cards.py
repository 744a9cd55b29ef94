"""Model cards, written from what was measured."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from quant.demo.corpus import HELDOUT_FILE
from quant.demo.stdlib import HELD_OUT_MODULES
from quant.demo.tokenizer import render_dialogue
from quant.evaluate import perplexity_of_checkpoint
from quant.methods import Options, method_of
from quant.rtn import round_to_nearest

__all__ = ["write_cards", "write_quality"]

_WINDOW: Final = 512
_QUESTIONS: Final = ("What does json.dumps do?", "What is threading.Lock?", "Explain random.shuffle.", "Hello")
_SCHEMES: Final[Mapping[str, tuple[str, Options]]] = {
    "int8 (w8a8-int8)": ("w8a8-int8", Options(precise=True)),
    "int4 (w4a16, group 128)": ("w4a16", Options(group_size=128, search=True)),
    "int4 (w4a16, group 64)": ("w4a16", Options(group_size=64, search=True)),
    "int4 (w4a16, group 32)": ("w4a16", Options(group_size=32, search=True)),
}
_ANSWER_IN: Final = {"json": "a JSON object", "code": "a Python stub behind its import"}


_UNROUNDED: Final = "bf16"
_QUALITY_FILES: Final[Mapping[str, str]] = {
    _UNROUNDED: "quality.json",
    "int8 (w8a8-int8)": "quality.int8.json",
    "int4 (w4a16, group 128)": "quality.int4.json",
}
"""Of the base model, and of the variants that the demo makes of it."""


def write_cards(base: Path, adapters: Path) -> None:
    """Measure the base model; write README.md beside it and beside every adapter, and what was measured of quality."""
    found = _perplexities(base)
    for name, file in _QUALITY_FILES.items():
        write_quality(base, file, found[name])
    (base / "README.md").write_text(_base_card(base, found), encoding="utf-8")
    for folder in sorted(path.parent for path in adapters.glob("*/adapter_config.json")):
        (folder / "README.md").write_text(_adapter_card(folder), encoding="utf-8")


def write_quality(base: Path, file: str, perplexity: float) -> None:
    """Say for the gateway what was measured (docs/efficiency.md); the digest names the weights that it is true of."""
    score = {
        "metric": "perplexity",
        "dataset": "heldout",
        "value": round(perplexity, 4),
        "measured_at": datetime.now(UTC).date().isoformat(),
        "window": _WINDOW,
    }
    weights = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    content = {"scores": [score], "base_weights_sha256": weights}
    (base / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _base_card(base: Path, perplexities: Mapping[str, float]) -> str:
    facts = _facts(base)
    losses = ", ".join(f"{loss} at step {step}" for step, loss in list(facts["loss"].items())[:-1:4])
    plan = facts["plan"]
    settling = facts["settling"]
    seconds = f"{(facts['seconds'] + settling['seconds']) / 60:.0f} minutes on {facts['threads']} threads"
    return f"""# demo: a very small Llama for trying Wattgate

A Llama-shaped language model of 4.2 million parameters, trained from nothing on the text that comes with every Python
installation. It answers questions such as "What does json.dumps do?" in prose and stops by itself. It is here so that
serving, quantization and adapters can be tried and measured anywhere; it is not a source of knowledge.

## Make it again

    rm -r models/demo adapters/json adapters/code
    .venv-engine/bin/python -m quant.demo all

{seconds} for this model and a few more for each adapter, on a machine that was busy with other work;
nothing is downloaded. Seeds are fixed: the same Python, torch and threads give the same model up to the rounding of the
machine's kernels. Another version of Python gives another text, hence
another model.

## Shape

Hidden 256, intermediate 768, 4 layers, 4 attention heads, 2 key-value heads of 64, vocabulary 4096 (byte-level BPE),
embeddings tied to the output, bf16. Trained on sequences of 256 and, in the last tenth, 1024 tokens;
`max_position_embeddings` is 2048, but nothing beyond 1024 was ever seen.

## Data

The standard library of Python {facts["python"]}: the sources, the language reference behind `help("topics")`, and
{facts["entries"]:,} questions with docstrings as answers. {facts["plain_tokens"]:,} tokens of plain text
(SHA-256 {facts["corpus_sha256"][:16]}…), about half of the training; dialogues are the rest.
Held out of everything: the modules {", ".join(sorted(HELD_OUT_MODULES))}.
The text and what the model repeats of it are under the Python Software Foundation licence (copyright © Python Software
Foundation; https://docs.python.org/3/license.html). The held-out text is
`quant/demo/heldout.txt`: unchanged beginnings of those modules.

## Training

{plan["steps"]} steps of {plan["tokens_per_step"]} tokens; Muon for the matrices inside the layers, AdamW for the rest;
linear decay to zero; torch {facts["torch"]}. Mean loss (nats a token, training mixture) falls quickly, then slowly:
{losses}; {list(facts["loss"].values())[-1]} at the end, where dialogues have a larger share.

Then {settling["steps"]} steps in which every layer computes with its weights rounded to int4 in groups of 128
(`settle.py`; loss {settling["loss"]}). Without them int4 costs 5.1 % of perplexity in groups of 128 and 2.4 % in groups
of 64 (measured on the model before these steps); with them groups of 128 are the best choice. A model that was not
prepared in this way may lose more by plain rounding.

## Quality

Perplexity on `quant/demo/heldout.txt` in windows of {_WINDOW} tokens, `python -m quant perplexity CHECKPOINT`,
variants made by `python -m quant rtn`:

| variant | perplexity | against bf16 |
|---|---|---|
{_perplexity_rows(perplexities)}

## What it says

At temperature 0:

{_samples(base)}

## Limits

It knows only what is written above, mixes things up freely, and answers questions about anything else with confident
nonsense. English only. Not for any use but trying the machinery.
"""


def _perplexities(base: Path) -> dict[str, float]:
    """Of the base model and its roundings on the held-out text."""
    text = HELDOUT_FILE.read_text(encoding="utf-8")
    found = {_UNROUNDED: perplexity_of_checkpoint(base, text, _WINDOW)}
    with tempfile.TemporaryDirectory() as folder:
        for name, (scheme, options) in _SCHEMES.items():
            out = Path(folder) / name
            round_to_nearest(base, out, method_of(scheme, options))
            found[name] = perplexity_of_checkpoint(out, text, _WINDOW)
    return found


def _perplexity_rows(perplexities: Mapping[str, float]) -> str:
    reference = perplexities[_UNROUNDED]
    return "\n".join(
        f"| {name} | {found:.2f} | |"
        if name == _UNROUNDED
        else f"| {name} | {found:.2f} | {100 * (found / reference - 1):+.2f} % |"
        for name, found in perplexities.items()
    )


def _samples(base: Path) -> str:
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    lines: list[str] = []
    for question in _QUESTIONS:
        ids = tokenizer(render_dialogue(question, "")[0], return_tensors="pt", add_special_tokens=False)["input_ids"]
        out: Any = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=120, do_sample=False)
        answer = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        lines.append(f"- **{question}** {answer}")
    return "\n".join(lines)


def _adapter_card(folder: Path) -> str:
    facts = _facts(folder)
    task = facts["task"]
    shape = task["shape"]
    kind = "rsLoRA (scale = alpha / √rank)" if shape["rank_stabilized"] else "LoRA (scale = alpha / rank)"
    return f"""# {folder.name}: an adapter for the demo model

Makes `models/demo` answer with {_ANSWER_IN[folder.name]} instead of prose.

{kind}, rank {shape["rank"]}, alpha {shape["alpha"]}, on all seven projections of every layer,
{facts["parameters"]:,} parameters in bf16, PEFT's layout. Trained for {task["steps"]} steps of {task["rows"]} dialogues
in {facts["seconds"]} s; only the answers' tokens are scored.

Loss on {facts["held_out_dialogues"]} dialogues about held-out modules (nats a token of the answer):
{facts["held_out_loss_before"]} before, {facts["held_out_loss_after"]} after.

Make it again: `rm -r adapters/{folder.name}`, then `.venv-engine/bin/python -m quant.demo {folder.name}`.
Data, licence and limits: the base model's card, `models/demo/README.md`.
"""


def _facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return facts
