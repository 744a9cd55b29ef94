"""The catalogue's part on what variants lose: measured once, by `wattgate quant evaluate`."""

from __future__ import annotations

from typing import Final

from server.telemetry.metric import ENGINE, Metric, gauge, info

__all__ = ["QUALITY_METRICS"]

_TEXT: Final = (*ENGINE, "dataset", "path")

# fmt: off
QUALITY_METRICS: Final[tuple[Metric, ...]] = (
    gauge("quality", "wattgate_quality_perplexity_ratio", _TEXT,
        "Perplexity of the engine's checkpoint over its reference's on the same text, as its quality.json says. path: "
        "offline (with torch) or served (through a running engine)."),
    gauge("quality", "wattgate_quality_kl_nats", _TEXT,
        "Mean Kullback-Leibler divergence of the checkpoint's next-token distribution from its reference's, a token."),
    gauge("quality", "wattgate_quality_top1_agreement_ratio", _TEXT,
        "Share of tokens for which the checkpoint and its reference find the same next token most probable."),
    info("quality", "wattgate_quality_info", (*_TEXT, "measured_at"),
        "What the checkpoint's quality was measured on, how, and when."),
)
# fmt: on
