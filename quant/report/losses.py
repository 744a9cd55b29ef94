"""Which figure stands for quality, MCR, and the Pareto front of size and loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from quant.report.gather import Row
from server.models.quality import OFFLINE, Quality, comparable

__all__ = ["Compression", "Loss", "Text", "compression", "loss_axis", "loss_of", "losses", "pareto_front", "text_of"]

_AXES: Final = ("kl_nats", "perplexity_ratio", "kl_top20_nats")
"""What may stand for loss, lower is better; the first that most variants have. KL sees what perplexity averages out."""
_ITSELF: Final = {"kl_nats": 0.0, "kl_top20_nats": 0.0, "perplexity_ratio": 1.0}
"""Of the reference against itself, by definition."""

Text = tuple[str, str]
"""Dataset and path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Where a variant stands on the axis of loss."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """MCR = (size₀ / sizeᵥ) · (perfᵥ / perf₀), 0 the reference. Source: EfficientLLM, arXiv 2505.13840."""

    value: float
    interval: tuple[float, float] | None
    by: str
    """What perf is: metric and data."""


def text_of(rows: Sequence[Row]) -> Text | None:
    """The dataset and path on which most variants were compared; None: none was."""
    texts = Counter(text for row in rows for text in _texts(row))
    return max(texts, key=lambda text: (texts[text], text[1] == OFFLINE, text), default=None)


def _texts(row: Row) -> set[Text]:
    return {(quality.dataset, quality.path) for quality in row.qualities if quality.relative}


def losses(row: Row, text: Text | None) -> Mapping[str, Quality]:
    """What was measured on that text, by metric."""
    return {quality.metric: quality for quality in row.qualities if (quality.dataset, quality.path) == text}


def loss_axis(rows: Sequence[Row], text: Text | None) -> str | None:
    """The metric that stands for loss."""
    having = {metric: sum(metric in losses(row, text) for row in rows) for metric in _AXES}
    best = max(_AXES, key=lambda metric: having[metric])
    return best if having[best] else None


def loss_of(row: Row, reference: Row, text: Text | None, axis: str) -> Loss | None:
    """None: it was not measured."""
    found = losses(row, text).get(axis)
    if found is not None:
        return Loss(value=found.value, interval=found.interval)
    return Loss(value=_ITSELF[axis], interval=None) if row is reference else None


def compression(row: Row, reference: Row, text: Text | None) -> Compression | None:
    """None: no quality was measured in the same way for both, nor against one another."""
    size = reference.card.size_bytes / row.card.size_bytes
    if row is reference:
        return Compression(value=1.0, interval=None, by="itself")
    ratio = losses(row, text).get("perplexity_ratio")
    pair = comparable(row.qualities, reference.qualities)
    if pair is not None and pair[0].metric != "perplexity":
        return Compression(value=size * pair[0].performance / pair[1].performance, interval=None, by=pair[0].label)
    if ratio is not None:
        bounds = None if ratio.interval is None else (size / ratio.interval[1], size / ratio.interval[0])
        return Compression(value=size / ratio.value, interval=bounds, by=f"perplexity:{ratio.dataset}")
    if pair is not None:
        return Compression(value=size * pair[0].performance / pair[1].performance, interval=None, by=pair[0].label)
    return None


def pareto_front(points: Iterable[tuple[str, float, float]]) -> set[str]:
    """The names of (name, size, loss) that no other point beats: at least as good in both, better in one."""
    known = list(points)
    return {
        name
        for name, size, loss in known
        if not any(other[1] <= size and other[2] <= loss and other[1:] != (size, loss) for other in known)
    }
