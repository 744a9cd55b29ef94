"""How much of each request's work falls into a window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from server.energy.attribution import RequestUses, TokenEvents
from server.energy.attribution.tokens import part_within
from server.energy.columns import UNKNOWN, Flags, Floats, Integers, Works
from server.energy.work import WorkBook
from server.wire import NO_ADAPTER

__all__ = ["PROMPT_TOKEN_MILLITOKENS", "Uses", "uses_in"]

_TOKEN: Final = 1000
"""An output token, in millitokens."""
PROMPT_TOKEN_MILLITOKENS: Final = 100
"""A computed prompt token counts a tenth of an output token: one decode step reads all weights for a few tokens, a
prefill chunk for hundreds. A convention, not a measurement: one reason why the method's confidence is low."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Uses:
    """A window's requests and tokens."""

    rows: Integers
    """Of the work book, ascending: one for each request."""
    requests: RequestUses
    tokens: TokenEvents
    output_millitokens: Integers
    """Of each engine."""


def uses_in(book: WorkBook, start: float, end: float, engines: Mapping[str, int]) -> Uses:
    """Who was at `engines` in start ≤ t < end, and what they did there; `engines` gives each its place."""
    works, payers = book.works, book.payers()
    place_of = np.array([engines.get(payer[0], UNKNOWN) for payer in payers], np.int64)
    with_adapter = np.array([payer[4] != NO_ADAPTER for payer in payers], np.bool_)
    places = place_of[works["payer"]]
    until = np.where(np.isnan(works["done_at"]), end, works["done_at"])
    rows = ((places != UNKNOWN) & (works["sent_at"] < end) & ~(until < start)).nonzero()[0]
    there, places, until = works[rows], places[rows], until[rows]
    times, keys = book.chunks.within(start, end)
    whose = book.places_of(keys, rows)
    times, whose = times[whose != UNKNOWN], whose[whose != UNKNOWN]
    a_chunk = _tokens_of_a_chunk(there)
    output = _output_millitokens(there, np.bincount(whose, minlength=len(rows)) * a_chunk, start, end)
    output_of = np.zeros(len(engines), np.int64)
    np.add.at(output_of, places, np.rint(output).astype(np.int64))
    prompt = np.rint(_prompt_millitokens(there, start, end)).astype(np.int64)
    overlap = np.maximum(0.0, np.minimum(until, end) - np.maximum(there["sent_at"], start))
    streamed = _is_streamed(there)
    requests = RequestUses(
        engine=places,
        millitokens=np.rint(output).astype(np.int64) + prompt,
        overlap_us=np.rint(overlap * 1e6).astype(np.int64),
        prompt_millitokens=prompt,
        adapter=with_adapter[there["payer"]],
        prompt_tokens=there["prompt_tokens"],
        computed_prompt_tokens=there["computed_prompt_tokens"],
        output_tokens=there["output_tokens"],
        tokens_before=_tokens_before(book, rows, a_chunk, start),
        sent_at=there["sent_at"],
        first_token_at=np.where(streamed, there["first_token_at"], np.nan),
        done_at=there["done_at"],
        streamed=streamed,
    )
    tokens = TokenEvents(times=times, request=whose, tokens=a_chunk[whose])
    return Uses(rows=rows, requests=requests, tokens=tokens, output_millitokens=output_of)


def _is_streamed(works: Works) -> Flags:
    """Its token chunks are seen as they come."""
    streamed: Flags = (works["token_chunks"] > 0) | (~works["recorded"] & ~np.isnan(works["first_token_at"]))
    return streamed


def _tokens_of_a_chunk(works: Works) -> Floats:
    known = (works["output_tokens"] != UNKNOWN) & (works["token_chunks"] > 0)
    return np.where(known, works["output_tokens"] / np.maximum(works["token_chunks"], 1), 1.0)


def _prompt_millitokens(works: Works, start: float, end: float) -> Floats:
    """Their prompts' share of a window: evenly between sent and first token (or the end, where none is known)."""
    known = np.where(np.isnan(works["done_at"]), works["last_at"], works["done_at"])
    known = np.where(np.isnan(works["first_token_at"]), known, works["first_token_at"])
    part = part_within(works["sent_at"], known, start, end)
    millitokens: Floats = np.maximum(works["computed_prompt_tokens"], 0) * PROMPT_TOKEN_MILLITOKENS * part
    return millitokens


def _output_millitokens(works: Works, came: Floats, start: float, end: float) -> Floats:
    """Their output in a window: `came` tokens were seen in it; what is not streamed spreads evenly."""
    return np.where(_is_whole(works), _written(works, start, end), came) * _TOKEN


def _tokens_before(book: WorkBook, rows: Integers, a_chunk: Floats, start: float) -> Floats:
    """Their output before a window."""
    works = book.works[rows]
    whose = book.places_of(book.chunks.before(start), rows)
    chunks = works["chunks_gone"] + np.bincount(whose[whose != UNKNOWN], minlength=len(rows))
    return np.where(_is_whole(works), _written(works, -np.inf, start), chunks * a_chunk)


def _is_whole(works: Works) -> Flags:
    """Its tokens came all at once, and their number is known."""
    whole: Flags = ~_is_streamed(works) & (works["output_tokens"] != UNKNOWN) & ~np.isnan(works["done_at"])
    return whole


def _written(works: Works, start: float, end: float) -> Floats:
    """Tokens of whole answers in start ≤ t < end, as if written evenly from the first (or the request) to the end."""
    begins = np.where(np.isnan(works["first_token_at"]), works["sent_at"], works["first_token_at"])
    written: Floats = works["output_tokens"] * part_within(begins, works["done_at"], start, end)
    return written
