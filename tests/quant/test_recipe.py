"""Recipes: what they may say, and where the error is when they say something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from quant.catalogue import CATALOGUE
from quant.errors import RecipeError
from quant.recipe import Recipe, read_recipe

GOOD = """\
source: model
output: made
variants:
  int4:
    method: rtn
    scheme: w4a16
    group_size: 64
    ignore: [lm_head, "re:.*down_proj"]
  half: {method: cast, dtype: fp16}
"""


def read(tmp_path: Path, text: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(RecipeError) as raised:
        read(tmp_path, text)
    return str(raised.value)


def test_recipe_names_source_output_and_variants_in_order(tmp_path: Path) -> None:
    recipe = read(tmp_path, GOOD)
    assert recipe.source == "model"
    assert recipe.output == tmp_path / "made"
    assert [plan.name for plan in recipe.variants] == ["int4", "half"]
    assert recipe.variants[0].options == {"group_size": 64, "ignore": ["lm_head", "re:.*down_proj"]}
    assert recipe.variants[1].options == {"dtype": "fp16"}


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("group_size: 64", "group: 64", 7, "variants.int4.group is nothing that this method takes"),
        ("group_size: 64", "group_size: large", 7, "variants.int4.group_size is 'large'. Give a whole number."),
        ("group_size: 64", "group_size: true", 7, "variants.int4.group_size is True. Give a whole number."),
        ("scheme: w4a16", "scheme: w3a3", 6, "variants.int4.scheme is 'w3a3'. Choose one of: w8a8-int8, w4a16"),
        ("    scheme: w4a16\n", "", 4, "variants.int4 has no `scheme`"),
        ("method: rtn", "method: magic", 5, "variants.int4.method is 'magic'. Choose one of: cast, rtn"),
        ("    method: rtn\n", "", 4, "variants.int4 has no `method`"),
        ("output: made", "outputs: made", 2, "outputs is no key of a recipe"),
        ("source: model", "source: 7", 1, "source is 7. Give a text."),
        ("source: model\n", "", 1, "the recipe has no `source`"),
        (", dtype: fp16", "", 9, "variants.half has no `dtype`"),
        ("  half:", "  int4:", 9, "variants.int4 stands here a second time; the first is in line 4"),
        ("  half:", "  ../up:", 9, "is no name for a directory"),
        ("[lm_head", "[[lm_head]", 8, "variants.int4.ignore must be a list of single values"),
        ("group_size: 64", "group_size: {a: {b: c}}", 7, "variants.int4.group_size"),
    ],
)
def test_mistake_is_named_with_its_line_and_key(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    assert old in GOOD
    message = refusal(tmp_path, GOOD.replace(old, new))
    assert f"recipe.yaml, line {line}: " in message
    assert said in message


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "source: [unclosed", "source: model\nvariants: {}\n", "source: 'x"])
def test_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    assert "recipe.yaml" in refusal(tmp_path, text)


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.yaml cannot be read"):
        read_recipe(tmp_path / "nowhere.yaml")


def test_calibration_text_is_found_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("words", encoding="utf-8")
    text = "source: m\nvariants:\n  a: {method: gptq, calibration: text.txt}\n"
    assert read(tmp_path, text).variants[0].options["calibration"] == str(tmp_path / "text.txt")
    message = refusal(tmp_path, text.replace("text.txt", "missing.txt"))
    assert "line 3: variants.a.calibration is 'missing.txt', and there is no such file" in message


@pytest.mark.parametrize("method", [name for name, entry in CATALOGUE.items() if entry.tier == "llm-compressor"])
def test_method_of_the_other_environment_is_checked_like_an_own_one(tmp_path: Path, method: str) -> None:
    text = f"source: m\nvariants:\n  a: {{method: {method}}}\n"
    assert read(tmp_path, text).variants[0].scheme == CATALOGUE[method].schemes[0]
    assert "line 3: variants.a.sorcery is nothing" in refusal(tmp_path, text.replace("}", ", sorcery: 1}"))


def test_value_outside_a_methods_range_is_refused_before_anything_starts(tmp_path: Path) -> None:
    message = refusal(tmp_path, "source: m\nvariants:\n  a: {method: gptq, group_size: 48}\n")
    assert "line 3: variants.a is not possible" in message
    assert "32, 64, 128" in message


def test_examples_are_recipes(root: Path) -> None:
    for path in (root / "deploy" / "examples" / "recipes").glob("*.yaml"):
        assert read_recipe(path).variants
