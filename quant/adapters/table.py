"""Which kind of adapter goes which way on which variant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from quant.adapters import KINDS, AdapterKind, Way
from quant.errors import SchemeError
from server.models import ADAPTER_RULES, AdapterCard, DeviceFacts, ModelCard
from server.models.adapter_rules import AdapterCase
from server.models.device import DEVICES
from server.units import Bytes

__all__ = ["VARIANTS", "compatibility", "device_facts"]

VARIANTS: Final[Mapping[str, str]] = {
    "bf16": "none",
    "fp16": "none",
    "int8": "int-quantized",
    "int4": "pack-quantized group 128",
    "fp8": "float-quantized",
}
"""Precision → scheme, as `ModelCard` names them."""
_FLOATING: Final = frozenset({"bf16", "fp16"})
_THEN_QUANTIZE: Final = "merge, quantize"


def compatibility(device: DeviceFacts) -> dict[str, dict[str, str]]:
    """Kind → variant → what to do, by the rules that the server enforces."""
    return {kind: {variant: _cell(known, variant, device) for variant in VARIANTS} for kind, known in KINDS.items()}


def device_facts(name: str) -> DeviceFacts:
    """A device of the server's table. Raises `SchemeError` for any other name."""
    if name not in DEVICES:
        raise SchemeError(f"There is no device {name!r}. Give one of: {', '.join(DEVICES)}.")
    return DEVICES[name]


def _cell(known: AdapterKind, variant: str, device: DeviceFacts) -> str:
    if known.way is Way.REFUSE:
        return known.way.value
    if known.way is Way.MERGE or not _takes_lora(variant, device):
        return Way.MERGE.value if variant in _FLOATING else _THEN_QUANTIZE
    return known.way.value


def _takes_lora(variant: str, device: DeviceFacts) -> bool:
    lora = AdapterCard(
        kind="lora",
        rank=8,
        alpha=8,
        target_modules=("q_proj",),
        modules_to_save=(),
        base_model=None,
        init="default",
        size_bytes=Bytes(0),
        parameters=0,
    )
    case = AdapterCase(adapter=lora, card=_card(variant), checkpoint=None, max_rank=8, device=device)
    return all(rule.find(case) is None for rule in ADAPTER_RULES.values())


def _card(variant: str) -> ModelCard:
    """A model of that precision; the rules of adapters look at nothing else."""
    return ModelCard(
        architecture=None,
        precision=variant,
        dtype="bfloat16",
        quantization="none" if variant in _FLOATING else "compressed-tensors",
        scheme=VARIANTS[variant],
        parameters=1,
        linear_parameters=1,
        size_bytes=Bytes(1),
        bits_per_weight=8.0,
        linear_bits_per_weight=None,
        kv_bytes_per_token=None,
        max_position=None,
    )
