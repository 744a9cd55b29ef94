"""What an adapter is, whether its files are sound, and its way into an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quant.adapters import KINDS, Way
from quant.errors import SourceError
from server.models import ADAPTER_RULES, AdapterCard, Checkpoint, read_adapter, read_checkpoint
from server.models.adapter import CheckpointError
from server.models.adapter_kinds import FEATURE_WAYS, instead_of_kind
from server.models.adapter_rules import AdapterCase

__all__ = ["Inspection", "inspect_adapter", "require_finite"]

_WAYS_OF_RULES: Final[Mapping[str, Way]] = {
    "adapter-init": Way.CONVERT,
    "adapter-modules-to-save": Way.MERGE,
    "adapter-tensors": Way.MERGE,
}
"""The way of a LoRA that breaks one of the server's rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """An adapter's facts and its way."""

    card: AdapterCard
    way: Way
    because: str
    """What the adapter does, a clause without its subject."""
    instead: str
    """What to do with it; a clause that ends with a full stop."""


def inspect_adapter(path: Path, base: Path | None = None) -> Inspection:
    """Read the headers of `path`, and of `base` if given. No tensor data; no torch.

    Raises `SourceError` for files that are missing or broken, and for an adapter of another base, naming the layer.
    """
    try:
        card = read_adapter(path)
        checkpoint = None if base is None else read_checkpoint(base)
    except CheckpointError as exc:
        raise SourceError(str(exc)) from exc
    if checkpoint is not None:
        _require_fit(path, card, checkpoint)
    way, because = _way(card)
    return Inspection(card=card, way=way, because=because, instead=_instead(card, way))


def require_finite(path: Path) -> None:
    """Raise `SourceError` for a NaN or an infinity among the adapter's weights, naming the tensor. Reads them all."""
    from safetensors import safe_open  # noqa: PLC0415 - loads torch

    file = path / "adapter_model.safetensors"
    if not file.is_file():
        return  # pickled: checked after it was loaded
    with safe_open(file, framework="pt") as reader:
        for name in reader.keys():  # noqa: SIM118 - not a dict
            tensor = reader.get_tensor(name)
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise SourceError(
                    f"{file}: {name} holds NaN or infinite values. The training diverged: train the adapter again."
                )


def _way(card: AdapterCard) -> tuple[Way, str]:
    known = KINDS.get(card.kind)
    if known is None:
        return Way.REFUSE, f"is `{card.kind}`, no kind of adapter known here"
    return (known.way, known.about) if known.way is not Way.SERVE else _way_of_lora(card, known.about)


def _way_of_lora(card: AdapterCard, about: str) -> tuple[Way, str]:
    for feature in card.features:
        way = FEATURE_WAYS.get(feature, Way.MERGE)
        return way, f"uses `{feature}`, which vLLM does not implement"
    for slug, way in _WAYS_OF_RULES.items():
        finding = ADAPTER_RULES[slug].find(_case(card, None))
        if finding is not None:
            return way, f"has what vLLM refuses: {finding.found}"
    return Way.SERVE, about


def _instead(card: AdapterCard, way: Way) -> str:
    if way is KINDS.get(card.kind, KINDS["xlora"]).way:
        return instead_of_kind(card.kind)
    return instead_of_kind(next(kind for kind, known in KINDS.items() if known.way is way))


def _require_fit(path: Path, card: AdapterCard, checkpoint: Checkpoint) -> None:
    finding = ADAPTER_RULES["adapter-base"].find(_case(card, checkpoint))
    if finding is not None:
        raise SourceError(f"{path} belongs to another base model: {finding.found}. Give the base it was trained on.")


def _case(card: AdapterCard, checkpoint: Checkpoint | None) -> AdapterCase:
    return AdapterCase(
        adapter=card,
        card=None if checkpoint is None else checkpoint.card,
        checkpoint=checkpoint,
        max_rank=card.rank,
        device=None,
    )
