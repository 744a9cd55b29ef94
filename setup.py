"""Builds the package; with WATTGATE_COMPILE=1 the path of a request as machine code, by mypyc.

What the package is stands in pyproject.toml. Without the variable this adds nothing: the package is pure Python, and
its build needs neither mypy nor a C compiler. See docs/operations.md, "A compiled gateway".
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

from setuptools import setup

__all__ = ["COMPILED"]

COMPILED: Final = (
    *("admission", "allowance", "attempts", "auth", "budgets", "client", "drive", "forward", "limits", "line", "pace"),
    *("passage", "path", "records", "retry", "seats", "sightings", "token_log", "trace", "visit", "visits"),
    *("grammars/event_watch", "grammars/messages_watch", "grammars/openai_watch", "grammars/responses_watch"),
    "grammars/splice",
    *("routing/first", "routing/least_outstanding", "routing/load", "routing/outstanding", "routing/plan"),
    "routing/router",
    *("upstream/connection", "upstream/http1", "upstream/pool", "upstream/splice"),
)
"""Modules of server/gateway. Not in it: those with msgspec's structs, which are compiled already and would be broken,
those that inherit from uvicorn's classes, and those that a request seldom meets. All subclasses of a compiled class
are compiled."""


def _wanted() -> bool:
    return os.environ.get("WATTGATE_COMPILE") == "1"  # noqa: TID251  # no gateway runs here


def _requirements() -> list[str]:
    """mypy, and all that it must know the types of."""
    project: dict[str, Any] = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    checkers = [one for one in project["optional-dependencies"]["dev"] if one.startswith(("mypy", "types-"))]
    return [*project["dependencies"], *checkers]


def _extensions() -> list[Any]:
    """Only for a wheel: an installation that runs from this folder (`pip install -e`) runs what stands in it."""
    if "bdist_wheel" not in sys.argv:
        return []
    from mypyc.build import mypycify  # noqa: PLC0415  # only who compiles needs it

    paths = [f"server/gateway/{name}.py" for name in COMPILED]
    return list(mypycify(["--config-file", "pyproject.toml", *paths], opt_level="2", group_name="wattgate"))


if _wanted():
    setup(setup_requires=_requirements(), ext_modules=_extensions())
else:
    setup()
