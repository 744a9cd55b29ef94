"""Held-out perplexity of a running engine, by `prompt_logprobs` of /v1/completions.

The engine (vLLM) returns, for every prompt token but the first, its log-probability given the ones before.
"""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from quant.errors import ServedError

__all__ = ["Endpoint", "perplexity_served"]

_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a model is served."""

    url: str  # "http://127.0.0.1:8000", without /v1
    model: str
    api_key: str | None = None


def perplexity_served(endpoint: Endpoint, windows: Sequence[Sequence[int]]) -> float:
    """Perplexity of `windows` of token ids; one request a window. Raises `ServedError`."""
    logprobs = [value for window in windows for value in _logprobs(endpoint, window)]
    return math.exp(-math.fsum(logprobs) / len(logprobs))


def _logprobs(endpoint: Endpoint, window: Sequence[int]) -> Iterator[float]:
    """The log-probability (nats) of every token of `window` but the first."""
    body = {"model": endpoint.model, "prompt": list(window), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    try:
        ranks = _post(endpoint, body)["choices"][0]["prompt_logprobs"]
        yield from (rank[str(token)]["logprob"] for rank, token in zip(ranks[1:], window[1:], strict=True))
    except (KeyError, IndexError, TypeError, ValueError) as exc:
        raise ServedError(f"{endpoint.url} returned no prompt_logprobs. Measure on a vLLM engine.") from exc


def _post(endpoint: Endpoint, body: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    if not endpoint.url.startswith(("http://", "https://")):
        raise ServedError(f"{endpoint.url} is no HTTP address. Give one such as http://127.0.0.1:8080.")
    request = urllib.request.Request(f"{endpoint.url}/v1/completions", json.dumps(body).encode(), headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as exc:
        detail = exc.read(500).decode(errors="replace")
        raise ServedError(f"{endpoint.url} answered {exc.code}: {detail}. Check the model's name and the key.") from exc
    except OSError as exc:
        raise ServedError(f"{endpoint.url} cannot be reached: {exc}. Start the engine or check the address.") from exc
