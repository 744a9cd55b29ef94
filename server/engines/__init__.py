"""Engines: the makes that can be served, and how each is talked to."""

from collections.abc import Mapping
from typing import Final

from server.engines.engine import Call, Command, Engine, Explanation, StartSpec
from server.engines.openai import OpenAI
from server.engines.vllm import Vllm

__all__ = ["ENGINES", "Call", "Command", "Engine", "Explanation", "StartSpec"]

ENGINES: Final[Mapping[str, Engine]] = {
    "openai": OpenAI(),
    "vllm": Vllm(),
}
"""To add a make: one file beside these, one line here."""
