"""The sums of two running engines, from the probabilities that they tell.

Both are asked for `prompt_logprobs` of the same token ids, one window at a time: the log-probability of the text's own
token, exact, and of the K most probable ones. NLL, agreement and flips follow exactly; of KL only the truncated one
(counts.py).

The noise floor is the reference asked twice: an engine's arithmetic depends on what else is in its batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from quant.quality.counts import row
from quant.served import Endpoint, Ranked, ranked_tokens

__all__ = ["served_rows", "window_row"]

_LEAST: Final = 1e-9
"""Of a rest's probability. Sums of 20 float32 numbers miss 1 by 1e-7 and more; smaller rests count as none."""


def served_rows(
    reference: Endpoint, variant: Endpoint, windows: Sequence[Sequence[int]], *, top_k: int
) -> Iterator[tuple[list[float], list[float]]]:
    """Of every window the variant's sums, and those of the reference asked once more. Raises `ServedError`."""
    for window in windows:
        theirs, mine, again = (ranked_tokens(asked, window, top_k) for asked in (reference, variant, reference))
        yield window_row(theirs, mine, window[1:]), window_row(theirs, again, window[1:])


def window_row(reference: Sequence[Ranked], variant: Sequence[Ranked], targets: Sequence[int]) -> list[float]:
    """The sums of one window, from what both told of every place of `targets`."""
    triples = list(zip(reference, variant, targets, strict=True))
    right = [(theirs.top == token, mine.top == token) for theirs, mine, token in triples]
    return row(
        tokens=len(triples),
        reference_nll=-math.fsum(theirs.logprobs[token] for theirs, _, token in triples),
        variant_nll=-math.fsum(mine.logprobs[token] for _, mine, token in triples),
        kl_top=math.fsum(_truncated(theirs, mine) for theirs, mine, _ in triples),
        agreed=sum(theirs.top == mine.top for theirs, mine, _ in triples),
        right_to_wrong=right.count((True, False)),
        wrong_to_right=right.count((False, True)),
    )


def _truncated(reference: Ranked, variant: Ranked) -> float:
    """KL over the tokens that both told, and one rest."""
    both = reference.logprobs.keys() & variant.logprobs.keys()
    pairs = [(reference.logprobs[token], variant.logprobs[token]) for token in both]
    inside = math.fsum(math.exp(p) * (p - q) for p, q in pairs)
    p_rest = 1 - math.fsum(math.exp(p) for p, _ in pairs)
    q_rest = 1 - math.fsum(math.exp(q) for _, q in pairs)
    if p_rest <= _LEAST:
        return inside
    return inside + p_rest * math.log(p_rest / max(q_rest, _LEAST))
