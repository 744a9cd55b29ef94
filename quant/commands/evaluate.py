"""`quant evaluate VARIANT --reference BASE`: what a variant loses, with intervals, kept beside it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from quant.errors import SchemeError, SourceError

if TYPE_CHECKING:
    from quant.quality.bootstrap import Bootstrap
    from quant.served import Endpoint

__all__ = ["add"]

_HELD_OUT: Final = Path(__file__).parents[1] / "demo" / "heldout.txt"
_Rows = Iterable[tuple[list[float], list[float]]]


def add(commands: Any) -> None:
    judge = commands.add_parser("evaluate", help="what a variant loses against its reference, with intervals")
    judge.add_argument("variant", type=Path, metavar="VARIANT", help="checkpoint directory; quality.json goes there")
    judge.add_argument("--reference", type=Path, metavar="BASE", help="checkpoint directory it is compared with")
    judge.add_argument("--text", type=Path, default=_HELD_OUT, help="UTF-8 text (default: the demo's held-out text)")
    judge.add_argument("--dataset", help="the text's name in quality.json (default: the file's, without its suffix)")
    judge.add_argument("--window", type=int, default=512, help="tokens scored together (default 512)")
    judge.add_argument("--top-k", type=int, default=20, help="tokens of the truncated KL (default 20, vLLM's bound)")
    judge.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap (default 10000)")
    judge.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    judge.add_argument("--from-lm-eval", type=Path, metavar="FILE", help="take task scores from this results file")
    judge.add_argument("--fresh", action="store_true", help="replace all scores that are there")
    judge.add_argument("--no-store", action="store_true", help="print, and write nothing")
    judge.add_argument("--json", action="store_true", help="print the scores as JSON")
    engine = judge.add_argument_group("through running engines (or a gateway)")
    engine.add_argument("--url", help="where the variant is served, e.g. http://127.0.0.1:8000")
    engine.add_argument("--model", help="its name there")
    engine.add_argument("--reference-url", help="where the reference is served (default: --url)")
    engine.add_argument("--reference-model", help="its name there")
    engine.add_argument("--api-key-env", help="environment variable with the key")
    engine.add_argument("--reference-api-key-env", help="the same for the reference (default: the same key)")
    judge.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from quant.quality.bootstrap import Bootstrap  # noqa: PLC0415
    from quant.quality.store import check_store, store_scores  # noqa: PLC0415
    from quant.quality.weights_hash import weights_sha256  # noqa: PLC0415

    _check(options)
    digests = {"weights_sha256": weights_sha256(options.variant)}
    if options.from_lm_eval is None:
        digests["base_weights_sha256"] = weights_sha256(options.reference)
    if not options.fresh and not options.no_store:
        check_store(options.variant, digests)
    bootstrap = Bootstrap(resamples=options.resamples, seed=options.seed)
    found = _imported(options) if options.from_lm_eval is not None else _measured(options, bootstrap)
    more = {"interval_method": bootstrap.describe()} if options.from_lm_eval is None else {}
    path = None if options.no_store else store_scores(options.variant, found, digests, more, options.fresh)
    if options.json:
        print(json.dumps({"scores": found} | digests | more, indent=2))
        return
    print(_table(options, found))
    if path is not None:
        print(f"stored in {path}")


def _check(options: argparse.Namespace) -> None:
    if options.from_lm_eval is None and options.reference is None:
        raise SourceError("Compare with what? Give --reference BASE (VARIANT itself shows the noise floor).")
    if min(options.resamples, options.top_k) < 1:
        raise SchemeError("--resamples and --top-k are whole numbers of at least 1.")
    if options.url and not (options.model and options.reference_model):
        raise SchemeError("Engines serve models by names: give --model and --reference-model with --url.")
    if options.reference_url and not options.url:
        raise SchemeError("--reference-url needs --url: both are measured on engines, or both offline.")


def _imported(options: argparse.Namespace) -> list[dict[str, Any]]:
    from quant.quality.lm_eval import task_scores  # noqa: PLC0415

    return task_scores(options.from_lm_eval, _today())


def _measured(options: argparse.Namespace, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    from quant.quality.scores import Measured, scores  # noqa: PLC0415

    text, text_sha256 = _read_text(options.text)
    windows = _windows(options, text)
    rows = _rows_served(options, windows) if options.url else _rows_offline(options, windows)
    measured = Measured(
        dataset=options.dataset or options.text.stem,
        text_sha256=text_sha256,
        path="served" if options.url else "offline",
        reference=options.reference.resolve().name,
        window=options.window,
        top_k=options.top_k,
        measured_at=_today(),
    )
    return scores(_with_progress(rows, len(windows)), measured, bootstrap)


def _windows(options: argparse.Namespace, text: str) -> list[list[int]]:
    from quant.evaluate import token_windows  # noqa: PLC0415

    windows = token_windows(options.reference, text, options.window)
    if windows != token_windows(options.variant, text, options.window):
        raise SourceError(
            f"{options.variant} and {options.reference} cut the text into different tokens, so they cannot be compared "
            "token by token. Give the checkpoint that the variant was made of."
        )
    return windows


def _rows_offline(options: argparse.Namespace, windows: Sequence[Sequence[int]]) -> _Rows:
    from quant.evaluate import load_dequantized  # noqa: PLC0415
    from quant.quality.offline import paired_rows  # noqa: PLC0415

    reference = load_dequantized(options.reference)
    same = options.variant.resolve() == options.reference.resolve()
    variant = reference if same else load_dequantized(options.variant)
    return paired_rows(reference, variant, windows, top_k=options.top_k)


def _rows_served(options: argparse.Namespace, windows: Sequence[Sequence[int]]) -> _Rows:
    from quant.quality.through_engine import served_rows  # noqa: PLC0415

    variant = _endpoint(options.url, options.model, options.api_key_env)
    key_env = options.reference_api_key_env or options.api_key_env
    reference = _endpoint(options.reference_url or options.url, options.reference_model, key_env)
    return served_rows(reference, variant, windows, top_k=options.top_k)


def _endpoint(url: str, model: str, key_env: str | None) -> Endpoint:
    from quant.served import Endpoint  # noqa: PLC0415

    key = os.environ.get(key_env) if key_env else None  # noqa: TID251 - named by the user
    if key_env and not key:
        raise SchemeError(f"The environment variable {key_env} is not set. Put the engine's key there.")
    return Endpoint(url=url.rstrip("/"), model=model, api_key=key)


def _with_progress(
    rows: Iterable[tuple[list[float], list[float]]], total: int
) -> Iterator[tuple[list[float], list[float]]]:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import track  # noqa: PLC0415

    console = Console(file=sys.stderr)
    return iter(track(rows, "windows", total=total, console=console, disable=not console.is_terminal, transient=True))


def _table(options: argparse.Namespace, found: Sequence[Mapping[str, Any]]) -> str:
    """At most 80 columns."""
    first = found[0]
    what = f"{options.variant.resolve().name}: {first['dataset']}, {first['path']}"
    if "reference" in first:
        what += f", against {first['reference']}, {first['windows']} windows of {first['window']} tokens"
    lines = [what, f"{'':24}{'':>12}  {'95 % interval':^25}  {'itself':>10}"]
    for score in found:
        low, high = score.get("interval", (None, None))
        interval = "—" if low is None else f"{low:>11.5g} … {high:<11.5g}"
        noise = f"{score['noise']:.5g}" if "noise" in score else ""
        lines.append(f"{score['metric']:<24}{score['value']:>12.6g}  {interval:^25}  {noise:>10}".rstrip())
    return "\n".join(lines)


def _read_text(path: Path) -> tuple[str, str]:
    """The text and its digest."""
    import hashlib  # noqa: PLC0415

    try:
        content = path.read_bytes()
        return content.decode("utf-8"), hashlib.sha256(content).hexdigest()
    except (OSError, UnicodeDecodeError) as exc:
        raise SourceError(f"{path} cannot be read as text: {exc}. Give a UTF-8 file.") from exc


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
