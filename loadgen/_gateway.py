"""Asks the server under test what it serves and how it counts tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import httpx

from loadgen._calibrate import calibrate, probe_body
from loadgen._errors import LoadError
from loadgen._mix import Mix, mix_adapters, parse_mix
from loadgen._plan import Plan
from loadgen._prompts import Calibration
from loadgen._workloads import WORKLOADS
from loadgen._workloads._workload import Endpoint

__all__ = ["Prepared", "headers", "prepare"]

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
            "calibrations": {id_: asdict(calibration) for id_, calibration in self.calibrations.items()},
            "cards": {id_: dict(card) for id_, card in self.cards.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            mix=Mix(models=tuple(data["models"]), weights=tuple(data["weights"])),
            calibrations={id_: Calibration(**values) for id_, values in data["calibrations"].items()},
            cards=data["cards"],
        )


def headers(plan: Plan) -> dict[str, str]:
    """Sent with every request. No compression: it would hold chunks back."""
    sent = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    return {**sent, "Authorization": f"Bearer {plan.api_key}"} if plan.api_key else sent


def prepare(plan: Plan) -> Prepared:
    """List the models, decide the mix, calibrate the prompts. Raises `LoadError` with one sentence for a person."""
    with httpx.Client(base_url=plan.host, headers=headers(plan), timeout=_TIMEOUT_S) as client:
        cards = _cards(client, plan)
        mix = mix_adapters(plan.mix_adapters, parse_mix(plan.models, list(cards)), cards)
        found = Prepared(mix=mix, calibrations={}, cards={model: cards.get(model, {}) for model in mix.models})
        # What is wrong with a file or a length shows before anything is sent.
        probes = WORKLOADS[plan.workload](plan, found).probes
        if probes is None:
            return found
        calibrations = calibrate(
            mix.models,
            found.cards,
            lambda model, messages: _prompt_tokens(client, plan, probes.endpoint, model, messages),
            salt=plan.salt,
            several_messages=probes.several_messages,
        )
        return replace(found, calibrations=calibrations)


def _cards(client: httpx.Client, plan: Plan) -> dict[str, Mapping[str, Any]]:
    answer = _ask(client, plan, "GET", "/v1/models")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return {}
    task = "embed" if plan.workload == "embeddings" else "generate"
    return {entry["id"]: entry for entry in _json(answer, plan).get("data", []) if entry.get("task", task) == task}


def _prompt_tokens(client: httpx.Client, plan: Plan, endpoint: Endpoint, model: str, messages: Sequence[str]) -> int:
    answer = _json(_ask(client, plan, "POST", endpoint, probe_body(endpoint, model, messages)), plan)
    count = (answer.get("usage") or {}).get("prompt_tokens")
    if not isinstance(count, int):
        raise LoadError(f"{plan.host} answered for {model!r} without usage.prompt_tokens: tokens cannot be counted.")
    return count


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
