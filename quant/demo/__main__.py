"""`python -m quant.demo all` makes the demo model, its adapters and their cards anew.

About half an hour on two cores. Run it in the engine environment, in the root of the repository.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from quant.demo.adapters import TASKS, train_adapter
from quant.demo.cards import write_cards
from quant.demo.corpus import HELDOUT_FILE, held_out_text
from quant.demo.settle import settle
from quant.demo.train import Plan, train_base
from quant.errors import QuantError
from quant.whole_directory import whole_directory

__all__: list[str] = []

_BASE: Final = Path("models/demo")
_ADAPTERS: Final = Path("adapters")
_STEPS: Final = ("heldout", "base", *TASKS, "cards", "all")


def main(arguments: list[str]) -> int:
    """Run one step, or all; 1 with one line on stderr if a step is refused (nothing is ever overwritten)."""
    parser = argparse.ArgumentParser(prog="python -m quant.demo", description=__doc__)
    parser.add_argument("step", choices=_STEPS)
    parser.add_argument("--root", type=Path, default=Path(), help="where models/ and adapters/ go (default: here)")
    options = parser.parse_args(arguments)
    try:
        for step in _STEPS[:-1] if options.step == "all" else (options.step,):
            _run(step, options.root)
    except QuantError as exc:
        sys.stderr.write(f"quant.demo: {exc}\n")
        return 1
    return 0


def _run(step: str, root: Path) -> None:
    if step == "heldout":
        HELDOUT_FILE.write_text(held_out_text(), encoding="utf-8")
    elif step == "base":
        with whole_directory(root / _BASE) as folder:
            train_base(folder, Plan())
            settle(folder)
    elif step == "cards":
        write_cards(root / _BASE, root / _ADAPTERS)
    else:
        with whole_directory(root / _ADAPTERS / step) as folder:
            train_adapter(root / _BASE, folder, TASKS[step])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
