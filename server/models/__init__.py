"""Torch-free facts of checkpoints and adapters, and what an engine can serve.

    card.py, checkpoint.py   a checkpoint's facts: read_card, read_checkpoint (with every layer's shape)
    adapter.py               an adapter's facts: read_adapter
    rules.py                 can this engine serve it: check_checkpoint, check_adapter; to add a rule, see there
    memory.py                does it fit into the machine: memory_needed_bytes, check_memory
    document.py, safetensors_file.py, quantization.py, weights.py, kv_cache.py   how the files are read and counted

The standard library only, so that every environment of the project can use it.
"""

from server.models.adapter import AdapterCard, AdapterLayer, read_adapter
from server.models.card import ModelCard
from server.models.checkpoint import Checkpoint, read_card, read_checkpoint
from server.models.device import DeviceFacts
from server.models.memory import check_memory, memory_needed_bytes
from server.models.rules import ADAPTER_RULES, CHECKPOINT_RULES, check_adapter, check_checkpoint

__all__ = [
    "ADAPTER_RULES",
    "CHECKPOINT_RULES",
    "AdapterCard",
    "AdapterLayer",
    "Checkpoint",
    "DeviceFacts",
    "ModelCard",
    "check_adapter",
    "check_checkpoint",
    "check_memory",
    "memory_needed_bytes",
    "read_adapter",
    "read_card",
    "read_checkpoint",
]
