"""What setup.py lists to be compiled can be: mypyc would break the rest, some of it only at run time."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import msgspec
import pytest

import server.gateway

SETUP = Path(__file__).parents[2] / "setup.py"


def _compiled() -> list[str]:
    """The modules' names, from the source of setup.py."""
    for statement in ast.parse(SETUP.read_text("utf-8")).body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "COMPILED":
            assert statement.value is not None
            names = eval(compile(ast.Expression(statement.value), str(SETUP), "eval"), {})
            return ["server.gateway." + name.replace("/", ".") for name in names]
    raise AssertionError("setup.py lists nothing")


def _classes(module: str) -> list[type]:
    members = vars(importlib.import_module(module)).values()
    return [one for one in members if isinstance(one, type) and one.__module__ == module]


@pytest.mark.parametrize("module", _compiled())
def test_compiled_module_has_no_struct(module: str) -> None:
    assert not [one for one in _classes(module) if issubclass(one, msgspec.Struct)]


def test_whoever_inherits_from_a_compiled_class_is_compiled() -> None:
    compiled = set(_compiled())
    for found in pkgutil.walk_packages(server.gateway.__path__, "server.gateway."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    heirs = [heir for module in compiled for one in _classes(module) for heir in one.__subclasses__()]
    assert {heir.__module__ for heir in heirs if heir.__module__.startswith("server.")} <= compiled
