"""Torch-free facts of checkpoints and adapters, and what an engine can serve.

    card.py, checkpoint.py   a checkpoint's facts: read_card, read_checkpoint (with every layer's shape)
    adapter.py               an adapter's facts: read_adapter
    rules.py                 can this engine serve it: check_checkpoint, check_adapter; to add a rule, see there
    memory.py                does it fit into the machine: memory_needed_bytes, check_memory
    document.py, safetensors_file.py, quantization.py, weights.py, kv_cache.py   how the files are read and counted
    architecture.py          its shape; families.py reads it from config.json; to add a family, see there
    flops.py, work_model.py  FLOPs of tokens, bytes of steps; weight_bytes.py: which weights a step reads
    hardware.py              peak rates of devices, and the arithmetic that a checkpoint uses on them
    vllm_estimate.py         where vLLM's own count of both is wrong
    decoder.py, attention_layers.py, feed_forward.py, state_space.py, shape_keys.py   what families are made of

The standard library only, so that every environment of the project can use it.
"""

from server.models.adapter import AdapterCard, AdapterLayer, read_adapter
from server.models.architecture import Architecture
from server.models.card import ModelCard
from server.models.checkpoint import Checkpoint, read_card, read_checkpoint
from server.models.device import DeviceFacts
from server.models.families import read_architecture
from server.models.flops import FlopModel, PhaseFlops, Work, adapter_flops_per_token
from server.models.hardware import Arithmetic, HardwarePeaks, arithmetic_of, peaks_of
from server.models.memory import check_memory, memory_needed_bytes
from server.models.rules import ADAPTER_RULES, CHECKPOINT_RULES, check_adapter, check_checkpoint
from server.models.vllm_estimate import vllm_estimate_support
from server.models.work_model import WorkModel, work_model

__all__ = [
    "ADAPTER_RULES",
    "CHECKPOINT_RULES",
    "AdapterCard",
    "AdapterLayer",
    "Architecture",
    "Arithmetic",
    "Checkpoint",
    "DeviceFacts",
    "FlopModel",
    "HardwarePeaks",
    "ModelCard",
    "PhaseFlops",
    "Work",
    "WorkModel",
    "adapter_flops_per_token",
    "arithmetic_of",
    "check_adapter",
    "check_checkpoint",
    "check_memory",
    "memory_needed_bytes",
    "peaks_of",
    "read_adapter",
    "read_architecture",
    "read_card",
    "read_checkpoint",
    "vllm_estimate_support",
    "work_model",
]
