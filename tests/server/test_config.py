"""The configuration file: what is accepted, and what a wrong one is told."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from server.config import Config, load_config
from server.errors import ConfigError

MINIMAL = """
engines:
  - {name: far, model: big, precision: fp8, url: "http://gpu-2:8000/v1"}
"""


def load(folder: Path, text: str, **environ: str) -> Config:
    path = folder / "wattgate.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return load_config(path, environ)


def refusal(folder: Path, text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **environ)
    return str(caught.value)


def test_short_form_with_a_url_is_an_external_openai_engine(tmp_path: Path) -> None:
    engine = load(tmp_path, MINIMAL).engines[0]
    assert (engine.kind, engine.launcher, engine.url) == ("openai", "external", "http://gpu-2:8000")


def test_engine_with_a_checkpoint_is_a_local_vllm_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, "engines: [{name: a, model: demo, checkpoint: models/demo}]\nstate_dir: state")
    engine = config.engines[0]
    assert (engine.kind, engine.launcher, engine.checkpoint) == ("vllm", "local", str(tmp_path / "models/demo"))
    assert config.state_dir == tmp_path / "state"


def test_hub_checkpoint_stays_as_it_is(tmp_path: Path) -> None:
    config = load(tmp_path, "engines: [{name: a, model: m, precision: bf16, checkpoint: 'hf:org/name'}]")
    assert config.engines[0].checkpoint == "hf:org/name"


def test_options_that_are_not_typed_pass_through(tmp_path: Path) -> None:
    text = "engines: [{name: a, model: m, checkpoint: c, options: {max_model_len: 512, block_size: 32}}]"
    options = load(tmp_path, text).engines[0].options
    assert options.max_model_len == 512
    assert options.model_extra == {"block_size": 32}


def test_environment_variables_are_expanded_and_a_missing_one_is_named(tmp_path: Path) -> None:
    text = "engines: [{name: a, model: m, precision: bf16, url: '${WHERE}'}]"
    assert load(tmp_path, text, WHERE="http://x:1").engines[0].url == "http://x:1"
    assert "engines[0].url: the environment variable WHERE is not set" in refusal(tmp_path, text)


def test_unknown_key_is_refused_with_its_path_and_the_nearest_known_key(tmp_path: Path) -> None:
    said = refusal(tmp_path, MINIMAL + "gateway: {prot: 80}")
    assert "gateway.prot: unknown key. Did you mean `port`?" in said


def test_every_problem_is_listed_at_once(tmp_path: Path) -> None:
    said = refusal(tmp_path, "engines: [{name: a, model: m, chekpoint: c, device: tpu}]\ngateway: {port: 99999}")
    assert "gateway.port: found 99999" in said
    assert "engines[0].device: found 'tpu'" in said
    assert "engines[0].chekpoint: unknown key. Did you mean `checkpoint`?" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold a mapping"),
        ("engines: []", "engines: found a list"),
        ("engines: {a: 1}", "engines: found a mapping"),
        ("a: [", "is not valid YAML"),
        ("engines: [{name: a, model: m}]", "needs `checkpoint`"),
        ("engines: [{name: a, model: m, url: 'http://x'}]", "needs `precision`"),
        ("engines: [{name: a, model: m, precision: p, url: 'ftp://x'}]", "must look like http://host:port"),
        ("engines: [{name: a, model: m, precision: p, url: 'http://x:99999'}]", "Port out of range"),
        ("engines: [{name: a, model: m, precision: p, url: 'http://u:p@x'}]", "no query, fragment or user"),
        ("engines: [{name: a, model: m, checkpoint: c, adapters: {max_rank: 7}}]", "must be one of 1, 8, 16"),
        ("engines: [{model: m, checkpoint: c}]", "engines[0].name: is missing"),
        ("engines: [{name: a b, model: m, checkpoint: c}]", "engines[0].name: found 'a b'"),
        (
            "engines: [{name: a, model: m, checkpoint: c}, {name: a, model: m, checkpoint: c}]",
            "two entries are named 'a' (engines[0] and engines[1])",
        ),
        (
            "engines: [{name: a, model: m, checkpoint: c}]\nadapters: [{name: x, model: n, path: p}]",
            "names the model 'n', which no engine serves",
        ),
        (
            "engines: [{name: a, model: m, checkpoint: c}]\nadapters: [{name: m, model: m, path: p}]",
            "is also the id of a model",
        ),
    ],
)
def test_wrong_setting_is_explained(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_missing_file_says_where_examples_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="deploy/examples"):
        load_config(tmp_path / "none.yaml", {})


def test_resolved_configuration_survives_the_way_to_the_control_plane(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert Config.model_validate_json(config.model_dump_json()) == config
