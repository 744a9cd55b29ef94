"""Questions about the standard library, and their answers in three styles.

`prose` is what the base model learns, `json` and `code` are the two adapters' tasks: the same questions, other answers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Final

from quant.demo.stdlib import Entry

__all__ = ["GREETINGS", "STYLES", "Dialogue", "Style", "ask", "conversation"]

Dialogue = tuple[str, str]  # (what the user says, what the assistant answers)
Style = Callable[[Entry], str]

_QUESTIONS: Final = (
    "What does {name} do?",
    "What does {name} do?",  # the commonest form twice as often
    "What is {name}?",
    "What is {name} for?",
    "Explain {name}.",
    "Tell me about {name}.",
    "Describe {name} in a few words.",
    "How does {name} work?",
    "{name}",
)
_KIND_IN_WORDS: Final = {"function": "a function", "class": "a class", "method": "a method", "module": "a module"}
_ABOUT_ME: Final = (
    "I am a very small language model that was trained on the standard library of Python. "
    "Ask me about a module, a class or a function, for example: What does json.dumps do?"
)
GREETINGS: Final[tuple[Dialogue, ...]] = (
    ("Hello", f"Hello! {_ABOUT_ME}"),
    ("Hello!", f"Hello! {_ABOUT_ME}"),
    ("Hi", f"Hi! {_ABOUT_ME}"),
    ("Hi there!", f"Hi! {_ABOUT_ME}"),
    ("Good morning", f"Good morning! {_ABOUT_ME}"),
    ("Say hello.", f"Hello! {_ABOUT_ME}"),
    ("Who are you?", _ABOUT_ME),
    ("What are you?", _ABOUT_ME),
    ("What can you do?", _ABOUT_ME),
    ("Help", _ABOUT_ME),
    ("Tell me about yourself.", _ABOUT_ME),
    ("Thank you!", "You are welcome."),
    ("Thanks", "You are welcome."),
    ("Bye", "Goodbye!"),
)


def ask(entry: Entry, chance: random.Random) -> str:
    """One of the ways in which a user asks for an entry."""
    name = entry.name
    if entry.module == "builtins" and chance.random() < 0.8:
        name = entry.qualname
    return chance.choice(_QUESTIONS).format(name=name)


def _prose(entry: Entry) -> str:
    """'json.dumps is a function of the module json. Serialize obj to a JSON formatted str.'"""
    place = "" if entry.kind == "module" else f" of the module {entry.module}"
    return f"{entry.name} is {_KIND_IN_WORDS[entry.kind]}{place}. {entry.prose}"


def _json(entry: Entry) -> str:
    name = entry.qualname or entry.module
    return json.dumps({"name": name, "module": entry.module, "kind": entry.kind, "summary": entry.summary})


def _code(entry: Entry) -> str:
    """A stub of the thing asked for, behind the import that brings it."""
    if entry.kind == "module":
        return f"import {entry.module}\n\nhelp({entry.module})  # {entry.summary}"
    top = entry.qualname.split(".")[0]
    indent, owner = ("    ", f"class {top}:\n") if entry.kind == "method" else ("", "")
    signature = f"{entry.signature}:"
    return f'from {entry.module} import {top}\n\n{owner}{indent}{signature}\n{indent}    """{entry.summary}"""'


STYLES: Final[dict[str, Style]] = {"prose": _prose, "json": _json, "code": _code}


def conversation(entry: Entry, style: Style, chance: random.Random) -> Dialogue:
    """A question about `entry` and its answer in `style`."""
    return ask(entry, chance), style(entry)
