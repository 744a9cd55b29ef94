"""An engine's requests in a window: when each computed its prompt, when it wrote, and when somebody was there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from server.energy.attribution.attribution import Flags, Floats, Integers, Window

__all__ = ["Lives"]

_PROMPT_TOKEN: Final = 0.1
"""Of an output token's time: until it is measured."""
_MOST_PREFILL: Final = 0.9
"""Of a whole answer's time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lives:
    """Arrays with an entry for each of the window's requests, those of other engines included."""

    mine: Flags
    streamed: Flags
    sent: Floats
    first: Floats
    """When its prompt was computed, as far as is known; inf: later than anybody knows; -inf: long ago."""
    ready_before: Flags
    """Its prompt was computed before the window."""
    done: Floats
    """inf: it runs."""
    prompt: Floats
    """Tokens to compute, at least 1."""
    context: Floats
    """Tokens that it has when the window begins."""
    adapter: Flags

    @classmethod
    def of(cls, window: Window, place: int, prompt_token_s: float) -> Lives:
        """`prompt_token_s`, what a prompt token takes, tells prefill from decoding where no first token is seen."""
        requests = window.requests
        mine = requests.engine == place
        whole = np.where(requests.prompt_tokens >= 0, requests.prompt_tokens, requests.computed_prompt_tokens)
        whole = _or_mean(whole.astype(np.float64), mine)
        computed = requests.computed_prompt_tokens
        prompt = np.maximum(1.0, np.where(computed >= 0, computed, whole))
        sent = np.where(np.isnan(requests.sent_at), window.start, requests.sent_at)
        done = np.maximum(sent, np.where(np.isnan(requests.done_at), np.inf, requests.done_at))
        first = np.where(
            requests.streamed,
            _first_seen(window),
            _first_guessed(sent, done, prompt, requests.output_tokens, prompt_token_s),
        )
        first = np.where(np.isnan(requests.first_token_at), first, np.maximum(sent, requests.first_token_at))
        return cls(
            mine=mine,
            streamed=requests.streamed,
            sent=sent,
            first=first,
            ready_before=first < window.start,
            done=done,
            prompt=prompt,
            context=whole + np.nan_to_num(requests.tokens_before),
            adapter=requests.adapter,
        )

    def busy(self) -> tuple[Floats, Floats]:
        """From when till when somebody was there: apart, in order."""
        order = np.argsort(self.sent[self.mine], kind="stable")
        sent, done = self.sent[self.mine][order], self.done[self.mine][order]
        until = np.maximum.accumulate(done)
        starts = np.ones(len(sent), np.bool_)
        starts[1:] = sent[1:] > until[:-1]
        ends = np.ones(len(sent), np.bool_)
        ends[:-1] = starts[1:]
        return sent[starts], until[ends]


def _or_mean(values: Floats, mine: Flags) -> Floats:
    """Who does not tell is like the others of the engine."""
    known = values >= 0
    told = values[known & mine]
    return np.where(known, values, told.mean() if len(told) else 0.0)


def _first_seen(window: Window) -> Floats:
    """Of streams whose first token is not noted: their first chunk in this window, or one before."""
    requests = window.requests
    first = np.full(len(requests), np.inf)
    owners, places = np.unique(window.tokens.request, return_index=True)
    first[owners] = window.tokens.times[places]
    return np.where(requests.tokens_before > 0, -np.inf, first)


def _first_guessed(sent: Floats, done: Floats, prompt: Floats, output: Integers, prompt_token_s: float) -> Floats:
    """Of answers that come whole."""
    if prompt_token_s > 0.0:
        prefill = prompt * prompt_token_s
    else:
        prefill = np.where(np.isinf(done), 0.0, done - sent) * (
            _PROMPT_TOKEN * prompt / (_PROMPT_TOKEN * prompt + np.maximum(1, output))
        )
    return sent + np.minimum(prefill, _MOST_PREFILL * (done - sent))
