"""Asks the server under test what it serves and how it counts tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx

from loadgen._errors import LoadError
from loadgen._mix import Mix, parse_mix
from loadgen._plan import Plan
from loadgen._prompts import PROBE_WORDS, Calibration, probe_text

__all__ = ["Prepared", "chat_body", "headers", "prepare"]

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What must be known before the first request; the master tells it to its workers."""

    mix: Mix
    calibrations: Mapping[str, Calibration]
    cards: Mapping[str, Mapping[str, Any]]
    """What `GET /v1/models` says of each id of the mix."""

    def to_json(self) -> dict[str, Any]:
        return {
            "models": list(self.mix.models),
            "weights": list(self.mix.weights),
            "calibrations": {id_: [c.fixed_tokens, c.tokens_a_word] for id_, c in self.calibrations.items()},
            "cards": {id_: dict(card) for id_, card in self.cards.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            mix=Mix(models=tuple(data["models"]), weights=tuple(data["weights"])),
            calibrations={
                id_: Calibration(fixed_tokens=fixed, tokens_a_word=slope)
                for id_, (fixed, slope) in data["calibrations"].items()
            },
            cards=data["cards"],
        )


def headers(plan: Plan) -> dict[str, str]:
    """Sent with every request. No compression: it would hold chunks back."""
    sent = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    return {**sent, "Authorization": f"Bearer {plan.api_key}"} if plan.api_key else sent


def chat_body(plan: Plan, model: str, text: str) -> dict[str, Any]:
    """A streamed chat request with an answer of exactly `plan.output_tokens` tokens (unless it may end earlier)."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": plan.output_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **({} if plan.stop_at_end else {"ignore_eos": True}),
    }


def prepare(plan: Plan) -> Prepared:
    """List the models, decide the mix, calibrate the prompts. Raises `LoadError` with one sentence for a person."""
    with httpx.Client(base_url=plan.host, headers=headers(plan), timeout=_TIMEOUT_S) as client:
        cards = _cards(client, plan)
        mix = parse_mix(plan.models, list(cards))
        for model in mix.models:
            _refuse_too_long(plan, model, cards.get(model, {}))
        return Prepared(
            mix=mix,
            calibrations={model: _calibrate(client, plan, model) for model in mix.models},
            cards={model: cards.get(model, {}) for model in mix.models},
        )


def _cards(client: httpx.Client, plan: Plan) -> dict[str, Mapping[str, Any]]:
    answer = _ask(client, plan, "GET", "/v1/models")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return {}
    entries = _json(answer, plan).get("data", [])
    return {entry["id"]: entry for entry in entries if entry.get("task", "generate") == "generate"}


def _calibrate(client: httpx.Client, plan: Plan, model: str) -> Calibration:
    counts = [(words, _prompt_tokens(client, plan, model, words)) for words in _probe_words(plan)]
    return Calibration.of(counts[0], counts[1])


def _probe_words(plan: Plan) -> Sequence[int]:
    """Shorter than the prompts that will be sent, so that a probe never overflows a context they fit into."""
    return min(PROBE_WORDS[0], max(1, plan.prompt_tokens // 16)), min(PROBE_WORDS[1], max(2, plan.prompt_tokens // 5))


def _prompt_tokens(client: httpx.Client, plan: Plan, model: str, words: int) -> int:
    body = {**chat_body(plan, model, probe_text(words, salt=plan.salt)), "max_tokens": 1, "stream": False}
    del body["stream_options"]
    answer = _json(_ask(client, plan, "POST", "/v1/chat/completions", body), plan)
    count = (answer.get("usage") or {}).get("prompt_tokens")
    if not isinstance(count, int):
        raise LoadError(f"{plan.host} answered for {model!r} without usage.prompt_tokens: tokens cannot be counted.")
    return count


def _refuse_too_long(plan: Plan, model: str, card: Mapping[str, Any]) -> None:
    longest = card.get("max_model_len")
    if isinstance(longest, int) and plan.prompt_tokens + plan.output_tokens > longest:
        raise LoadError(
            f"{plan.prompt_tokens} prompt and {plan.output_tokens} output tokens do not fit into {model}'s {longest}; "
            "lower --prompt-tokens or --output-tokens."
        )


def _ask(client: httpx.Client, plan: Plan, method: str, path: str, body: Any = None) -> httpx.Response:
    try:
        return client.request(method, path, json=body)
    except httpx.TimeoutException as exc:
        raise LoadError(f"{plan.host} did not answer {path} within {_TIMEOUT_S:g} s; is it overloaded?") from exc
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
        raise LoadError(
            f"Nothing answers at {plan.host} ({exc}). Start the gateway (`make demo`, or `wattgate up --config FILE`), "
            "or name another with --host."
        ) from exc


def _json(answer: httpx.Response, plan: Plan) -> Mapping[str, Any]:
    if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        raise LoadError(f"{plan.host} refuses the API key; give a valid one with --api-key or WATTGATE_API_KEY.")
    try:
        data = answer.json()
    except ValueError:
        data = None
    if answer.is_success and isinstance(data, dict):
        return data
    raise LoadError(f"{plan.host} answered {answer.request.url.path} with {answer.status_code}: {answer.text[:200]}")
