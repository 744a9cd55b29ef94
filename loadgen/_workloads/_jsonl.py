"""Requests from a file: one JSON object a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from loadgen._arrivals import Times
from loadgen._errors import LoadError
from loadgen._workloads._files import FileLine, lines_of
from loadgen._workloads._options import Options
from loadgen._workloads._workload import CHAT, COMPLETIONS, Ask
from loadgen._workloads._writer import Writer

if TYPE_CHECKING:
    from loadgen._gateway import Prepared
    from loadgen._plan import Plan

__all__ = ["Jsonl"]

_DECIDED: Final = ("model", "stream", "stream_options")
"""By the options of the load: a line may not say otherwise."""
_MOST_LINES: Final = 1_000_000


class Jsonl:
    """`{"messages": [...]}` or `{"prompt": "..."}`, with `max_tokens` and other members of a body if wanted.

    Request `index` is line `index`, and after the last line the first comes again. The texts are as they stand in the
    file, for every salt: a prefix cache may know them.
    """

    def __init__(self, plan: Plan, prepared: Prepared) -> None:
        if not plan.workload_file:
            raise LoadError("--workload jsonl needs a file: name it with --workload-file.")
        options = Options.parse(plan.workload_options)
        self._file, self._output_tokens = plan.workload_file, plan.output_tokens
        self._lines = [_body(line) for line in lines_of(plan.workload_file, most=_MOST_LINES)]
        self._writers = {
            endpoint: Writer(plan, prepared, options, endpoint=endpoint) for endpoint in (CHAT, COMPLETIONS)
        }

    @property
    def probes(self) -> None:
        return None

    @property
    def times_s(self) -> Times | None:
        return None

    def describe(self) -> dict[str, Any]:
        return {"file": self._file, "lines": len(self._lines)}

    def ask(self, index: int) -> Ask:
        body = self._lines[index % len(self._lines)]
        name = "messages" if "messages" in body else "prompt"
        write = self._writers[CHAT if name == "messages" else COMPLETIONS]
        tokens = int(body.get("max_tokens", self._output_tokens))
        more = {member: value for member, value in body.items() if member not in (name, "max_tokens")}
        return write.ask_for(write.model(index), body[name], (None, tokens), more=more)


def _body(line: FileLine) -> Mapping[str, Any]:
    try:
        body = msgspec.json.decode(line.text)
    except msgspec.DecodeError as exc:
        raise line.error(f"is not JSON ({exc})") from exc
    if not isinstance(body, dict) or ("messages" in body) == ("prompt" in body):
        raise line.error('must be an object with either "messages" or "prompt"')
    if not _is_prompt(body):
        raise line.error('has "messages" that are no list of objects with a role, or a "prompt" that is no text')
    decided = [name for name in _DECIDED if name in body]
    if decided:
        raise line.error(f'has "{decided[0]}", which the options of the load decide; take it out')
    most = body.get("max_tokens", 1)
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise line.error('has a "max_tokens" that is no number above 0')
    return body


def _is_prompt(body: Mapping[str, Any]) -> bool:
    if "prompt" in body:
        return isinstance(body["prompt"], str) and bool(body["prompt"])
    messages = body["messages"]
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages)
    )
