"""What every Python installation has to say: sources, docstrings, topics.

Nothing is downloaded: the text is the running interpreter's own standard library (PSF licence). Folders that some
distributions leave out (tests, tkinter, idlelib, …) and files that differ between machines are not read, so that two
installations of one Python version yield the same text.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

__all__ = ["HELD_OUT_MODULES", "Entry", "entries", "sources", "topics"]

HELD_OUT_MODULES: Final = frozenset(
    {"calendar", "csv", "fractions", "graphlib", "netrc", "sched", "shelve", "shlex", "textwrap", "wave"}
)
"""Modules that neither the tokenizer nor the model nor an adapter ever sees: quality is measured on them."""

_SKIPPED_FOLDERS: Final = frozenset(
    {
        *("__pycache__", "dist-packages", "distutils", "encodings", "ensurepip", "idlelib", "lib-dynload", "lib2to3"),
        *("pydoc_data", "site-packages", "test", "tests", "tkinter", "turtledemo"),
    }
)
_MACHINE_SPECIFIC: Final = ("_sysconfigdata", "sitecustomize", "config-", "antigravity", "this")
_PUBLIC_NAME: Final = {"_pyio": "io", "_pydecimal": "decimal", "_collections_abc": "collections.abc"}
_COMPILED_MODULES: Final = (
    *("array", "atexit", "binascii", "builtins", "cmath", "errno", "faulthandler", "gc", "itertools", "marshal"),
    *("math", "sys", "time", "unicodedata", "zlib"),
)
_LONGEST_PROSE: Final = 320  # characters: about 80 tokens, so that most answers end within a short generation

Kind = Literal["function", "class", "method", "module"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One documented thing of the standard library."""

    kind: Kind
    module: str  # "json"
    qualname: str  # "JSONEncoder.encode"; empty for a module
    signature: str  # "def dumps(obj, *, indent=None)", "class Fraction", "import json"
    summary: str  # the docstring's first paragraph on one line
    prose: str  # as many leading paragraphs as fit into `_LONGEST_PROSE` characters

    @property
    def name(self) -> str:
        """The full dotted name a user would ask for."""
        return f"{self.module}.{self.qualname}" if self.qualname else self.module

    @property
    def held_out(self) -> bool:
        """Whether this entry is for measuring only."""
        return self.module.split(".")[0] in HELD_OUT_MODULES


def sources() -> Iterator[tuple[str, str]]:
    """Yield (dotted module name, source text) of the standard library's Python files, in a fixed order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if set(relative.parts[:-1]) & _SKIPPED_FOLDERS or relative.name.startswith(_MACHINE_SPECIFIC):
            continue
        dotted = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        yield dotted, path.read_text(encoding="utf-8")


def topics() -> list[str]:
    """The language reference that `help("topics")` reads: one prose text a topic, in a fixed order."""
    text_of: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    return [text_of[title] for title in sorted(text_of)]


def entries() -> list[Entry]:
    """Every public, documented module, function, class and method, each name once, in a fixed order."""
    found: dict[str, Entry] = {}
    for dotted, source in sources():
        public = _PUBLIC_NAME.get(dotted, dotted)
        if any(part.startswith("_") for part in public.split(".")):
            continue
        tree = ast.parse(source)
        for entry in (*_of_module(public, ast.get_docstring(tree)), *_of_body(public, "", tree.body)):
            found.setdefault(entry.name, entry)
    for name in _COMPILED_MODULES:
        for entry in _of_compiled(name):
            found.setdefault(entry.name, entry)
    return [found[name] for name in sorted(found)]


def _of_module(module: str, docstring: str | None) -> Iterator[Entry]:
    if docstring:
        yield _entry("module", module, "", f"import {module}", docstring)


def _of_body(module: str, prefix: str, body: list[ast.stmt]) -> Iterator[Entry]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        docstring = ast.get_docstring(node)
        if docstring and docstring.strip():
            kind: Kind = "class" if isinstance(node, ast.ClassDef) else "method" if prefix else "function"
            yield _entry(kind, module, prefix + node.name, _signature(node), docstring)
        if isinstance(node, ast.ClassDef):
            yield from _of_body(module, f"{prefix}{node.name}.", node.body)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    keyword = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{keyword} {node.name}({ast.unparse(node.args)})"


def _of_compiled(module: str) -> Iterator[Entry]:
    """Entries of a module written in C, read from the live objects."""
    members = vars(importlib.import_module(module))
    for name in sorted(members):
        value = members[name]
        docstring = getattr(value, "__doc__", None)
        if name.startswith("_") or not callable(value) or not docstring:
            continue
        label = "" if module == "builtins" else module
        if isinstance(value, type):
            yield _entry("class", label or "builtins", name, f"class {name}", _without_signature(docstring))
        else:
            yield _entry("function", label or "builtins", name, _live_signature(name, value), docstring)


def _live_signature(name: str, value: object) -> str:
    parameters = getattr(value, "__text_signature__", None) or "(...)"
    return "def " + name + re.sub(r"[$]\w+,? ?", "", parameters)


def _without_signature(docstring: str) -> str:
    """Drop the call forms that C docstrings begin with: 'int([x]) -> integer'."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    kept = [text for text in paragraphs if not re.match(r"\w+\(.*\)", text)]
    return "\n\n".join(kept or paragraphs)


def _entry(kind: Kind, module: str, qualname: str, signature: str, docstring: str) -> Entry:
    paragraphs = [" ".join(text.split()) for text in inspect.cleandoc(docstring).split("\n\n")]
    paragraphs = [text for text in paragraphs if text and not text.startswith((">>>", "---", "==="))] or [""]
    summary = _clip(paragraphs[0])
    prose = summary
    for paragraph in paragraphs[1:]:
        if len(prose) + 1 + len(paragraph) > _LONGEST_PROSE or ">>>" in paragraph:
            break
        prose = f"{prose} {paragraph}"
    return Entry(kind=kind, module=module, qualname=qualname, signature=signature, summary=summary, prose=prose)


def _clip(text: str) -> str:
    """Cut at the last sentence end that fits, else at the last word."""
    if len(text) <= _LONGEST_PROSE:
        return text
    head = text[:_LONGEST_PROSE]
    cut = head.rfind(". ")
    return head[: cut + 1] if cut > 0 else head.rsplit(" ", 1)[0]
