"""Computes the routing table: every public id and who can serve it.

The grammar `name[:variant]`, name a base model or an adapter, is resolved here, once a change, by listing every id
that exists. A worker then needs one look-up a request, and an id with slashes or colons needs no splitting rule:

    demo:int4   the replicas of variant int4 of model demo
    demo        those of its first listed variant
    json:int4   adapter json on variant int4
    json        the same on the first listed variant that can take it
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from server.errors import ConfigError
from server.fleet import EngineState, Replica
from server.wire import NO_ADAPTER, Candidate, ReplicaAddress, Route, Snapshot

__all__ = ["Placement", "build_snapshot", "check_namespace"]

FIRST = "first"


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
    version: int, replicas: Sequence[Replica], placements: Sequence[Placement], *, policy: str
) -> Snapshot:
    """The table for the workers; `replicas` in the order of the configuration, which decides what is first."""
    routes: dict[str, Route] = {}
    for model in dict.fromkeys(replica.model for replica in replicas):
        _add_model(routes, model, [replica for replica in replicas if replica.model == model], policy)
    for placement in placements:
        _add_adapter(routes, placement, replicas, policy)
    return Snapshot(version=version, replicas=_addresses(replicas), routes=routes)


def _add_model(routes: dict[str, Route], model: str, replicas: list[Replica], policy: str) -> None:
    by_variant = _by_variant(replicas)
    for variant, members in by_variant.items():
        public_id = f"{model}:{variant}"
        candidates = [_base_candidate(replica, replica.upstream_model) for replica in members]
        routes[public_id] = _route(public_id, members, candidates, policy)
    first = next(iter(by_variant.values()))
    # A local engine answers to the bare id too: no splice needed.
    candidates = [
        _base_candidate(replica, model if replica.launcher == "local" else replica.upstream_model) for replica in first
    ]
    routes[model] = _route(model, first, candidates, policy)


def _add_adapter(routes: dict[str, Route], placement: Placement, replicas: Sequence[Replica], policy: str) -> None:
    able = _by_variant([replica for replica in replicas if replica.name in placement.engines])
    for variant, members in able.items():
        public_id = f"{placement.name}:{variant}"
        routes[public_id] = _adapter_route(public_id, placement, members, policy)
    if able:
        routes[placement.name] = _adapter_route(placement.name, placement, next(iter(able.values())), policy)


def _adapter_route(public_id: str, placement: Placement, members: list[Replica], policy: str) -> Route:
    loaded = [replica for replica in members if placement.name in replica.adapters]
    candidates = [_adapter_candidate(replica, placement.name) for replica in loaded]
    route = _route(public_id, members, candidates, policy)
    complete = len(loaded) == len(members) and route.listed
    card = {**route.card, "adapter": placement.name, "parent": f"{placement.model}:{members[0].variant}"}
    return Route(id=public_id, task=route.task, policy=policy, candidates=candidates, listed=complete, card=card)


def _by_variant(replicas: Iterable[Replica]) -> dict[str, list[Replica]]:
    found: dict[str, list[Replica]] = {}
    for replica in replicas:
        found.setdefault(replica.variant, []).append(replica)
    return found


def _base_candidate(replica: Replica, upstream_model: str) -> Candidate:
    return Candidate(
        replica=replica.name,
        model=replica.model,
        variant=replica.variant,
        precision=replica.precision,
        adapter=NO_ADAPTER,
        upstream_model=upstream_model,
        answer_model=f"{replica.model}:{replica.variant}",
    )


def _adapter_candidate(replica: Replica, adapter: str) -> Candidate:
    public_id = f"{adapter}:{replica.variant}"
    return Candidate(
        replica=replica.name,
        model=replica.model,
        variant=replica.variant,
        precision=replica.precision,
        adapter=adapter,
        upstream_model=public_id,
        answer_model=public_id,
    )


def _route(public_id: str, members: list[Replica], candidates: list[Candidate], policy: str) -> Route:
    return Route(
        id=public_id,
        task=members[0].task,
        policy=policy if len(candidates) > 1 else FIRST,
        candidates=candidates,
        listed=any(replica.state is EngineState.READY for replica in members),
        card=_card(members[0]),
    )


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


def _addresses(replicas: Iterable[Replica]) -> dict[str, ReplicaAddress]:
    return {replica.name: _address(replica, replica.url) for replica in replicas if replica.url is not None}


def _address(replica: Replica, url: str) -> ReplicaAddress:
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
        healthy=replica.state is EngineState.READY,
        rewrite_model=replica.launcher != "local" and replica.upstream_model != public_id,
    )
