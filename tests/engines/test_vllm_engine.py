"""vLLM's command line, environment, metrics and log."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config import EngineSettings
from server.engines import ENGINES, Command, StartSpec
from server.engines.flags import as_flags
from server.engines.vllm_metrics import read_gauges
from server.errors import StartError
from tests.fakes import vllm_process

VLLM = ENGINES["vllm"]


def start(tmp_path: Path, *, gpus: tuple[int, ...] = (), share: float | None = None, **changes: Any) -> Command:
    settings = {"name": "e", "model": "demo", "checkpoint": "/models/demo", **changes}
    spec = StartSpec(
        settings=EngineSettings.model_validate(settings),
        environment=vllm_process.install(tmp_path / "env", tmp_path / "script"),
        served_names=("demo:int4", "demo"),
        cores=() if gpus else (1, 3),
        gpus=gpus,
        gpu_share=share,
    )
    return VLLM.command(spec, port=7001, api_key="key")


def value_of(command: Command, flag: str) -> str:
    return command.argv[command.argv.index(flag) + 1]


def test_names_place_and_address_stand_in_the_command(tmp_path):
    command = start(tmp_path)
    assert command.argv[1:3] == ("-m", "vllm.entrypoints.openai.api_server")
    at = command.argv.index("--served-model-name")
    assert command.argv[at + 1 : at + 3] == ("demo:int4", "demo")
    assert (value_of(command, "--host"), value_of(command, "--port")) == ("127.0.0.1", "7001")
    assert value_of(command, "--model") == "/models/demo"
    assert "--enable-force-include-usage" not in command.argv
    assert "--enable-lora" not in command.argv


def test_cpu_engine_is_bound_offline_and_silent(tmp_path):
    env = start(tmp_path, options={"kv_cache_gib": 2}).env
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "1,3"
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert env["VLLM_API_KEY"] == "key"
    assert (env["HF_HUB_OFFLINE"], env["VLLM_NO_USAGE_STATS"], env["VLLM_DO_NOT_TRACK"]) == ("1", "1", "1")
    assert env["PYTHONPATH"] is None
    assert "CUDA_VISIBLE_DEVICES" not in env


def test_part_of_a_gibibyte_of_kv_cache_is_told_in_bytes(tmp_path):
    command = start(tmp_path, options={"kv_cache_gib": 0.5})
    assert value_of(command, "--kv-cache-memory-bytes") == str(2**29)
    assert command.env["VLLM_CPU_KVCACHE_SPACE"] is None


def test_ranks_on_the_cpu_get_cores_of_their_own(tmp_path):
    assert start(tmp_path, options={"tensor_parallel_size": 2}).env["VLLM_CPU_OMP_THREADS_BIND"] == "1|3"
    many = start(tmp_path, options={"tensor_parallel_size": 3}).env["VLLM_CPU_OMP_THREADS_BIND"]
    assert many == "1|3|1,3"


def test_gpu_engine_sees_its_gpus_only(tmp_path):
    command = start(tmp_path, gpus=(0, 2), share=0.45, options={"kv_cache_gib": 0.5})
    assert command.env["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert command.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in command.env
    assert value_of(command, "--gpu-memory-utilization") == "0.45"
    assert "--kv-cache-memory-bytes" not in command.argv


def test_named_share_of_a_gpu_wins_over_the_even_one(tmp_path):
    command = start(tmp_path, gpus=(0,), share=0.3, options={"gpu_memory_utilization": 0.6})
    assert value_of(command, "--gpu-memory-utilization") == "0.6"


def test_checkpoint_of_the_hub_may_be_fetched(tmp_path):
    command = start(tmp_path, checkpoint="hf:org/name", precision="bf16")
    assert value_of(command, "--model") == "org/name"
    assert "HF_HUB_OFFLINE" not in command.env


def test_adapters_are_enabled_with_room_to_swap(tmp_path):
    command = start(tmp_path, adapters={"max_loaded": 2, "max_rank": 32})
    assert "--enable-lora" in command.argv
    assert value_of(command, "--max-loras") == "2"
    assert value_of(command, "--max-lora-rank") == "32"
    assert value_of(command, "--max-cpu-loras") == "8"
    assert command.env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"


@pytest.mark.parametrize(("task", "runner"), [("embed", "pooling"), ("score", "pooling"), ("generate", None)])
def test_task_decides_the_runner(tmp_path, task, runner):
    command = start(tmp_path, task=task)
    assert ("--runner" in command.argv) == (runner is not None)


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"max_num_seqs": 4}, ["--max-num-seqs", "4"]),
        ({"enforce_eager": True, "enable_prefix_caching": False}, ["--enforce-eager", "--no-enable-prefix-caching"]),
        ({"speculative_config": {"method": "ngram"}}, ["--speculative-config", '{"method": "ngram"}']),
        ({"middleware": ["a", "b"]}, ["--middleware", "a", "b"]),
        ({"hf_overrides": [{"a": 1}]}, ["--hf-overrides", '[{"a": 1}]']),
        ({"dtype": None}, []),
    ],
)
def test_options_become_flags(options, flags):
    assert list(as_flags(options)) == flags


JSON_KEYS = st.text("abcdefghij_", min_size=1, max_size=12).filter(lambda name: not name.startswith("_"))


@given(st.dictionaries(JSON_KEYS, st.dictionaries(st.text(), st.integers() | st.text() | st.booleans()), max_size=5))
def test_every_mapping_arrives_as_the_json_it_was(options):
    flags = list(as_flags(options))
    assert [json.loads(value) for value in flags[1::2]] == list(options.values())


def test_environment_without_python_names_the_command(tmp_path):
    spec = StartSpec(
        settings=EngineSettings(name="e", model="demo", checkpoint="/m"),
        environment=tmp_path / "nothing",
        served_names=("demo:bf16", "demo"),
        cores=(),
        gpus=(),
        gpu_share=None,
    )
    with pytest.raises(StartError, match=r"make \.venv-engine"):
        VLLM.command(spec, port=1, api_key="k")


def test_environment_without_vllm_names_the_command(tmp_path):
    environment = tmp_path / "env"
    (environment / "bin").mkdir(parents=True)
    python = environment / "bin" / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    spec = StartSpec(
        settings=EngineSettings(name="e", model="demo", checkpoint="/m"),
        environment=environment,
        served_names=("demo:bf16", "demo"),
        cores=(),
        gpus=(),
        gpu_share=None,
    )
    with pytest.raises(StartError, match=r"vLLM is not installed in .*make \.venv-engine"):
        VLLM.command(spec, port=1, api_key="k")


NEW = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="a b"} 3.0
vllm:num_requests_waiting{engine="0",model_name="a b"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a b",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="a b"} 0.5
vllm:prompt_tokens_total{engine="0",model_name="a b"} 1e+03
vllm:prompt_tokens_created{engine="0",model_name="a b"} 1.7e+09
vllm:generation_tokens_total{engine="0",model_name="a b"} 250.0
vllm:prefix_cache_queries_total{engine="0"} 10.0
vllm:prefix_cache_hits_total{engine="0"} 4.0
vllm:num_preemptions_total{engine="0"} 0.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0"} 3.0
vllm:iteration_tokens_total_count{engine="0"} 5.0
vllm:iteration_tokens_total_sum{engine="0"} 90.0
vllm:cache_config_info{block_size="128",cache_dtype="auto",engine="0",num_gpu_blocks="64"} 1.0
"""
OLD = """\
vllm:gpu_cache_usage_perc{model_name="a"} 0.25
vllm:gpu_prefix_cache_queries_total{model_name="a"} 8.0
vllm:gpu_prefix_cache_hits_total{model_name="a"} 2.0
"""


def test_gauges_are_read_by_their_new_names():
    gauges = read_gauges(NEW)
    assert (gauges.running, gauges.waiting, gauges.kv_usage_ratio) == (3, 2, 0.5)
    assert (gauges.prompt_tokens_total, gauges.output_tokens_total) == (1000, 250)
    assert (gauges.prefix_cache_queries_total, gauges.prefix_cache_hits_total) == (10, 4)
    assert (gauges.preemptions_total, gauges.kv_capacity_tokens, gauges.steps_total) == (0, 8192, 5)


def test_gauges_are_read_by_their_old_names():
    gauges = read_gauges(OLD)
    assert (gauges.kv_usage_ratio, gauges.prefix_cache_queries_total, gauges.prefix_cache_hits_total) == (0.25, 8, 2)
    assert gauges.running is None


def test_engine_cores_behind_one_port_add_up():
    gauges = read_gauges(
        NEW + NEW.replace('engine="0"', 'engine="1"').replace("_perc{", "_perc{x='',").replace("0.5", "0.1")
    )
    assert gauges.running == 6
    assert gauges.kv_usage_ratio == pytest.approx(0.3)
    assert gauges.kv_capacity_tokens == 16384


@given(st.text())
def test_no_text_breaks_the_reader(text):
    read_gauges(text)
    read_gauges("vllm:num_requests_running" + text)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "x", ""])
def test_what_is_no_number_is_unknown(value):
    assert read_gauges(f"vllm:num_requests_running{{}} {value}").running is None


@pytest.mark.parametrize(
    ("line", "said", "permanent"),
    [
        ("OSError: [Errno 98] Address already in use", "port", False),
        ("api_server.py: error: unrecognized arguments: --max-modl-len 3", "--max-modl-len 3", True),
        ("ValueError: Failed to find a kernel that can implement the WNA16 linear layer. Reasons:", "WNA16", True),
        ("AttributeError: 'NoneType' object has no attribute 'device'", "adapters", True),
        ("RuntimeError: Found no NVIDIA driver on your system.", "GPU", True),
        ("safetensors_rust.SafetensorError: Error while deserializing header", "broken", True),
        ("torch.OutOfMemoryError: CUDA out of memory.", "memory", False),
        ("ValueError: 0.5 GiB is larger than the available KV cache memory (0.1 GiB).", "kv_cache_gib", True),
        ("ZeroDivisionError: x\nRuntimeError: Engine core initialization failed.", "ZeroDivisionError", False),
    ],
)
def test_log_of_a_failed_start_is_explained(line, said, permanent):
    explanation = VLLM.explain(f"INFO something\n{line}\n", killed_by=None)
    assert explanation is not None
    assert said in str(explanation)
    assert explanation.permanent is permanent


GOOD = """\
WARNING Found ulimit of 20000. This can cause fd limit errors like `OSError: [Errno 24] Too many open files`.
WARNING Enforce eager set, disabling torch.compile, CUDAGraphs, and JIT kernel warmup.
INFO Initializing a V1 LLM engine (v0.32.0) with config: model='/m', trust_remote_code=False, quantization=None
INFO Starting to load model /m...
UserWarning: resource_tracker: There appear to be 1 leaked shared_memory objects to clean up at shutdown
"""


def test_warnings_of_a_good_start_explain_nothing():
    assert VLLM.explain(GOOD, killed_by=None) is None
    assert VLLM.phase(GOOD) == "loading weights"


def test_kill_without_words_is_put_down_to_memory():
    explanation = VLLM.explain("INFO all was well", killed_by=signal.SIGKILL)
    assert explanation is not None
    assert "memory" in explanation.cause


def test_phase_is_the_last_one_that_the_log_names():
    log = "INFO Resolved architecture: LlamaForCausalLM\nINFO Starting to load model /m...\n"
    assert VLLM.phase(log) == "loading weights"
    assert VLLM.phase("") == "importing vLLM"
    assert VLLM.phase(log + "INFO KV cache size: 8,192 tokens") == "reserving the KV cache"
