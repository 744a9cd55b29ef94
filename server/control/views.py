"""What the admin API shows of the plane, as plain JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from server.accounts import Account, EnergyPrice, Phase
from server.carbon.intensity import Known
from server.fleet import SERVING, EngineState, Replica
from server.telemetry.summary import summarize
from server.units import MICROJOULES_PER_JOULE, Seconds

if TYPE_CHECKING:
    from server.control.app import ControlPlane

__all__ = ["carbon_view", "energy_view", "status_view"]

_CONFIGURATION = ("engine", "model", "variant", "precision", "adapter")


def status_view(plane: ControlPlane) -> dict[str, Any]:
    """Everything that runs, and whether all of it is ready."""
    replicas = plane.supervisor.replicas()
    adapters = [
        {
            "name": status.name,
            "model": status.model,
            "replicas": {
                engine: {"state": placed.state, "reason": placed.reason} for engine, placed in status.replicas.items()
            },
        }
        for status in plane.adapters.status()
    ]
    return {
        "version": plane.version,
        "state": _state(replicas, adapters, len(plane.workers)),
        "workers": len(plane.workers),
        "gateway_url": plane.config.gateway.url,
        "engines": [_engine(replica, plane.clock.monotonic()) for replica in replicas],
        "adapters": adapters,
    }


def _state(replicas: Iterable[Replica], adapters: list[dict[str, Any]], workers: int) -> str:
    """`ready`: all engines serve, all adapters are where they can be; `failed`: one was given up; else `starting`."""
    states = {replica.state for replica in replicas}
    if EngineState.FAILED in states:
        return "failed"
    pending = any(placed["state"] == "pending" for adapter in adapters for placed in adapter["replicas"].values())
    return "ready" if states <= SERVING and workers and not pending else "starting"


def _engine(replica: Replica, now: Seconds) -> dict[str, Any]:
    card = replica.card
    return {
        "name": replica.name,
        "model": replica.model,
        "variant": replica.variant,
        "precision": replica.precision,
        "task": replica.task,
        "state": replica.state,
        "since_s": round(now - replica.since, 1),
        "problem": replica.problem,
        "device": replica.device,
        "cores": sorted(replica.cores),
        "pid": replica.pid,
        "restarts": replica.restarts,
        "ejections": dict(replica.ejections),
        "adapters": sorted(replica.adapters),
        "memory_bytes": replica.memory_bytes,
        "engine_version": replica.engine_version,
        "max_model_len": replica.max_model_len,
        "log_path": replica.log_path,
        "parameters": card.parameters if card else None,
        "size_bytes": card.size_bytes if card else None,
        "bits_per_weight": card.bits_per_weight if card else None,
        "linear_bits_per_weight": card.linear_bits_per_weight if card else None,
    }


def carbon_view(known: Known | None, pue: float) -> dict[str, Any] | None:
    """What counts now; None: no intensity is known."""
    if known is None:
        return None
    return {"grams_per_kwh": known.grams_per_kwh, "source": known.source, "kind": known.kind, "pue": pue}


def energy_view(plane: ControlPlane) -> dict[str, Any]:
    """Cumulative joules of all closed windows; `microjoules` holds the integers that add up exactly."""
    energy = plane.metering.energy.snapshot()
    accounts = Counter({account.value: 0 for account in Account})
    active: Counter[tuple[str, ...]] = Counter()
    prefill: Counter[tuple[str, ...]] = Counter()
    for (_device, _scope, *configuration, account, phase), amount in energy.accounts.items():
        accounts[account] += amount
        if account == Account.ACTIVE:
            active[tuple(configuration)] += amount
            prefill[tuple(configuration)] += amount * (phase == Phase.PREFILL)
    rows = summarize(plane.metering.traffic.now(), energy, plane.supervisor.replicas(), by=_CONFIGURATION)
    tokens = {tuple(row.group[label] for label in _CONFIGURATION): row for row in rows}
    configurations = [
        dict(zip(_CONFIGURATION, key, strict=True))
        | {
            "active_joules": amount / MICROJOULES_PER_JOULE,
            "prefill_joules": prefill[key] / MICROJOULES_PER_JOULE,
            "decode_joules": (amount - prefill[key]) / MICROJOULES_PER_JOULE,
            "prompt_tokens": tokens[key].prompt_tokens if key in tokens else 0,
            "output_tokens": tokens[key].output_tokens if key in tokens else 0,
        }
        for key, amount in sorted(active.items())
    ]
    return {
        "method": energy.method,
        "confidence": energy.confidence,
        "closed_until_age_s": plane.metering.energy.closed_until_age(),
        "pending_requests": plane.metering.energy.pending_requests(),
        "accounts": {account: amount / MICROJOULES_PER_JOULE for account, amount in accounts.items()},
        "devices": [
            {"device": device, "scope": scope, "joules": amount / MICROJOULES_PER_JOULE}
            for (device, scope), amount in energy.devices.items()
        ],
        "configurations": configurations,
        "prices": [_price(labels, price) for labels, price in sorted(energy.prices.items())],
        "saved_by_cancellation": [
            dict(zip(_CONFIGURATION, labels, strict=False)) | {"joules": amount / MICROJOULES_PER_JOULE}
            for labels, amount in sorted(energy.saved.items())
        ],
        "microjoules": {
            "accounts": dict(accounts),
            "devices": {device: amount for (device, _scope), amount in energy.devices.items()},
            "configurations": [amount for _, amount in sorted(active.items())],
        },
    }


def _price(labels: tuple[str, ...], price: EnergyPrice) -> dict[str, Any]:
    """Of an engine's tokens lately; null where nothing was measured."""
    return dict(zip(_CONFIGURATION, labels, strict=False)) | {
        "output_token_joules": _joules(price.output_token),
        "prompt_token_joules": _joules(price.prompt_token),
        "marginal_output_token_joules": _joules(price.marginal_output_token),
        "scope": price.scope,
        "method": price.method,
        "confidence": price.confidence,
    }


def _joules(microjoules: float | None) -> float | None:
    return None if microjoules is None else microjoules / MICROJOULES_PER_JOULE
