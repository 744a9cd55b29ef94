"""The values that energy hands out: accounts, phases, postings, what a request used, prices, rates."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from server.units import Microjoules

__all__ = ["Account", "EnergyPrice", "Phase", "Posting", "Rates", "RecordKey", "RequestEnergy"]


class Account(StrEnum):
    """Where joules go; a closed vocabulary, it is a metric label."""

    ACTIVE = "active"
    """A request."""
    IDLE = "idle"
    """The engine was up, nobody was running."""
    UNATTRIBUTED = "unattributed"
    """Traffic past the gateway, or work that nobody can be named for."""
    OTHER = "other"
    """On a shared device: the operating system, the gateway, load generators."""


class Phase(StrEnum):
    """Of an active joule; a closed vocabulary, it is a metric label."""

    PREFILL = "prefill"
    DECODE = "decode"
    NONE = "none"
    """Of every other account."""


class RecordKey(NamedTuple):
    """Names one record for ever: a worker's life, the number of its batch, the place in the batch.

    A batch that is sent again, to this control plane or the next, is the same batch; so is each of its records.
    """

    boot: str
    seq: int
    place: int


class RequestEnergy(NamedTuple):
    """What a request has used, over all its devices: final."""

    key: RecordKey
    id: str
    labels: tuple[str, str, str, str, str]
    """engine, model, variant, precision, adapter"""
    prefill: Microjoules
    decode: Microjoules
    scope: str
    """What the meters covered; several, sorted, joined by `+`."""
    method: str
    """Of its windows' methods, the one of least confidence."""
    confidence: float
    completed: bool
    whole: bool
    """False: some of its time lies in windows that nobody could account for, so it used more than this."""

    @property
    def energy(self) -> Microjoules:
        return Microjoules(self.prefill + self.decode)


class Posting(NamedTuple):
    """Whose energy, wherever it is booked. Names are as they came, not capped; `none` where one does not apply."""

    device: str
    scope: str
    engine: str
    model: str
    variant: str
    precision: str
    adapter: str
    tenant: str
    account: Account
    phase: Phase


class EnergyPrice(NamedTuple):
    """What tokens cost at one engine lately; None where nothing was measured."""

    prompt_token: float | None
    """µJ of a computed prompt token (one that the prefix cache did not hold)."""
    output_token: float | None
    """µJ of an output token, at the batch sizes of the last minute: an average cost."""
    marginal_output_token: float | None
    """µJ that one more stream adds for each of its tokens; None: the method cannot tell."""
    scope: str
    method: str
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a joule emits and costs at one moment. None is unknown."""

    grams_per_joule: float | None
    """gCO₂e, power usage effectiveness included."""
    cost_per_joule: float | None
    currency: str
    source: str
    """Where the intensity comes from: `electricity_maps`, `static:DE:2024`, `configured`, …"""
    kind: str
    """`average` or `marginal`; `none` where the intensity is unknown."""

    def grams(self, energy: Microjoules) -> float | None:
        return None if self.grams_per_joule is None else energy * 1e-6 * self.grams_per_joule

    def cost(self, energy: Microjoules) -> float | None:
        return None if self.cost_per_joule is None else energy * 1e-6 * self.cost_per_joule
