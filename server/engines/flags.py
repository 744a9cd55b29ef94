"""Turns an engine's options into command-line flags."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["as_flags"]


def as_flags(options: Mapping[str, Any]) -> Iterator[str]:
    """`a_b: 3` → `--a-b 3`; true → `--a-b`; false → `--no-a-b`; a mapping → JSON; a list → several values.

    None means "not set" and gives nothing. A list whose items are mappings is JSON as a whole.
    """
    for name, value in options.items():
        flag = name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        elif isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value):
            yield f"--{flag}"
            yield from map(str, value)
        else:
            yield f"--{flag}"
            yield json.dumps(value) if isinstance(value, (dict, list)) else str(value)
