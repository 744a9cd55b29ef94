"""How much a CPU engine needs, and what is said if that is too much."""

from __future__ import annotations

import pytest

from server.errors import StartError
from server.models import check_memory, memory_needed_bytes, read_checkpoint
from server.models.memory import CPU_RUNTIME_BYTES
from server.units import Bytes
from tests.fakes.safetensors_file import LINEARS, write_checkpoint

GIB = 2**30


def test_an_engine_needs_weights_cache_and_process(tmp_path):
    card = read_checkpoint(write_checkpoint(tmp_path)).card

    assert memory_needed_bytes(card, kv_cache_gib=0.5) == card.size_bytes + GIB // 2 + CPU_RUNTIME_BYTES


def test_adapter_slots_are_reserved_for_every_linear_layer(tmp_path):
    checkpoint = read_checkpoint(write_checkpoint(tmp_path))
    sides = 2 * sum(outputs + inputs for outputs, inputs in LINEARS.values())

    plain = memory_needed_bytes(checkpoint)

    assert memory_needed_bytes(checkpoint, max_rank=16, max_loaded=2) - plain == 2 * 16 * sides * 2
    assert plain == memory_needed_bytes(checkpoint.card)


def test_enough_memory_is_enough():
    check_memory(Bytes(GIB), Bytes(GIB))


def test_too_little_memory_is_refused_with_both_figures_and_advice():
    with pytest.raises(StartError, match=r"3\.0 GiB needed .*, 1\.5 GiB available\. Lower `options\.kv_cache_gib`"):
        check_memory(Bytes(3 * GIB), Bytes(3 * GIB // 2))
