"""What each request did in a window, in tokens: prompt, output, and the context they were written in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from server.energy.attribution.attribution import Floats, Window

__all__ = ["Tokens", "part_within", "tells_times"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokens:
    """Arrays with an entry for each request of the window; what is not known counts as nothing."""

    prompt: Floats
    """Computed in the window: evenly between sent and first token."""
    output: Floats
    context: Floats
    """Over its output, the sum of the tokens that came before each."""

    @classmethod
    def of(cls, window: Window) -> Tokens:
        requests, tokens = window.requests, window.tokens
        counts = np.bincount(tokens.request, tokens.tokens, len(requests))
        done = np.where(np.isnan(requests.done_at), np.inf, requests.done_at)
        first = np.where(np.isnan(requests.first_token_at), done, requests.first_token_at)
        output = np.where(
            requests.streamed | (requests.output_tokens < 0),
            counts,
            requests.output_tokens * _part(requests.sent_at, done, window),
        )
        prompt = np.maximum(0, requests.computed_prompt_tokens) * _part(requests.sent_at, first, window)
        before = np.maximum(0, requests.prompt_tokens) + np.nan_to_num(requests.tokens_before)
        return cls(prompt=prompt, output=output, context=output * (before + output / 2))


def tells_times(window: Window) -> bool:
    """Its requests' columns are all there: a source that knows no times leaves them out."""
    requests = window.requests
    columns = (requests.sent_at, requests.first_token_at, requests.done_at, requests.tokens_before, requests.streamed)
    counts = (requests.prompt_tokens, requests.computed_prompt_tokens, requests.output_tokens, requests.adapter)
    return all(len(column) == len(requests) for column in (*columns, *counts, requests.prompt_millitokens))


def part_within(since: Floats, until: Floats, window_start: float, window_end: float) -> Floats:
    """The share of since … until that lies in the window; an instant lies wholly in one window."""
    lasting = until > since
    inside = np.maximum(0.0, np.minimum(until, window_end) - np.maximum(since, window_start))
    instant = (window_start <= since) & (since < window_end)
    return np.where(lasting, inside / np.where(lasting, until - since, 1.0), instant)


def _part(since: Floats, until: Floats, window: Window) -> Floats:
    """What never ends lies in no window."""
    return np.asarray(np.nan_to_num(part_within(since, until, window.start, window.end)), np.float64)
