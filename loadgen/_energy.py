"""Joules of a stretch of time, from the control API's cumulative counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from loadgen._control import Control, RefusedError
from loadgen._errors import LoadError

__all__ = [
    "Counters",
    "EnergyReport",
    "EnergyWindow",
    "ModelEnergy",
    "Use",
    "counters_of",
    "parse_counters",
    "read_counters",
    "settled_counters",
]

_POLL_S: Final = 0.25
_MICROJOULES: Final = 1_000_000

Key = tuple[str, str, str, str]
"""engine, model, variant, adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What one configuration took: active energy only, idle stands apart."""

    engine: str
    model: str
    variant: str
    adapter: str
    """`none` where there is none."""
    active_joules: float
    prompt_tokens: int
    output_tokens: int

    @property
    def key(self) -> Key:
        return (self.engine, self.model, self.variant, self.adapter)

    @property
    def joules_per_output_token(self) -> float | None:
        return self.active_joules / self.output_tokens if self.output_tokens else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """One reading of `GET /api/energy`; everything in it only grows."""

    uses: Mapping[Key, Use]
    device_microjoules: int
    account_microjoules: Mapping[str, int]
    scopes: tuple[str, ...]
    method: str | None
    confidence: float | str | None
    closed_until_age_s: float | None
    """How long ago the last attributed window ended."""
    pending_requests: int

    @property
    def residual_microjoules(self) -> int:
        """Accounts less meters: 0 if energy is conserved."""
        return sum(self.account_microjoules.values()) - self.device_microjoules

    def towards(self, later: Self, share: float) -> tuple[float, dict[str, float]]:
        """Device and accounts in microjoules, at a moment between two readings: straight between them."""
        devices = self.device_microjoules + share * (later.device_microjoules - self.device_microjoules)
        names = {**self.account_microjoules, **later.account_microjoules}
        accounts = {
            name: (1 - share) * self.account_microjoules.get(name, 0) + share * later.account_microjoules.get(name, 0)
            for name in names
        }
        return devices, accounts

    def since(self, before: Self) -> EnergyReport:
        return EnergyReport(
            uses=tuple(
                use for key, after in self.uses.items() if (use := _less(after, before.uses.get(key))) is not None
            ),
            device_joules=(self.device_microjoules - before.device_microjoules) / _MICROJOULES,
            account_joules={
                account: (value - before.account_microjoules.get(account, 0)) / _MICROJOULES
                for account, value in self.account_microjoules.items()
            },
            scopes=self.scopes,
            method=self.method,
            confidence=self.confidence,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReport:
    """What a stretch of time took, warm-up and drain included."""

    uses: Sequence[Use]
    """Configurations that did something."""
    device_joules: float
    account_joules: Mapping[str, float]
    scopes: tuple[str, ...]
    method: str | None
    confidence: float | str | None
    window: EnergyWindow | None = None
    """The measured window alone; None: not known."""
    models: Mapping[str, ModelEnergy] = field(default_factory=dict)
    """By the id that was asked for: what the ledger says of the measured requests. Empty: there is no ledger."""
    unknown_requests: int | None = None
    """Whole answers whose joules the ledger does not have; None: it was not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyWindow:
    """The steady state, by the meters: other clients' work and idle time are in it."""

    start_s: float
    end_s: float
    device_joules: float
    account_joules: Mapping[str, float]
    mean_watts: float
    output_tokens: float
    """That arrived within it, at this load's clients."""
    joules_per_output_token: float | None
    """Active energy alone."""
    joules_per_output_token_with_idle: float | None
    """All that the devices used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEnergy:
    """What whole, measured answers of one model id took, as attributed to each; None: unknown of some, or of all."""

    requests: int
    """With known joules."""
    unknown: int
    joules: float
    prefill_joules: float
    decode_joules: float
    output_tokens: int
    joules_per_request: float | None
    joules_per_output_token: float | None
    """Without idle."""
    joules_per_output_token_with_idle: float | None
    """With the idle energy of its engines in the window, shared by output tokens."""
    co2e_grams: float | None
    co2e_grams_per_1k_output_tokens: float | None
    cost: float | None
    currency: str | None


def _less(after: Use, before: Use | None) -> Use | None:
    if before is None:
        return after
    tokens = after.output_tokens - before.output_tokens
    joules = after.active_joules - before.active_joules
    if tokens <= 0 and joules <= 0:
        return None
    return Use(
        engine=after.engine,
        model=after.model,
        variant=after.variant,
        adapter=after.adapter,
        active_joules=joules,
        prompt_tokens=after.prompt_tokens - before.prompt_tokens,
        output_tokens=tokens,
    )


def parse_counters(data: Mapping[str, Any]) -> Counters:
    """Raises `LoadError` if the answer is of another form."""
    try:
        uses = [_use(entry) for entry in data["configurations"]]
        exact = data["microjoules"]
        return Counters(
            uses={use.key: use for use in uses},
            device_microjoules=sum(map(int, exact["devices"].values())),
            account_microjoules={str(name): int(value) for name, value in exact["accounts"].items()},
            scopes=tuple(sorted({str(device["scope"]) for device in data["devices"]})),
            method=data.get("method"),
            confidence=data.get("confidence"),
            closed_until_age_s=data.get("closed_until_age_s"),
            pending_requests=int(data.get("pending_requests") or 0),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise LoadError(f"The control API's /api/energy is of an unknown form ({exc!r}).") from exc


def _use(entry: Mapping[str, Any]) -> Use:
    return Use(
        engine=entry["engine"],
        model=entry["model"],
        variant=entry["variant"],
        adapter=entry["adapter"],
        active_joules=float(entry["active_joules"]),
        prompt_tokens=int(entry["prompt_tokens"] or 0),
        output_tokens=int(entry["output_tokens"] or 0),
    )


def read_counters(control: str, *, token: str = "") -> Counters:
    """Raises `LoadError` with one sentence."""
    with Control(control, token) as api:
        return counters_of(api)


def counters_of(api: Control) -> Counters:
    """The same over a connection that stays open."""
    try:
        data = api.get_json("/api/energy")
    except RefusedError:
        raise
    except LoadError as exc:
        raise LoadError(f"{exc} It gives no energy; leave --control out.") from exc
    return parse_counters(data)


def settled_counters(
    control: str,
    *,
    ended_at: float,
    wait_s: float,
    token: str = "",
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Counters, bool]:
    """Counters once all that ended before `ended_at` (on `clock`) is attributed; False if `wait_s` was too short."""
    deadline = clock() + wait_s
    while True:
        counters = read_counters(control, token=token)
        age = counters.closed_until_age_s
        if counters.pending_requests == 0 and age is not None and age < clock() - ended_at:
            return counters, True
        if clock() >= deadline:
            return counters, False
        sleep(_POLL_S)
