"""The source of a recipe: a directory, or a model of the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from quant.errors import SourceError

__all__ = ["find_source"]

_MODEL_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WANTED: Final = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


def find_source(source: str, beside: Path) -> Path:
    """The checkpoint's directory; `beside` is the recipe's. Raises `SourceError`.

    A model of the hub is taken from the local hub cache, or downloaded into it, which may take long.
    """
    folder = (beside / Path(source).expanduser()).resolve()
    if folder.is_dir():
        return folder
    if source.startswith((".", "/", "~")) or not _MODEL_ID.fullmatch(source):
        raise SourceError(f"There is no checkpoint directory {folder}. Check `source`, relative to the recipe.")
    return _download(source, folder)


def _download(model: str, folder: Path) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - a second, and only for models of the hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(model, allow_patterns=list(_WANTED)))
    except HfHubHTTPError as exc:
        raise SourceError(f"The hub does not give {model}: {exc}. Check its name, and that you may read it.") from exc
    except (LocalEntryNotFoundError, OSError, ValueError) as exc:
        raise SourceError(
            f"{model} is no directory ({folder}), it is not in the local hub cache, and the hub cannot be reached. "
            f"Where there is a network: `hf download {model}`, then copy the hub cache here; "
            "or give the directory of a checkpoint as `source`."
        ) from exc
