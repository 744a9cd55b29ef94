"""Which model each request asks for."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from typing import Any, Final

from loadgen._errors import LoadError

__all__ = ["Mix", "base_of", "mix_adapters", "parse_mix"]

Cards = Mapping[str, Mapping[str, Any]]
"""What `GET /v1/models` says of each id."""

_STREAM: Final = 0x6D6978
"""Separates the draws of the mix from those of the prompts under one seed."""
_BASE: Final = "base"
_ZIPF: Final = 1.5
"""Popularity of adapters: the k-th is asked for k^-1.5 as often as the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Model ids with their shares of the requests."""

    models: tuple[str, ...]
    weights: tuple[float, ...]

    def pick(self, index: int, *, seed: int) -> str:
        """The model of request `index`; the same for the same seed."""
        if len(self.models) == 1:
            return self.models[0]
        bounds = list(accumulate(self.weights))
        # A digest, not a generator: made anew for each request, one of those costs more than the rest of a request.
        digest = blake2b(b"%d %d %d" % (seed, _STREAM, index), digest_size=8).digest()
        return self.models[bisect(bounds, int.from_bytes(digest) / 2**64 * bounds[-1], hi=len(bounds) - 1)]


def parse_mix(text: str, known: Sequence[str]) -> Mix:
    """`demo:bf16=3,demo:int8` gives weights 3 and 1; an empty text gives every known id the same.

    `known` is what the server lists; nothing is refused if it lists nothing. Raises `LoadError`.
    """
    if not text.strip():
        if not known:
            raise LoadError("The server lists no model for this workload; name one with --models ID.")
        return Mix(models=tuple(known), weights=(1.0,) * len(known))
    models, weights = zip(*(_entry(part) for part in text.split(",") if part.strip()), strict=True)
    twins = sorted({model for model in models if models.count(model) > 1})
    if twins:
        raise LoadError(f"--models names {twins[0]!r} twice; give it one weight.")
    unknown = [model for model in models if known and model not in known]
    if unknown:
        raise LoadError(f"The server does not list the model {unknown[0]!r}; it lists {', '.join(known)}.")
    return Mix(models=models, weights=weights)


def base_of(model: str, cards: Cards) -> str:
    """The base model of an id, whose tokenizer it has; itself where the server does not say."""
    card = cards.get(model, {})
    return str(card.get("base_model") or card.get("parent") or model)


def mix_adapters(text: str, mix: Mix, cards: Cards) -> Mix:
    """Share each model's requests between itself (`base`) and its adapters, as the server lists them.

    `uniform`: all alike. `zipf` or `zipf=1.2`: the base first, then the adapters in their order. `NAME=WEIGHT,…`: these
    adapters, and `base` if it is named. A model without adapters keeps its requests. Raises `LoadError`.
    """
    if not text.strip():
        return mix
    bases = [model for model in mix.models if "adapter" not in cards.get(model, {})]
    ids = {model: {_BASE: model, **_adapters_on(model, cards)} for model in bases}
    known = {name: None for of_model in ids.values() for name in of_model}
    if len(known) < 2:
        raise LoadError(f"--mix-adapters: the server lists no adapter on {', '.join(bases) or 'an adapter'}.")
    shares: dict[str, float] = {}
    for model, weight in zip(mix.models, mix.weights, strict=True):
        if model in ids:  # an adapter comes in by its base
            weights = _adapter_weights(text, list(ids[model]), list(known))
            whole = sum(weights.values())
            shares |= {ids[model][name]: weight * part / whole for name, part in weights.items()}
    return Mix(models=tuple(shares), weights=tuple(shares.values()))


def _adapters_on(model: str, cards: Cards) -> dict[str, str]:
    """Name → id. An adapter may be listed with its variant and without: a variant's has that variant in its id."""
    variant = model.rpartition(":")[2] if ":" in model else None
    found: dict[str, str] = {}
    for id_, card in cards.items():
        if card.get("parent") == model and id_ != model:
            name = str(card.get("adapter") or id_)
            if name not in found or id_ == f"{name}:{variant}":
                found[name] = id_
    return found


def _adapter_weights(text: str, names: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """By name; `names` are the model's own, `known` those of all models."""
    kind, _, exponent = text.strip().partition("=")
    if text.strip() == "uniform":
        return dict.fromkeys(names, 1.0)
    if kind == "zipf" and "," not in text:
        power = _share(exponent or str(_ZIPF), f"--mix-adapters: {text.strip()!r} is not zipf or zipf=NUMBER")
        return {name: float(rank**-power) for rank, name in enumerate(names, start=1)}
    weights = dict(_entry(part, option="--mix-adapters") for part in text.split(",") if part.strip())
    unknown = [name for name in weights if name not in known]
    if unknown:
        raise LoadError(f"--mix-adapters names {unknown[0]!r}; there are {', '.join(known)} (or: uniform, zipf).")
    return {name: weight for name, weight in weights.items() if name in names} or {_BASE: 1.0}


def _entry(part: str, option: str = "--models") -> tuple[str, float]:
    # Ids may hold colons and slashes; an equals sign they do not.
    model, equals, weight = part.strip().partition("=")
    wrong = f"{option}: {part.strip()!r} is not ID or ID=WEIGHT"
    share = _share(weight, wrong) if equals else 1.0
    if not model:
        raise LoadError(f"{wrong} with a weight above 0.")
    return model, share


def _share(text: str, wrong: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < float("inf"):
        raise LoadError(f"{wrong} with a weight above 0.")
    return share
