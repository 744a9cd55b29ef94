"""Joins the ledger's joules with the requests of a run, by request id."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

from loadgen._control import Control
from loadgen._energy import Counters, EnergyWindow, ModelEnergy
from loadgen._errors import LoadError
from loadgen._record import Record

__all__ = ["Dated", "RequestEnergy", "energy_window", "ledger_energies", "model_energies", "settled_energies"]

Dated = tuple[float, Counters]
"""CLOCK_MONOTONIC up to which the counters are attributed, and the counters."""

_POLL_S: Final = 0.5
_PER_THOUSAND: Final = 1000
_JOULES_PER_MICROJOULE: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnergy:
    """What one request took; final."""

    engine: str
    joules: float
    prefill_joules: float
    decode_joules: float
    whole: bool
    """False: a part of its time could not be accounted for."""
    scope: str
    method: str
    confidence: float
    co2e_grams: float | None
    cost: float | None
    currency: str | None

    def to_json(self) -> dict[str, Any]:
        """As it stands in requests.jsonl."""
        values = asdict(self)
        phases = {"prefill": values.pop("prefill_joules"), "decode": values.pop("decode_joules")}
        names = {
            "method": "energy_method",
            "confidence": "energy_confidence",
            "scope": "energy_scope",
            "whole": "energy_whole",
        }
        return {**{names.get(name, name): value for name, value in values.items()}, "joules_by_phase": phases}


def ledger_energies(api: Control, ids: Iterable[str], *, since: str) -> dict[str, RequestEnergy]:
    """By request id, of those whose energy is final. One question whatever their number.

    `since`: the server's time, ISO 8601, before the first of them ended. Raises `LoadError`, also without a ledger.
    """
    wanted = set(ids)
    text = api.get("/api/requests.csv", **{"from": since}).text
    try:
        rows = csv.DictReader(io.StringIO(text))
        return {row["id"]: _energy(row) for row in rows if row["id"] in wanted and row["joules"]}
    except (KeyError, TypeError, ValueError) as exc:
        raise LoadError(f"The control API's /api/requests.csv is of an unknown form ({exc!r}).") from exc


def settled_energies(
    api: Control,
    ids: Sequence[str],
    *,
    since: str,
    wait_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, RequestEnergy]:
    """As soon as all are there; what is there after `wait_s` otherwise."""
    deadline = clock() + wait_s
    while True:
        found = ledger_energies(api, ids, since=since)
        if len(found) >= len(ids) or clock() >= deadline:
            return found
        sleep(_POLL_S)


def energy_window(
    readings: Sequence[Dated], *, start_s: float, end_s: float, origin_s: float, output_tokens: float
) -> EnergyWindow | None:
    """The window [start, end), seconds since `origin_s`; None where the readings do not reach around it."""
    before, after = (_at(readings, origin_s + at) for at in (start_s, end_s))
    if before is None or after is None or end_s <= start_s:
        return None
    device = (after[0] - before[0]) * _JOULES_PER_MICROJOULE
    accounts = {name: (value - before[1].get(name, 0.0)) * _JOULES_PER_MICROJOULE for name, value in after[1].items()}
    active = accounts.get("active")
    return EnergyWindow(
        start_s=start_s,
        end_s=end_s,
        device_joules=device,
        account_joules=accounts,
        mean_watts=device / (end_s - start_s),
        output_tokens=output_tokens,
        joules_per_output_token=active / output_tokens if active is not None and output_tokens else None,
        joules_per_output_token_with_idle=device / output_tokens if output_tokens else None,
    )


def model_energies(
    records: Sequence[Record],
    energies: Mapping[str, RequestEnergy],
    *,
    idle_joules: Mapping[str, float],
    tokens_within: Callable[[Record], float],
) -> dict[str, ModelEnergy]:
    """By model id. `idle_joules`: by engine, in the window; `tokens_within`: a record's output tokens in the window."""
    idle_per_token = _idle_per_token(records, energies, idle_joules, tokens_within)
    by_model: dict[str, list[Record]] = {}
    for record in records:
        if record.ok and not record.warm_up:
            by_model.setdefault(record.model, []).append(record)
    return {model: _of_model(mine, energies, idle_per_token) for model, mine in by_model.items()}


def _of_model(
    records: Sequence[Record], energies: Mapping[str, RequestEnergy], idle_per_token: Mapping[str, float]
) -> ModelEnergy:
    known = [
        (record.output_tokens or 0, energies[record.request_id]) for record in records if record.request_id in energies
    ]
    joules, tokens = sum(found.joules for _, found in known), sum(count for count, _ in known)
    grams = _sum_if_all(found.co2e_grams for _, found in known)
    currencies = {found.currency for _, found in known}
    per_token = joules / tokens if tokens else None
    idle = _sum_if_all(
        count * per if (per := idle_per_token.get(found.engine)) is not None else None for count, found in known
    )
    return ModelEnergy(
        requests=len(known),
        unknown=len(records) - len(known),
        joules=joules,
        prefill_joules=sum(found.prefill_joules for _, found in known),
        decode_joules=sum(found.decode_joules for _, found in known),
        output_tokens=tokens,
        joules_per_request=joules / len(known) if known else None,
        joules_per_output_token=per_token,
        joules_per_output_token_with_idle=per_token + idle / tokens
        if per_token is not None and idle is not None
        else None,
        co2e_grams=grams,
        co2e_grams_per_1k_output_tokens=grams / tokens * _PER_THOUSAND if grams is not None and tokens else None,
        cost=_sum_if_all(found.cost for _, found in known) if len(currencies) == 1 else None,
        currency=currencies.pop() if len(currencies) == 1 else None,
    )


def _idle_per_token(
    records: Iterable[Record],
    energies: Mapping[str, RequestEnergy],
    idle_joules: Mapping[str, float],
    tokens_within: Callable[[Record], float],
) -> dict[str, float]:
    tokens: dict[str, float] = {}
    for record in records:
        if record.request_id in energies:
            engine = energies[record.request_id].engine
            tokens[engine] = tokens.get(engine, 0.0) + tokens_within(record)
    return {engine: idle_joules[engine] / count for engine, count in tokens.items() if count and engine in idle_joules}


def _at(readings: Sequence[Dated], at_s: float) -> tuple[float, dict[str, float]] | None:
    """Device and accounts, µJ."""
    for (start, before), (end, after) in pairwise(readings):
        if start <= at_s <= end and end > start:
            return before.towards(after, (at_s - start) / (end - start))
    return None


def _energy(row: Mapping[str, str]) -> RequestEnergy:
    return RequestEnergy(
        engine=row["engine"],
        joules=float(row["joules"]),
        prefill_joules=float(row["prefill_joules"]),
        decode_joules=float(row["decode_joules"]),
        whole=row["whole"] == "true",
        scope=row["scope"],
        method=row["method"],
        confidence=float(row["confidence"]),
        co2e_grams=_optional(row["co2e_grams"]),
        cost=_optional(row["cost"]),
        currency=row["currency"] or None,
    )


def _optional(text: str) -> float | None:
    return float(text) if text else None


def _sum_if_all(values: Iterable[float | None]) -> float | None:
    """None where one is unknown, or where there is none."""
    known = list(values)
    return None if not known or None in known else sum(value for value in known if value is not None)
