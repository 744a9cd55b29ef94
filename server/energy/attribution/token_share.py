"""Shares joules by tokens: simple, always possible, and rough.

The window's energy goes to the requests by the tokens they got in it, prompts included, and to `unattributed` by those
that went past the gateway; without tokens, by the time that requests were there; without requests, the engines were
idle.

Why confidence is low: a token is not a joule. Prompts, batch sizes, context lengths and adapters shift what a token
costs, and on a GPU the idle power of a window goes to whoever ran in it. Against per-step ground truth, output-token
shares were 36 to 67 % off for tenants with long prompts or long answers.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from server.energy.attribution.apportion import Expected, apportion
from server.energy.attribution.attribution import Integers, Shares, Window

__all__ = ["TokenShare", "expected_by_tokens"]


class TokenShare:
    """Method `token_share`."""

    method: Final = "token_share"
    confidence: Final = 0.3
    """What the worst error seen leaves."""

    def learn(self, window: Window) -> None:
        """Nothing: it knows all that it will."""

    def attribute(self, window: Window) -> Shares:
        return apportion(window, expected_by_tokens(window), method=self.method, confidence=self.confidence)


def expected_by_tokens(window: Window) -> Expected:
    """The tokens themselves; of an engine (or of a device that is one pool) that had none, the time."""
    requests = window.requests
    foreign = np.array([engine.foreign_millitokens for engine in window.engines], np.int64)
    work = requests.millitokens.copy()
    one_pool = window.other_cpu_us is None
    pool = np.zeros_like(requests.engine) if one_pool else requests.engine
    pools = 1 if one_pool else len(foreign)
    tokens = np.bincount(pool, work, pools) + (foreign.sum() if one_pool else foreign)
    waiting = tokens[pool] == 0
    work[waiting] = requests.overlap_us[waiting]
    prompts = _prompts(requests.prompt_millitokens, work, waiting)
    return Expected(
        prefill=prompts.astype(np.float64),
        decode=(work - prompts).astype(np.float64),
        foreign=foreign.astype(np.float64),
    )


def _prompts(prompts: Integers, work: Integers, waiting: Integers) -> Integers:
    """The part of `work` that is for prompts; who only waited did so for its first token."""
    if len(prompts) != len(work):  # a window that does not tell
        return np.zeros_like(work)
    return np.where(waiting, work, np.clip(prompts, 0, work))
