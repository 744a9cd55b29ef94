"""Any server that speaks OpenAI's API: serves, and says little else."""

# ruff: noqa: ARG002  # parameters of the Protocol

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from server.engines.engine import Call, Command, Explanation, StartSpec
from server.errors import StartError
from server.fleet import EngineGauges

__all__ = ["OpenAI"]


class OpenAI:
    """An OpenAI-compatible server of unknown make, started by somebody else."""

    health_paths: tuple[str, ...] = ("/health", "/v1/models")
    version_path: str | None = None
    metrics_path: str | None = None
    takes_adapters = False

    def command(self, spec: StartSpec, *, port: int, api_key: str) -> Command:
        raise StartError(
            f"Engine {spec.settings.name!r} is of kind `openai`, which this gateway cannot start. "
            "Give it the `url` where it runs, or set `kind: vllm`."
        )

    def load_adapter(self, name: str, path: Path) -> Call:
        _no_adapters(name)

    def unload_adapter(self, name: str) -> Call:
        _no_adapters(name)

    def loaded_adapters(self, models: Mapping[str, Any]) -> dict[str, str]:
        return {}

    def probe(self, model: str, task: str) -> Call:
        if task == "embed":
            return Call(path="/v1/embeddings", body={"model": model, "input": "Hi"})
        if task == "score":
            return Call(path="/v1/score", body={"model": model, "text_1": "Hi", "text_2": "Hi"})
        messages = [{"role": "user", "content": "Hi"}]
        return Call(path="/v1/chat/completions", body={"model": model, "messages": messages, "max_tokens": 1})

    def gauges(self, metrics_text: str) -> EngineGauges:
        return EngineGauges(
            running=None,
            waiting=None,
            kv_usage_ratio=None,
            kv_capacity_tokens=None,
            prompt_tokens_total=None,
            output_tokens_total=None,
            prefix_cache_queries_total=None,
            prefix_cache_hits_total=None,
            preemptions_total=None,
        )

    def phase(self, log: str) -> str:
        return "waiting for its first answer"

    def explain(self, log: str, *, killed_by: int | None) -> Explanation | None:
        return None


def _no_adapters(name: str) -> NoReturn:
    raise NotImplementedError(f"the kind `openai` takes no adapters, {name!r} neither: ask `takes_adapters` first")
