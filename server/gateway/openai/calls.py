"""The few fields of a request that decide what happens to it."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from server.errors import BadRequestError
from server.gateway.openai.splice import append_member, replace_member

__all__ = ["Call", "ChatCall", "asks_for_usage", "parse_call", "upstream_body"]

_AT = re.compile(r" - at `\$\.([^`.\[]+)")
_MISSING = re.compile(r"missing required field `([^`]+)`")
_USAGE_WANTED: Final = b'{"include_usage":true}'


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What every endpoint's body may hold; all other members are left to the engine."""

    model: str
    stream: bool | None = None
    stream_options: dict[str, Any] | UnsetType | None = UNSET


class ChatCall(Call, frozen=True, kw_only=True):
    """A chat completion: its messages are a list, whatever stands in it."""

    messages: list[Raw]


def parse_call(decoder: msgspec.json.Decoder[Call], body: bytes) -> Call:
    """Read the deciding fields; raises `BadRequestError` that names the place or the field."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise _wrong_field(str(exc)) from exc
    except msgspec.DecodeError as exc:
        raise BadRequestError(f"The body is not valid JSON: {exc}. Send a JSON object.") from exc
    except UnicodeDecodeError as exc:
        raise BadRequestError(f"The body is not valid UTF-8: {exc.reason} (0x{exc.object[exc.start]:02x}).") from exc
    except RecursionError as exc:
        raise BadRequestError("The body is nested too deeply to be read; send a flatter JSON object.") from exc


def asks_for_usage(call: Call) -> bool:
    """Whether the client itself wants the usage frame at a stream's end."""
    options = call.stream_options
    if not isinstance(options, dict):
        return False
    wanted = options.get("include_usage")
    if wanted is not None and not isinstance(wanted, bool):
        raise BadRequestError(
            "`stream_options.include_usage` must be true or false.", param="stream_options.include_usage"
        )
    return bool(wanted)


def upstream_body(body: bytes, call: Call, *, upstream_model: str, add_usage: bool) -> bytes:
    """The client's bytes with what the engine must read otherwise: its own model name, and the wish for usage."""
    if call.model != upstream_model:
        body = replace_member(body, "model", msgspec.json.encode(upstream_model))
    if not add_usage:
        return body
    if call.stream_options is UNSET:
        return append_member(body, "stream_options", _USAGE_WANTED)
    options = dict(call.stream_options) if isinstance(call.stream_options, dict) else {}
    # Without `include_usage` an engine ignores this one; with it every frame would carry usage nobody asked for.
    options.pop("continuous_usage_stats", None)
    options["include_usage"] = True
    return replace_member(body, "stream_options", msgspec.json.encode(options))


def _wrong_field(problem: str) -> BadRequestError:
    """msgspec's words in the client's terms: which field, what was expected, what came."""
    if missing := _MISSING.search(problem):
        return BadRequestError(f"`{missing[1]}` is missing; every request needs it.", param=missing[1])
    expectation = problem.partition(" - at ")[0]
    expectation = expectation[:1].lower() + expectation[1:]
    if where := _AT.search(problem):
        return BadRequestError(f"`{where[1]}` has a wrong type: {expectation}.", param=where[1])
    return BadRequestError(f"The body must be one JSON object: {expectation}.")
