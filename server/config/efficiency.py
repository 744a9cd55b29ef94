"""Settings of the efficiency figures."""

from __future__ import annotations

from pydantic import Field

from server.config.section import Settings

__all__ = ["EfficiencySettings"]


class EfficiencySettings(Settings):
    window_s: float = Field(60.0, ge=5, le=3600, description="T of the six EfficientLLM metrics: a sliding window.")
