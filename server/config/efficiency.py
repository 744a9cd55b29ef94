"""Settings of the efficiency figures."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from server.config.section import Settings

__all__ = ["EfficiencySettings", "PeakSettings", "SloSettings"]


class SloSettings(Settings):
    """What makes a streamed request a good one; goodput counts those."""

    ttft_s: float = Field(gt=0, le=3600, description="Longest time to the first token.")
    itl_s: float = Field(gt=0, le=3600, description="Longest mean time between a request's tokens (TPOT).")


class PeakSettings(Settings):
    """What a device can do at most, as measured or from its data sheet; unknown is left out."""

    flops_per_s: float | None = Field(
        None, gt=0, description="FLOP/s of the arithmetic that the engine computes in, all its devices or cores."
    )
    bytes_per_s: float | None = Field(None, gt=0, description="Bytes/s from memory, all its devices or cores.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.flops_per_s is None and self.bytes_per_s is None:
            raise ValueError("needs `flops_per_s`, `bytes_per_s` or both; remove the entry if neither is known")
        return self


class EfficiencySettings(Settings):
    window_s: float = Field(60.0, ge=5, le=3600, description="T of the six EfficientLLM metrics: a sliding window.")
    slo: SloSettings | None = Field(None, description="Bounds for goodput: requests per second that kept them.")
    peaks: dict[str, PeakSettings] = Field(
        default_factory=dict,
        description="Peaks by engine (`demo-int4`) or device (`cpu`, `gpu:0`); they go before the built-in GPU table. "
        "Where neither knows a peak there is no MFU or MBU.",
    )
