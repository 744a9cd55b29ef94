"""What is added up over a window of text, and the figures that follow.

Over scored tokens t of one window, p the reference's distribution of the next token, q the variant's, both given the
same tokens before, y the token that the text has:

    NLL change    Σ log p(y) - log q(y)             nats
    KL            Σ_v p(v) · log(p(v) / q(v))       nats; of the variant from the reference
    agreement     argmax p = argmax q
    right → wrong argmax p = y ≠ argmax q; wrong → right the other way. Their sum are the flips: a variant can keep its
                  accuracy and answer otherwise. Source: "Accuracy is Not All You Need", arXiv 2407.09141.

Truncated KL: engines tell the K most probable tokens only, so that KL is computed over S = the tokens that both told
(the text's own is always among them) and one rest: Σ_S p log(p/q) + p_rest log(p_rest / q_rest). Joining outcomes can
only lessen a divergence (log-sum inequality), so this is a lower bound of KL, whatever K. There is no upper one: of
what neither told, q may be as near to 0 as it likes. Offline both are computed, so the distance is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["ALL", "FIELDS", "Figure", "Floats", "Sums", "figures", "row"]

Floats = npt.NDArray[np.float64]
Sums = Floats
"""(windows, fields)."""

FIELDS: Final = (
    "tokens",
    "reference_nll",
    "variant_nll",
    "kl",
    "kl_top",
    "agreed",
    "right_to_wrong",
    "wrong_to_right",
)
_PLACE: Final = {field: place for place, field in enumerate(FIELDS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of a whole text: a function of its sums alone, so that windows can be drawn again."""

    metric: str
    """As in quality.json."""
    of: Callable[[Sums], Floats]
    """Sums (…, fields) → (…)."""


def row(**sums: float) -> list[float]:
    """The sums of one window in the order of the fields; those not given were not measured (NaN)."""
    return [sums.get(field, float("nan")) for field in FIELDS]


def figures(top_k: int) -> Sequence[Figure]:
    """All of them; which ones were measured, the sums tell."""
    return (*ALL, Figure(metric=f"kl_top{top_k}_nats", of=_mean("kl_top")))


def _mean(field: str, less: str | None = None, plus: str | None = None) -> Callable[[Sums], Floats]:
    """Σ (field - less + plus) / Σ tokens."""

    def of(sums: Sums) -> Floats:
        total = sums[..., _PLACE[field]]
        total = total if less is None else total - sums[..., _PLACE[less]]
        total = total if plus is None else total + sums[..., _PLACE[plus]]
        mean: Floats = total / sums[..., _PLACE["tokens"]]
        return mean

    return of


def _exp(exponent: Callable[[Sums], Floats]) -> Callable[[Sums], Floats]:
    def of(sums: Sums) -> Floats:
        raised: Floats = np.exp(exponent(sums))
        return raised

    return of


_NLL_CHANGE: Final = _mean("variant_nll", less="reference_nll")

ALL: Final = (
    Figure(metric="perplexity", of=_exp(_mean("variant_nll"))),
    Figure(metric="perplexity_ratio", of=_exp(_NLL_CHANGE)),
    Figure(metric="nll_change_nats", of=_NLL_CHANGE),
    Figure(metric="kl_nats", of=_mean("kl")),
    Figure(metric="top1_agreement_ratio", of=_mean("agreed")),
    Figure(metric="flips_ratio", of=_mean("right_to_wrong", plus="wrong_to_right")),
    Figure(metric="right_to_wrong_ratio", of=_mean("right_to_wrong")),
    Figure(metric="wrong_to_right_ratio", of=_mean("wrong_to_right")),
    Figure(metric="net_flips_ratio", of=_mean("right_to_wrong", less="wrong_to_right")),
)
