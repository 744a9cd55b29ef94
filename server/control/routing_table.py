"""Computes the routing table: every public id and who can serve it.

The grammar `name[:variant]`, name a base model or an adapter, is resolved here, once a change, by listing every id
that exists. A worker then needs one look-up a request, and an id with slashes or colons needs no splitting rule:

    demo:int4   the replicas of variant int4 of model demo
    demo        those of its first listed variant, or of all with a policy that mixes them (`routing.bare_ids`)
    json:int4   adapter json on variant int4
    json        the same on the first listed variant that can take it, or on all that can
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgspec

from server.config import Config
from server.errors import ConfigError
from server.fleet import SERVING, EngineState, Replica
from server.wire import NO_ADAPTER, Candidate, ReplicaAddress, Route, Snapshot

__all__ = ["Placement", "RoutingRules", "build_snapshot", "check_namespace"]

_FIRST: Final = "first"
_SOON_READY: Final = frozenset({EngineState.PENDING, EngineState.STARTING})
_TRIAL_REQUESTS: Final = 1
"""At a time and a worker, at a replica that was ejected and seems well again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRules:
    """What the configuration says about who gets which request."""

    between_replicas: str
    """The policy among replicas of one variant."""
    bare_ids: str
    """The policy among all variants; `first`: the first variant alone, whose replicas share as above."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """By replica; a missing name has 1."""
    max_in_flight: Mapping[str, int | None] = field(default_factory=dict)
    """By replica; a missing name has no bound."""

    @classmethod
    def of(cls, config: Config) -> Self:
        return cls(
            between_replicas=config.routing.between_replicas,
            bare_ids=config.routing.bare_ids,
            weights={engine.name: engine.weight for engine in config.engines},
            max_in_flight={engine.name: engine.max_in_flight for engine in config.engines},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """An adapter and the replicas that should have it (they can take it, whether or not they have it yet)."""

    name: str
    model: str
    engines: frozenset[str]


def check_namespace(variants: Iterable[tuple[str, str]], adapters: Iterable[tuple[str, str]]) -> None:
    """Refuse ids that mean two things. `variants` are (model, variant), `adapters` (name, model).

    Raises `ConfigError` naming the id and both meanings.
    """
    variants = list(dict.fromkeys(variants))
    meanings: dict[str, str] = {}
    for model in dict.fromkeys(model for model, _ in variants):
        _claim(meanings, model, f"the model {model!r}")
    for model, variant in variants:
        _claim(meanings, f"{model}:{variant}", f"variant {variant!r} of {model!r}")
    for name, base in adapters:
        _claim(meanings, name, f"the adapter {name!r}")
        for model, variant in variants:
            if model == base:
                _claim(meanings, f"{name}:{variant}", f"the adapter {name!r} on variant {variant!r}")


def _claim(meanings: dict[str, str], public_id: str, meaning: str) -> None:
    if public_id in meanings:
        raise ConfigError(
            f"The id {public_id!r} would mean both {meanings[public_id]} and {meaning}. Rename one of the two."
        )
    meanings[public_id] = meaning


def build_snapshot(
    version: int, replicas: Sequence[Replica], placements: Sequence[Placement], *, rules: RoutingRules
) -> Snapshot:
    """The table for the workers; `replicas` in the order of the configuration, which decides what is first."""
    routes: dict[str, Route] = {}
    for model in dict.fromkeys(replica.model for replica in replicas):
        _add_model(routes, model, [replica for replica in replicas if replica.model == model], rules)
    for placement in placements:
        _add_adapter(routes, placement, replicas, rules)
    return Snapshot(version=version, replicas=_addresses(replicas, rules), routes=routes)


def _add_model(routes: dict[str, Route], model: str, replicas: list[Replica], rules: RoutingRules) -> None:
    for variant, members in _by_variant(replicas).items():
        public_id = f"{model}:{variant}"
        candidates = [_base_candidate(replica, replica.upstream_model, rules) for replica in members]
        routes[public_id] = _route(public_id, members, candidates, rules.between_replicas)
    members, policy = _bare(replicas, rules)
    # A local engine answers to the bare id too: no splice needed.
    candidates = [
        _base_candidate(replica, model if replica.launcher == "local" else replica.upstream_model, rules)
        for replica in members
    ]
    routes[model] = _route(model, members, candidates, policy)


def _add_adapter(
    routes: dict[str, Route], placement: Placement, replicas: Sequence[Replica], rules: RoutingRules
) -> None:
    able = [replica for replica in replicas if replica.name in placement.engines]
    for variant, members in _by_variant(able).items():
        public_id = f"{placement.name}:{variant}"
        routes[public_id] = _adapter_route(public_id, placement, members, rules, rules.between_replicas)
    if able:
        members, policy = _bare(able, rules)
        routes[placement.name] = _adapter_route(placement.name, placement, members, rules, policy)


def _bare(replicas: list[Replica], rules: RoutingRules) -> tuple[list[Replica], str]:
    """Who serves an id without a variant, and by which policy; `replicas` of one model, at least one."""
    first = replicas[0]
    if rules.bare_ids == _FIRST:
        return [replica for replica in replicas if replica.variant == first.variant], rules.between_replicas
    return [replica for replica in replicas if replica.task == first.task], rules.bare_ids


def _adapter_route(
    public_id: str, placement: Placement, members: list[Replica], rules: RoutingRules, policy: str
) -> Route:
    loaded = [replica for replica in members if placement.name in replica.adapters]
    candidates = [_adapter_candidate(replica, placement.name, rules) for replica in loaded]
    route = _route(public_id, members, candidates, policy)
    variants = {replica.variant for replica in members}
    parent = f"{placement.model}:{variants.pop()}" if len(variants) == 1 else placement.model
    return msgspec.structs.replace(
        route,
        listed=len(loaded) == len(members) and route.listed,
        card={**route.card, "adapter": placement.name, "parent": parent},
    )


def _by_variant(replicas: Iterable[Replica]) -> dict[str, list[Replica]]:
    found: dict[str, list[Replica]] = {}
    for replica in replicas:
        found.setdefault(replica.variant, []).append(replica)
    return found


def _base_candidate(replica: Replica, upstream_model: str, rules: RoutingRules) -> Candidate:
    return Candidate(
        replica=replica.name,
        model=replica.model,
        variant=replica.variant,
        precision=replica.precision,
        adapter=NO_ADAPTER,
        upstream_model=upstream_model,
        answer_model=f"{replica.model}:{replica.variant}",
        weight=rules.weights.get(replica.name, 1.0),
    )


def _adapter_candidate(replica: Replica, adapter: str, rules: RoutingRules) -> Candidate:
    public_id = f"{adapter}:{replica.variant}"
    return Candidate(
        replica=replica.name,
        model=replica.model,
        variant=replica.variant,
        precision=replica.precision,
        adapter=adapter,
        upstream_model=public_id,
        answer_model=public_id,
        weight=rules.weights.get(replica.name, 1.0),
    )


def _route(public_id: str, members: list[Replica], candidates: list[Candidate], policy: str) -> Route:
    return Route(
        id=public_id,
        task=members[0].task,
        policy=policy if len(candidates) > 1 else _FIRST,
        candidates=candidates,
        listed=any(replica.state in SERVING for replica in members),
        card=_common_card(members),
        starting=any(replica.state in _SOON_READY for replica in members),
    )


def _common_card(members: list[Replica]) -> dict[str, Any]:
    """What is true of all members, as far as it is known of them."""
    cards = [_card(replica) for replica in members]
    facts = {key: value for card in reversed(cards) for key, value in card.items()}
    return {key: facts[key] for key in facts if all(card.get(key, facts[key]) == facts[key] for card in cards)}


def _card(replica: Replica) -> dict[str, Any]:
    """What `GET /v1/models` says beside OpenAI's fields; unknown facts are left out."""
    facts: dict[str, Any] = {
        "base_model": replica.model,
        "variant": replica.variant,
        "precision": replica.precision,
        "task": replica.task,
        "max_model_len": replica.max_model_len,
    }
    if replica.card is not None:
        facts |= {
            "quantization": replica.card.quantization,
            "parameters": replica.card.parameters,
            "size_bytes": replica.card.size_bytes,
            "bits_per_weight": round(replica.card.bits_per_weight, 3),
        }
    return {key: value for key, value in facts.items() if value is not None}


def _addresses(replicas: Iterable[Replica], rules: RoutingRules) -> dict[str, ReplicaAddress]:
    return {replica.name: _address(replica, replica.url, rules) for replica in replicas if replica.url is not None}


def _address(replica: Replica, url: str, rules: RoutingRules) -> ReplicaAddress:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    public_id = f"{replica.model}:{replica.variant}"
    return ReplicaAddress(
        name=replica.name,
        host=parts.hostname or "",
        port=parts.port or (443 if tls else 80),
        tls=tls,
        path_prefix=parts.path.rstrip("/"),
        api_key=replica.api_key,
        healthy=replica.state in SERVING,
        rewrite_model=replica.launcher != "local" and replica.upstream_model != public_id,
        max_in_flight=_max_in_flight(replica, rules),
    )


def _max_in_flight(replica: Replica, rules: RoutingRules) -> int | None:
    return _TRIAL_REQUESTS if replica.state is EngineState.HALF_OPEN else rules.max_in_flight.get(replica.name)
