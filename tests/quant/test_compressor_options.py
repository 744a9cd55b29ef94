"""What a recipe may say of llm-compressor's methods, checked before anything heavy is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quant.compressor.options import CompressorOptions
from quant.compressor.table import COMPRESSOR_METHODS, method_options
from quant.errors import SchemeError


@pytest.mark.parametrize("name", COMPRESSOR_METHODS)
def test_every_method_has_options_that_need_not_be_given(name: str) -> None:
    options = method_options(name, {})
    assert options.scheme == COMPRESSOR_METHODS[name].schemes[0]
    assert set(COMPRESSOR_METHODS[name].options) <= set(CompressorOptions.__dataclass_fields__)


def test_method_has_its_own_defaults_and_the_user_the_last_word() -> None:
    assert method_options("awq", {}).symmetric is False
    assert method_options("awq", {"symmetric": True}).symmetric is True
    assert method_options("gptq", {}).symmetric is True


def test_calibration_is_a_path_or_the_demos_corpus() -> None:
    assert method_options("gptq", {"calibration": "text.txt"}).calibration == Path("text.txt")
    assert method_options("gptq", {}).calibration is None


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("hqq", {}, "Choose one of: gptq, awq"),
        ("gptq", {"bits": 3}, "no option 'bits'"),
        ("rtn-reference", {"samples": 8}, "no option 'samples'"),
        ("gptq", {"scheme": "w2a16"}, "no scheme 'w2a16'"),
        ("gptq", {"group_size": 48}, "32, 64, 128"),
        ("gptq", {"group_size": True}, "32, 64, 128"),
        ("gptq", {"group_size": "64"}, "32, 64, 128"),
        ("gptq", {"samples": 0}, "from 1 to"),
        ("gptq", {"samples": 2.5}, "whole number"),
        ("gptq", {"length": 1}, "from 2 to"),
        ("gptq", {"seed": -1}, "from 0 to"),
        ("gptq", {"symmetric": "yes"}, "true or false"),
        ("gptq", {"calibration": 7}, "a text"),
        ("smoothquant", {"strength": 1.5}, "from 0 to 1"),
        ("smoothquant", {"strength": float("nan")}, "from 0 to 1"),
        ("smoothquant", {"strength": "much"}, "a number"),
    ],
)
def test_wrong_option_is_refused_with_what_it_may_be(name: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(SchemeError) as caught:
        method_options(name, given)
    assert said in str(caught.value)


def test_whole_number_is_a_number() -> None:
    assert method_options("smoothquant", {"strength": 1}).strength == 1


def test_table_and_options_need_no_torch(root: Path) -> None:
    source = "import sys, quant.compressor.table, quant.compressor.environment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], cwd=root, timeout=30, check=False).returncode == 0
