"""Parameters, FLOPs, windows and caches of every known family, against small real models of `transformers`.

torch's counter counts matrix products and convolutions, nothing elementwise; attention it sees as the eager classes
compute it: the whole square of a prompt, masked afterwards, in windowed layers, too. So the square is compared, and the
causal or windowed part of it by counting what the masks let through.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server.models.architecture import Architecture, Block
from server.models.document import Document
from server.models.families import FAMILIES, read_architecture
from server.models.flops import FlopModel, attended_pairs
from server.models.kv_cache import kv_values_per_token
from tests.models.tiny_models import CHUNK, TINY, TOKENS

pytestmark = pytest.mark.engine_env

Counted = dict[str, Any]

CACHED_WITH_REPEATED_HEADS = {"falcon, grouped": 2}
"""transformers expands these grouped heads before it caches them; engines do not."""
SAME_CODE_UNDER_ANOTHER_NAME = {"kimi_k2"}


@pytest.fixture(scope="module")
def counted(engine_python: Path, root: Path) -> dict[str, Counted]:
    """What torch counted, by model: one process builds them all."""
    command = [engine_python, "-m", "tests.models.count_tiny_models"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Counted] = json.loads(done.stdout)
    return found


@pytest.fixture(params=TINY)
def model(request: pytest.FixtureRequest, counted: dict[str, Counted]) -> Counted:
    return counted[request.param] | {"name": request.param}


def shape_of(model: Counted) -> Architecture:
    shape = read_architecture(model["config"])
    assert shape is not None, model["name"]
    return shape


def test_every_known_family_is_built() -> None:
    assert {family for family, _ in TINY.values()} == FAMILIES.keys() - SAME_CODE_UNDER_ANOTHER_NAME


def test_parameters_are_counted_to_the_last_one(model: Counted) -> None:
    assert shape_of(model).total_parameters == model["parameters"]


def test_every_matrix_is_counted_exactly(model: Counted) -> None:
    flops = FlopModel.of(shape_of(model))
    every_position_is_unembedded = flops.linear_flops_per_token + flops.unembed_flops_per_position
    assert products(model, "mm", "addmm") == TOKENS * every_position_is_unembedded


def test_attention_and_scan_products_are_what_the_eager_classes_compute(model: Counted) -> None:
    shape = shape_of(model)
    square = TOKENS**2 * sum(group.prefill_flops_per_pair for group in FlopModel.of(shape).attention)
    assert products(model, "bmm", "baddbmm") == square + sum(scan_products(block, shape) for block in shape.blocks)


def test_convolutions_are_counted_exactly(model: Counted) -> None:
    """transformers pads both ends and throws the surplus away."""
    recurrent = [block.recurrence for block in shape_of(model).blocks if block.recurrence]
    expected = sum(one.conv_flops_per_token * (TOKENS + one.conv_kernel - 1) for one in recurrent)
    assert products(model, "convolution") == expected


def test_masks_let_as_many_pairs_through_as_the_closed_form_says(model: Counted) -> None:
    windows = [block.attention.window for block in shape_of(model).blocks if block.attention]
    assert model["pairs"] == [attended_pairs(TOKENS, before=0, window=window) for window in windows]


def test_the_cache_holds_what_the_formula_says(model: Counted) -> None:
    """Of a window, transformers keeps all but the current token."""
    repeats = CACHED_WITH_REPEATED_HEADS.get(model["name"], 1)
    layers = [block.attention for block in shape_of(model).blocks if block.attention]
    held = sum(layer.cached_values * min(TOKENS, layer.window - 1 if layer.window else TOKENS) for layer in layers)
    assert (model["cached"] or 0) == held * repeats


def test_both_readers_of_the_kv_cache_agree(model: Counted) -> None:
    shape = shape_of(model)
    other = kv_values_per_token(Document(Path("config.json"), model["config"]), model["config"]["architectures"][0])
    assert other in {None, shape.kv_values_per_token}


def products(model: Counted, *operators: str) -> int:
    return sum(model["flops"].get(operator, 0) for operator in operators)


def scan_products(block: Block, shape: Architecture) -> int:
    """What of a scan transformers computes by matrix products: h · C of Mamba; of Mamba-2 the chunked form whole."""
    if block.recurrence is None:
        return 0
    states = block.recurrence.state_values
    if shape.family not in {"mamba2", "bamba"}:
        return TOKENS * 2 * states
    heads, head_dim, chunks = 8, 8, TOKENS // CHUNK
    d_state = states // (heads * head_dim)
    within = 2 * CHUNK * heads * (d_state + head_dim)  # C · Bᵀ, then times x, of a chunk's tokens with one another
    across = 2 * 2 * states  # into the chunk's state, out of the one before
    carried = 2 * (chunks + 1) ** 2 * states  # from every chunk to every later one
    return TOKENS * (within + across) + carried
