"""What a running engine says of a text, by `prompt_logprobs` of /v1/completions.

The engine (vLLM) returns, for every prompt token but the first, its log-probability given the ones before, and those of
the K most probable tokens in its place. vLLM allows K up to its `--max-logprobs`, 20 unless told otherwise.
"""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from quant.errors import ServedError

__all__ = ["Endpoint", "Ranked", "perplexity_served", "ranked_tokens"]

_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a model is served."""

    url: str  # "http://127.0.0.1:8000", without /v1
    model: str
    api_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """What is known of the distribution at one place of the text."""

    top: int | None  # the most probable token; None: not asked for
    logprobs: Mapping[int, float]  # nats, by token: the K most probable ones and the text's own


def perplexity_served(endpoint: Endpoint, windows: Sequence[Sequence[int]]) -> float:
    """Perplexity of `windows` of token ids; one request a window. Raises `ServedError`."""
    logprobs = [
        place.logprobs[token]
        for window in windows
        for place, token in zip(ranked_tokens(endpoint, window, 0), window[1:], strict=True)
    ]
    return math.exp(-math.fsum(logprobs) / len(logprobs))


def ranked_tokens(endpoint: Endpoint, window: Sequence[int], top_k: int) -> list[Ranked]:
    """Of every place of `window` (token ids) but the first; one request. Raises `ServedError`."""
    body = {"model": endpoint.model, "prompt": list(window), "max_tokens": 1, "temperature": 0}
    answer = _post(endpoint, body | {"prompt_logprobs": top_k})
    try:
        places = answer["choices"][0]["prompt_logprobs"][1:]
        found = [_ranked(place, token) for place, token in zip(places, window[1:], strict=True)]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as exc:
        raise ServedError(f"{endpoint.url} returned no prompt_logprobs. Measure on a vLLM engine.") from exc
    if top_k and any(place.top is None for place in found):
        raise ServedError(f"{endpoint.url} does not say which token is the most probable. Measure on a vLLM engine.")
    return found


def _ranked(place: Mapping[str, Mapping[str, Any]], token: int) -> Ranked:
    """`place` is {"token id": {"logprob": nats, "rank": 1 …}}."""
    logprobs = {int(name): float(found["logprob"]) for name, found in place.items()}
    top = next((int(name) for name, found in place.items() if found.get("rank") == 1), None)
    if not math.isfinite(logprobs[token]):
        raise ValueError("the text's token has no finite log-probability")
    return Ranked(top=top, logprobs=logprobs)


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
    except ValueError as exc:
        raise ServedError(f"{endpoint.url} answered something that is no JSON. Measure on a vLLM engine.") from exc
    except OSError as exc:
        raise ServedError(f"{endpoint.url} cannot be reached: {exc}. Start the engine or check the address.") from exc
