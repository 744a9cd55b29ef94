"""The catalogue's part on efficiency: the six EfficientLLM metrics and their companions."""

from __future__ import annotations

from typing import Final

from server.telemetry.metric import CONFIGURATION, ENGINE, Metric, counter, gauge

__all__ = ["EFFICIENCY_METRICS"]

# fmt: off
EFFICIENCY_METRICS: Final[tuple[Metric, ...]] = (
    gauge("efficiency", "wattgate_efficientllm_amu_ratio", ENGINE,
        "Average memory utilization over efficiency.window_s: memory held over memory that may be used. Engines take "
        "their KV cache at start, so it hardly moves: compare wattgate_memory_bytes."),
    gauge("efficiency", "wattgate_efficientllm_pcu_ratio", ENGINE,
        "Peak compute utilization, which is a mean: of the GPU's utilization, or of CPU time over the cores, over "
        "efficiency.window_s. Near 1 at batch 1: compare wattgate_mfu_ratio and wattgate_mbu_ratio."),
    gauge("efficiency", "wattgate_efficientllm_al_seconds", CONFIGURATION,
        "Average latency of the requests that ended within efficiency.window_s."),
    gauge("efficiency", "wattgate_efficientllm_at_tokens_per_second", CONFIGURATION,
        "Average throughput: output tokens over the sum of latencies of the requests that ended within "
        "efficiency.window_s; the speed of a stream, not of the system."),
    gauge("efficiency", "wattgate_efficientllm_aec_watts", ENGINE,
        "Average energy consumption: mean power of the engine, idle included, over efficiency.window_s."),
    gauge("efficiency", "wattgate_efficientllm_mcr_ratio", (*ENGINE, "quality"),
        "Model compression rate: size of the reference over this size, times this quality over the reference's."),
    gauge("efficiency", "wattgate_mfu_ratio", ENGINE,
        "Model FLOPs utilization over efficiency.window_s: computed FLOP/s over the device's peak. Absent where the "
        "peak is unknown."),
    gauge("efficiency", "wattgate_mbu_ratio", ENGINE,
        "Memory bandwidth utilization over efficiency.window_s: bytes of weights and KV cache that the steps had to "
        "read, a second, over the device's peak. Absent where the peak is unknown."),
    counter("efficiency", "wattgate_model_flops_total", (*ENGINE, "phase"),
        "Floating-point operations that the served tokens needed, by this project's model of the architecture."),
)
# fmt: on
