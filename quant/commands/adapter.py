"""`quant adapter inspect | convert | merge | table`: every kind of PEFT adapter on its way into an engine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from quant.errors import SourceError

if TYPE_CHECKING:
    from quant.adapters.inspection import Inspection
    from quant.adapters.losses import OutputLoss

__all__ = ["add"]

_HELD_OUT: Final = Path(__file__).parents[1] / "demo" / "heldout.txt"


def add(commands: Any) -> None:
    adapter = commands.add_parser("adapter", help="adapters: inspect, convert to LoRA, merge, or say why not")
    verbs = adapter.add_subparsers(required=True, metavar="VERB")
    _add_inspect(verbs)
    _add_convert(verbs)
    _add_merge(verbs)
    _add_table(verbs)


def _add_inspect(verbs: Any) -> None:
    parser = verbs.add_parser("inspect", help="what it is, and which way it has to go")
    parser.add_argument("path", type=Path, metavar="PATH", help="folder with adapter_config.json")
    parser.add_argument("--base", type=Path, help="checkpoint it is for: are the shapes right?")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_inspect)


def _add_convert(verbs: Any) -> None:
    parser = verbs.add_parser("convert", help="write its change of the weights as a LoRA; say what that loses")
    _add_files(parser)
    parser.add_argument("--rank", type=int, help="rank of every layer (default: the smallest that keeps --error)")
    parser.add_argument(
        "--error", type=float, default=0.01, help="relative error of a layer's change without --rank (default 0.01)"
    )
    parser.set_defaults(command=_convert)


def _add_merge(verbs: Any) -> None:
    parser = verbs.add_parser("merge", help="write the base model with it in its weights; quantize that if you like")
    _add_files(parser)
    parser.set_defaults(command=_merge)


def _add_table(verbs: Any) -> None:
    parser = verbs.add_parser("table", help="what each kind needs on each variant: serve, convert, merge or refuse")
    parser.add_argument("--device", default="cpu", help="cpu (default), cpu-avx2, sm80, sm89, sm90, …")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_table)


def _add_files(parser: Any) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="folder with adapter_config.json")
    parser.add_argument("out", type=Path, metavar="OUT", help="directory to create; must not exist")
    parser.add_argument("--base", type=Path, help="base checkpoint (default: the folder that the adapter names)")
    parser.add_argument("--text", type=Path, default=_HELD_OUT, help="text to measure on (default: the demo's)")


def _inspect(options: argparse.Namespace) -> None:
    from quant.adapters.inspection import inspect_adapter, require_finite  # noqa: PLC0415

    inspection = inspect_adapter(options.path, options.base)
    require_finite(options.path)
    print(_as_json(inspection) if options.json else _as_text(options.path, inspection))


def _convert(options: argparse.Namespace) -> int | None:
    from quant.adapters.quant_environment import command_line, elsewhere, has_peft  # noqa: PLC0415

    _require_limits(options)
    if not has_peft():
        return elsewhere(command_line(("adapter", "convert"), options, ("path", "out")))
    from quant.adapters.conversion import convert  # noqa: PLC0415
    from quant.adapters.factors import Limit  # noqa: PLC0415

    limit = Limit(rank=options.rank, error=options.error)
    done = convert(_base(options), options.path, options.out, limit, _text(options.text))
    worst = done.weights.worst
    print(f"{options.out}: {done.kind} as a LoRA of rank {done.rank}, by {done.by}")
    if worst is not None:
        print(f"weights: the worst of {len(done.ranks)} layers loses {worst[1]:.2%} of its change ({worst[0]})")
    print(_of_output(done.output))
    return None


def _merge(options: argparse.Namespace) -> int | None:
    from quant.adapters.quant_environment import command_line, elsewhere, has_peft  # noqa: PLC0415

    if not has_peft():
        return elsewhere(command_line(("adapter", "merge"), options, ("path", "out")))
    from quant.adapters.merging import merge  # noqa: PLC0415

    done = merge(_base(options), options.path, options.out, _text(options.text))
    print(f"{options.out}: the base model with {done.kind} in its weights, {done.dtype}")
    print(_of_output(done.output))
    return None


def _table(options: argparse.Namespace) -> None:
    from quant.adapters.table import VARIANTS, compatibility, device_facts  # noqa: PLC0415

    rows = compatibility(device_facts(options.device))
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'kind':<24}" + "".join(f"{name:<17}" for name in VARIANTS).rstrip())
    for kind, row in rows.items():
        print(f"{kind:<24}" + "".join(f"{row[name]:<17}" for name in VARIANTS).rstrip())


def _as_text(path: Path, inspection: Inspection) -> str:
    card = inspection.card
    facts = [card.kind]
    facts += [f"rank {card.rank}"] if card.rank is not None else []
    facts += [f"alpha {card.alpha:g}"] if card.alpha is not None else []
    facts += [f"{card.parameters:,} parameters"] if card.parameters is not None else []
    facts += [f"for {card.base_model}"] if card.base_model else []
    return f"{path}: {', '.join(facts)}\n{inspection.way}: {inspection.because}; {inspection.instead}"


def _as_json(inspection: Inspection) -> str:
    card = inspection.card
    facts = {
        "kind": card.kind,
        "way": inspection.way.value,
        "because": inspection.because,
        "instead": inspection.instead,
        "rank": card.rank,
        "alpha": card.alpha,
        "parameters": card.parameters,
        "size_bytes": card.size_bytes,
        "base_model": card.base_model,
        "init": card.init,
        "target_modules": card.target_modules,
        "modules_to_save": card.modules_to_save,
        "features": card.features,
    }
    return json.dumps(facts)


def _of_output(loss: OutputLoss) -> str:
    return (
        f"output: KL {loss.kl_nats:.3g} nats a token over {loss.tokens:,} tokens (at most {loss.kl_nats_max:.3g}), "
        f"top-1 agreement {loss.top1_agreement:.2%}; the adapter itself moves the base by "
        f"{loss.kl_nats_of_the_adapter:.3g} nats"
    )


def _require_limits(options: argparse.Namespace) -> None:
    if options.rank is not None and options.rank < 1:
        raise SourceError(f"--rank {options.rank} is no rank. Give a whole number of at least 1.")
    if not 0 < options.error < 1:
        raise SourceError(f"--error {options.error} is no relative error. Give a number between 0 and 1, such as 0.01.")


def _base(options: argparse.Namespace) -> Path:
    """`--base`, or the folder that the adapter was trained on, if it is one."""
    if options.base is not None:
        return Path(options.base)
    from quant.adapters.inspection import inspect_adapter  # noqa: PLC0415

    named = inspect_adapter(options.path).card.base_model
    if named is None or not (Path(named) / "config.json").is_file():
        raise SourceError(f"{options.path} was trained on {named or 'a base it does not name'}. Give --base.")
    return Path(named)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SourceError(f"{path} cannot be read as text: {exc}. Give a UTF-8 file.") from exc
