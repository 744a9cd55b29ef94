"""Reads vLLM's log: what it is doing, and why it failed."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Final

from server.engines.engine import Explanation

__all__ = ["explain", "phase"]

_PHASES: Final = (
    # (what the log says, what that means); the match nearest to the log's end wins.
    (r"non-default args|vLLM API server version", "reading its settings"),
    (r"Resolved architecture|Using max model len", "reading the checkpoint"),
    (r"Initializing a V\d LLM engine|OpenMP thread binding|world_size", "starting its workers"),
    (r"Starting to load model|Loading safetensors|Loading weights on", "loading weights"),
    (r"Loading weights took|Model loading took", "weights loaded"),
    (r"Dynamo bytecode transform|Compiling a graph|torch\.compile takes|Start compiling", "compiling"),
    (r"KV cache size|KV cache memory|cpu blocks|Maximum concurrency", "reserving the KV cache"),
    (r"Warming up model|Warmup took|Profiling run", "warming up"),
    (r"Capturing CUDA graph|Graph capturing", "capturing graphs"),
    (r"Starting vLLM (?:API )?server|Started server process|Application startup", "opening its port"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Symptom:
    pattern: str
    cause: str
    advice: str
    permanent: bool = True


_SYMPTOMS: Final = (
    _Symptom(
        pattern=r"[Aa]ddress already in use",
        cause="Another program took its port between choosing and binding it.",
        advice="It is started again on another port.",
        permanent=False,
    ),
    _Symptom(
        pattern=r"No module named '?vllm'?|ModuleNotFoundError: No module named 'vllm",
        cause="vLLM is not installed in the engine environment.",
        advice="Run `make .venv-engine`.",
    ),
    _Symptom(
        pattern=r"torchvision::nms does not exist",
        cause="A torchvision built for CUDA lies beside a torch built for the CPU and breaks vLLM's imports.",
        advice="Uninstall torchvision, torchaudio and torchcodec there, or run `make .venv-engine`.",
    ),
    _Symptom(
        pattern=r"unrecognized arguments?: (?P<what>[^\n]+)",
        cause="This vLLM does not know the option {what}.",
        advice="Correct or remove it under the engine's `options`.",
    ),
    _Symptom(
        pattern=r"error: argument (?P<what>[^\n]+)",
        cause="vLLM refuses an option: {what}.",
        advice="Correct it under the engine's `options`.",
    ),
    _Symptom(
        pattern=r"Failed to find a kernel that can implement the (?P<what>\S+) linear layer",
        cause="This device has no kernel for the checkpoint's quantization ({what}).",
        advice="On a CPU use bf16, fp16, W8A8 (int8), W4A16 (int4, group 128) or FP8_DYNAMIC.",
    ),
    _Symptom(
        pattern=r"'NoneType' object has no attribute 'device'",
        cause="vLLM cannot put adapters on this quantization: W8A8 checkpoints on the CPU take none.",
        advice="Remove `adapters` from this engine, or serve the adapter on bf16 or int4.",
    ),
    _Symptom(
        pattern=r"quantization method [^\n]*(?:not supported|is not currently supported)|Unknown quantization method",
        cause="vLLM does not support the checkpoint's quantization on this device.",
        advice="Serve another variant here.",
    ),
    _Symptom(
        pattern=r"The quantization method (?P<what>\S+) is not supported for the current GPU",
        cause="This GPU is too old for the quantization {what}.",
        advice="Serve another variant on it.",
    ),
    _Symptom(
        pattern=r"is greater than the derived max_model_len[^\n]*?(?P<what>\d+)",
        cause="`max_model_len` is longer than the checkpoint's positions.",
        advice="Lower `options.max_model_len`.",
    ),
    _Symptom(
        pattern=r"larger than the (?:available KV cache memory|maximum number of tokens that can be stored)",
        cause="One request of `max_model_len` tokens does not fit into the KV cache.",
        advice="Lower `options.max_model_len`, or raise `options.kv_cache_gib` (CPU) or "
        "`options.gpu_memory_utilization` (GPU).",
    ),
    _Symptom(
        pattern=r"No available memory for the cache blocks",
        cause="After loading the weights no memory is left for the KV cache.",
        advice="Raise `options.gpu_memory_utilization`, or serve a smaller variant.",
    ),
    _Symptom(
        pattern=r"Free memory on device [^\n]*is less than desired",
        cause="Something else holds memory on this GPU.",
        advice="Stop it, or lower `options.gpu_memory_utilization`.",
        permanent=False,
    ),
    _Symptom(
        pattern=r"CUDA out of memory|OutOfMemoryError",
        cause="The GPU's memory is not enough.",
        advice="Lower `options.max_model_len` or `options.max_num_seqs`, or serve a smaller variant.",
        permanent=False,
    ),
    _Symptom(
        pattern=r"DefaultCPUAllocator: (?:not enough|can't allocate) memory|\bMemoryError|Cannot allocate memory|"
        r"is less than requested memory for kv",
        cause="The machine's memory is not enough.",
        advice="Lower `options.kv_cache_gib`, serve fewer engines, or stop other programs.",
        permanent=False,
    ),
    _Symptom(
        pattern=r"Found no NVIDIA driver|No CUDA GPUs are available|CUDA driver version is insufficient|libcuda\.so",
        cause="vLLM finds no usable NVIDIA GPU or driver.",
        advice="Set `device: cpu`, or install the driver.",
    ),
    _Symptom(
        pattern=r"Repository Not Found|RepositoryNotFoundError|LocalEntryNotFoundError|OfflineModeIsEnabled",
        cause="The checkpoint is neither on this machine nor can it be fetched.",
        advice="Check the `hf:` name, the network and HF_TOKEN.",
    ),
    _Symptom(
        pattern=r"SafetensorError|HeaderTooLarge|incomplete metadata|MetadataIncompleteBuffer",
        cause="A weight file of the checkpoint is broken.",
        advice="Fetch or make the checkpoint again.",
    ),
    _Symptom(
        pattern=r"trust_remote_code=True`? |contains custom code which must be executed",
        cause="The checkpoint comes with its own code, which is not run by default.",
        advice="If you trust it, set `options.trust_remote_code: true`.",
    ),
    _Symptom(
        pattern=r"Model architectures? (?P<what>\[[^\]]*\]) (?:is|are) not supported|failed to be inspected",
        cause="vLLM does not know the checkpoint's architecture.",
        advice="Serve it with a newer vLLM, or another checkpoint.",
    ),
)

_EXCEPTION = re.compile(r"(?:^|\s)((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception): [^\n]+)")
_SECONDARY = re.compile(r"Engine core initialization failed|Engine process failed to start")
"""What vLLM's front says when its core has already said why."""


def phase(log: str) -> str:
    """The phase whose mark stands nearest to the log's end."""
    reached = max((_last(pattern, log), index) for index, (pattern, _) in enumerate(_PHASES))
    return "importing vLLM" if reached[0] < 0 else _PHASES[reached[1]][1]


def _last(pattern: str, text: str) -> int:
    return max((match.start() for match in re.finditer(pattern, text)), default=-1)


def explain(log: str, *, killed_by: int | None) -> Explanation | None:
    """The first symptom of the table that the log shows, else the last exception in it."""
    for symptom in _SYMPTOMS:
        if match := re.search(symptom.pattern, log):
            cause = symptom.cause.format(**match.groupdict(""))
            return Explanation(cause=cause, advice=symptom.advice, permanent=symptom.permanent)
    if killed_by == signal.SIGKILL:
        return Explanation(
            cause="It was killed (SIGKILL), most likely by the kernel because memory ran out.",
            advice="Lower `options.kv_cache_gib`, serve fewer engines, or stop other programs.",
            permanent=False,
        )
    exceptions = [found for found in _EXCEPTION.findall(log) if not _SECONDARY.search(found)]
    if not exceptions:
        return None
    return Explanation(cause=f"It ended with {exceptions[-1].strip()}", advice="See its log.", permanent=False)
