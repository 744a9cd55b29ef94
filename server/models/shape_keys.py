"""Keys of `config.json` that say how large a model's parts are, under their several names."""

from __future__ import annotations

from typing import Final

from server.errors import CheckpointError
from server.models.document import Document

__all__ = ["Flag", "feed_forward_width", "flag", "head_dim", "heads", "hidden_size", "kv_heads", "layers", "needed"]

_WIDTHS: Final = ("n_inner", "ffn_dim", "ffn_hidden_size", "intermediate_size")

Flag = bool | tuple[str, bool]
"""A fact of the family, or the configuration's key that says so and what holds if it is absent."""


def needed(config: Document, *names: str) -> int:
    """The first of these keys. Raises `CheckpointError` if there is none of them."""
    value = next((value for name in names if (value := config.integer(name, least=1)) is not None), None)
    if value is None:
        raise CheckpointError(f"{config.path}: has no `{names[0]}`. Export or download the files again.")
    return value


def flag(config: Document, value: Flag) -> bool:
    if isinstance(value, bool):
        return value
    said = config.flag(value[0])
    return value[1] if said is None else said


def hidden_size(config: Document) -> int:
    return needed(config, "hidden_size", "n_embd", "d_model", "n_embed")


def layers(config: Document) -> int:
    return needed(config, "num_hidden_layers", "n_layer", "n_layers")


def heads(config: Document) -> int:
    return needed(config, "num_attention_heads", "n_head")


def head_dim(config: Document) -> int:
    return config.integer("head_dim", least=1) or hidden_size(config) // heads(config)


def kv_heads(config: Document) -> int:
    """Grouped-query attention; Falcon's and StarCoder's `multi_query` is one head; absent: as many as queries."""
    if config.flag("multi_query") and not config.flag("new_decoder_architecture"):
        return 1
    grouped = config.integer("num_key_value_heads", least=1) or config.integer("num_kv_heads", least=1)
    return grouped or heads(config)


def feed_forward_width(config: Document, *, default: int | None = None) -> int:
    if default is not None and not any(name in config for name in _WIDTHS):
        return default
    return needed(config, *_WIDTHS)
