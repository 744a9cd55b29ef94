"""The shapes of real traffic: what people and programs ask of language models.

Quantiles of prompts and answers in tokens, and the modes of chat, were taken from the "Azure LLM inference trace 2023"
(Microsoft, github.com/Azure/AzurePublicDataset, CC-BY 4.0): the traces `conv` and `code` of Splitwise (Patel et al.,
ISCA 2024). The long conversations are those of Mooncake (Qin et al., FAST 2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from loadgen._workloads._lengths import Drawing, Tokens
from loadgen._workloads._quantiles import Independent, Mode, ModeMixture, Quantiles

__all__ = ["CHAT_LENGTHS", "CODE_LENGTHS", "LONG_CONTEXT_LENGTHS", "LONG_CONTEXT_SHARED", "SUMMARISE_LENGTHS"]

_PERCENTS: Final = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)


def _quantiles(*tokens: float) -> dict[float, float]:
    return dict(zip(_PERCENTS, tokens, strict=True))


CODE_LENGTHS: Final[Drawing] = Independent(
    prompt=Quantiles(_quantiles(3, 17, 75, 147, 578, 1469, 2744, 5187, 7303, 7436, 7437, 7437)),
    output=Quantiles(_quantiles(6, 6, 6, 7, 9, 13, 24, 55, 90, 251, 825, 1899)),
)

CHAT_LENGTHS: Final[Drawing] = ModeMixture(
    prompt=Quantiles(
        _quantiles(2, 29, 181, 207, 396, 1020, 1189, 2734, 4083, 4142, 6179, 14050)
        # The shares of the modes: 7 % below 200 tokens, 32 % to 500, 46 % to 2,000.
        | {7: 200, 39: 500, 85: 2000}
    ),
    output=Quantiles(_quantiles(7, 16, 41, 54, 85, 129, 395, 424, 451, 601, 954, 1000)),
    modes=(Mode(200, 143), Mode(500, 95), Mode(2000, 390), Mode(14050, 72)),
)


@dataclass(frozen=True, slots=True)
class _LogNormalWeibull:
    """Prompts lognormal(mu, sigma), answers Weibull(shape, scale)."""

    mu: float
    sigma: float
    shape: float
    scale: float
    extent: Tokens

    def draw(self, rng: np.random.Generator) -> Tokens:
        return Tokens(float(rng.lognormal(self.mu, self.sigma)), float(rng.weibull(self.shape) * self.scale))


LONG_CONTEXT_LENGTHS: Final[Drawing] = _LogNormalWeibull(
    mu=8.74,
    sigma=1.20,
    shape=1.2,
    scale=360,
    # The 90 % quantiles, not the 99 %: the longest tenth fills the context, which is what the workload is for.
    extent=Tokens(29_100, 721),
)
LONG_CONTEXT_SHARED: Final = 0.366
"""Of the conversations' prefix blocks, the share that a cache of unbounded size would have held."""

SUMMARISE_LENGTHS: Final[Drawing] = _LogNormalWeibull(
    # An article: half have more than 800 tokens, one in a hundred more than 2,600. A paragraph as the answer.
    mu=6.68,
    sigma=0.5,
    shape=3.0,
    scale=110,
    extent=Tokens(2_600, 183),
)
