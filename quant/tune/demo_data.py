"""`python -m quant.tune.demo_data TASK OUT.jsonl`: examples of a demo task, from the standard library's own text."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Final

from quant.demo import stdlib
from quant.demo.dialogues import STYLES, conversation

__all__ = ["write_examples"]

_COUNT: Final = 400
_SEED: Final = 7


def write_examples(style: str, path: Path, count: int = _COUNT) -> None:
    """`count` questions about the standard library and their answers in `style` (a key of `STYLES`)."""
    chance = random.Random(_SEED)  # noqa: S311 - a fixed seed, no secret
    entries = chance.sample([entry for entry in stdlib.entries() if not entry.held_out], count)
    with path.open("w", encoding="utf-8") as file:
        for entry in entries:
            question, answer = conversation(entry, STYLES[style], chance)
            roles = (("user", question), ("assistant", answer))
            line = {"messages": [{"role": role, "content": text} for role, text in roles]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write_examples(sys.argv[1], Path(sys.argv[2]))
