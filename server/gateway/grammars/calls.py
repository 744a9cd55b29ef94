"""The few fields of a request that decide what happens to it."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from server.errors import BadRequestError

__all__ = ["Call", "decode_call"]

_AT = re.compile(r" - at `\$\.([^`.\[]+)")
_MISSING = re.compile(r"missing required field `([^`]+)`")


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What every endpoint's body may hold; all other members are left to the engine."""

    model: str
    stream: bool | None = None
    stream_options: dict[str, Raw] | UnsetType | None = UNSET
    max_tokens: Raw = Raw()
    max_completion_tokens: Raw = Raw()
    max_output_tokens: Raw = Raw()

    @property
    def most_tokens(self) -> int | None:
        """How many tokens the answer may have; None: the engine decides. What is wrong with it the engine says."""
        for bound in (self.max_completion_tokens, self.max_output_tokens, self.max_tokens):
            if (digits := bytes(bound)).isdigit():
                return int(digits[:9])
        return None


C = TypeVar("C", bound=Call)


def decode_call(decoder: msgspec.json.Decoder[C], body: bytes) -> C:
    """Read the deciding fields; raises `BadRequestError` that names the place or the field."""
    try:
        call = decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise _wrong_field(str(exc)) from exc
    except msgspec.DecodeError as exc:
        raise BadRequestError(f"The body is not valid JSON: {exc}. Send a JSON object.") from exc
    except UnicodeDecodeError as exc:
        raise BadRequestError(f"The body is not valid UTF-8: {exc.reason} (0x{exc.object[exc.start]:02x}).") from exc
    except RecursionError as exc:
        raise BadRequestError("The body is nested too deeply to be read; send a flatter JSON object.") from exc
    if not call.model:
        raise BadRequestError("`model` is empty; `GET /v1/models` lists what is served.", param="model")
    return call


def _wrong_field(problem: str) -> BadRequestError:
    """msgspec's words in the client's terms: which field, what was expected, what came."""
    if missing := _MISSING.search(problem):
        return BadRequestError(f"`{missing[1]}` is missing; every request needs it.", param=missing[1])
    expectation = problem.partition(" - at ")[0]
    expectation = expectation[:1].lower() + expectation[1:]
    if where := _AT.search(problem):
        return BadRequestError(f"`{where[1]}` has a wrong type: {expectation}.", param=where[1])
    return BadRequestError(f"The body must be one JSON object: {expectation}.")
