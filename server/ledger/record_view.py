"""How a record is shown: as JSON, and flat for CSV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from server.ledger.period import iso
from server.ledger.queries import RECORD_COLUMNS
from server.units import MICROJOULES_PER_JOULE

__all__ = ["record_columns", "record_flat", "record_view"]

_ENERGY: Final = ("prefill_uj", "decode_uj", "whole", "scope", "method", "confidence", "grams", "cost", "currency")
_TIMES: Final = ("received", "ended")
_RENAMED: Final = {"prefill_uj": "prefill_joules", "decode_uj": "decode_joules", "grams": "co2e_grams"}


def record_view(record: Mapping[str, Any]) -> dict[str, Any]:
    """`final` says whether its energy is known, and will not change."""
    shown = {name: value for name, value in record.items() if name not in _ENERGY}
    final = record["prefill_uj"] is not None
    return {**shown, **_iso_times(record), "final": final, "energy": _energy(record) if final else None}


def record_columns() -> list[str]:
    """Of the CSV."""
    names = [_RENAMED.get(name, name) for name in RECORD_COLUMNS]
    names.insert(names.index("prefill_joules"), "joules")
    return names


def record_flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the CSV; unknown is None."""
    return {**record, **_iso_times(record), **_in_joules(record), "co2e_grams": record["grams"]}


def _energy(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_in_joules(record),
        "microjoules": record["prefill_uj"] + record["decode_uj"],
        "whole": record["whole"],
        "scope": record["scope"],
        "method": record["method"],
        "confidence": record["confidence"],
        "co2e_grams": record["grams"],
        "cost": record["cost"],
        "currency": record["currency"],
    }


def _in_joules(record: Mapping[str, Any]) -> dict[str, float | None]:
    prefill, decode = record["prefill_uj"], record["decode_uj"]
    if prefill is None:
        return dict.fromkeys(("joules", "prefill_joules", "decode_joules"))
    return {
        "joules": (prefill + decode) / MICROJOULES_PER_JOULE,
        "prefill_joules": prefill / MICROJOULES_PER_JOULE,
        "decode_joules": decode / MICROJOULES_PER_JOULE,
    }


def _iso_times(record: Mapping[str, Any]) -> dict[str, str]:
    return {name: iso(record[name]) for name in _TIMES}
