"""Each method as llm-compressor's modifiers.

Ignored everywhere: the output head and the routers of mixtures of experts, which engines want in 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from llmcompressor.modifiers import Modifier
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

from quant.compressor.options import CompressorOptions

__all__ = ["IGNORED", "RECIPES"]

IGNORED: Final = ("lm_head", r"re:.*\.(gate|router)$")
_KV_CACHE_FP8: Final = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True}
_PRESETS: Final = {"w8a8-int8": "W8A8", "fp8-dynamic": "FP8_DYNAMIC", "fp8-block": "FP8_BLOCK"}


def _gptq(options: CompressorOptions) -> list[Modifier]:
    return [GPTQModifier(**_scheme(options))]


def _awq(options: CompressorOptions) -> list[Modifier]:
    return [AWQModifier(), QuantizationModifier(**_scheme(options))]


def _smoothquant(options: CompressorOptions) -> list[Modifier]:
    return [SmoothQuantModifier(smoothing_strength=options.strength), QuantizationModifier(**_scheme(options))]


def _fp8_static(options: CompressorOptions) -> list[Modifier]:  # noqa: ARG001 - one signature for all
    return [QuantizationModifier(targets="Linear", scheme="FP8", ignore=[*IGNORED])]


def _kv_cache(options: CompressorOptions) -> list[Modifier]:
    if options.scheme == "weights-kept":
        return [QuantizationModifier(kv_cache_scheme=_KV_CACHE_FP8, ignore=[*IGNORED])]
    return [QuantizationModifier(**_scheme(options), kv_cache_scheme=_KV_CACHE_FP8)]


def _nvfp4(options: CompressorOptions) -> list[Modifier]:  # noqa: ARG001 - one signature for all
    return [QuantizationModifier(targets="Linear", scheme="NVFP4", ignore=[*IGNORED])]


def _rtn(options: CompressorOptions) -> list[Modifier]:
    return [QuantizationModifier(**_scheme(options))]


def _scheme(options: CompressorOptions) -> dict[str, Any]:
    """The arguments that say how weights and activations are rounded."""
    if options.scheme in _PRESETS:
        return {"targets": "Linear", "scheme": _PRESETS[options.scheme], "ignore": [*IGNORED]}
    weights = {
        "num_bits": 4,
        "type": "int",
        "strategy": "group",
        "group_size": options.group_size,
        "symmetric": options.symmetric,
        "dynamic": False,
    }
    return {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": [*IGNORED]}


RECIPES: Final[Mapping[str, Callable[[CompressorOptions], list[Modifier]]]] = {
    "gptq": _gptq,
    "awq": _awq,
    "smoothquant": _smoothquant,
    "fp8-static": _fp8_static,
    "kv-cache": _kv_cache,
    "nvfp4": _nvfp4,
    "rtn-reference": _rtn,
}
"""By the names of table.py."""
