"""What every section of the configuration is."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, StringConstraints

__all__ = ["Name", "Settings", "base_url"]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=63)]
"""A name that stands in file names and metric labels."""


class Settings(BaseModel):
    """A section: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def base_url(value: str, *, like: str, key_in: str) -> str:
    """A server's URL, behind which paths can be put; raises `ValueError` with `like` what and `key_in` what setting."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"must look like {like}")
    _ = parts.port  # raises ValueError where it is out of range
    if parts.query or parts.fragment or parts.username:
        raise ValueError(f"must have no query, fragment or user; give the {key_in}")
    return value.rstrip("/")
