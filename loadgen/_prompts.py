"""Prompts of a wanted length, made of random words, never twice the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

import numpy as np

__all__ = ["VOCABULARY", "Calibration", "Prompts", "probe_text"]

_TEXT: Final = """
able about above across after again air along also always animal another answer area around away back bank base
because before begin behind below best better between big bird black blue boat body book both bring brown build
call came car carry cause center change city clear close cold color come common cook corn could country cover
cross cry cut dark day deep door down draw dream drive dry early earth east easy eat edge enough even every eye
face fact fall family farm fast father feel field fight figure fill final find fine fire first fish five floor
fly follow food foot force form found four free friend from front full game garden gave give glass gold gone
good great green ground group grow hair half hand happen hard head hear heart heavy help here high hill hold
home horse hot hour house hundred idea inch island just keep kind king knew know lake land large last late laugh
lead leaf learn leave left less letter life light like line list listen little live long look love made main
make many map mark may mean measure meet might mile milk mind minute money moon more morning most mother
mountain move much music name near need never new next night north note notice number ocean old once only open
order other over own page paint paper part pass path pattern people perhaps piece place plain plan plant play
point port power press problem product pull put question quick rain ran reach read ready real record red rest
right river road rock room round rule run said sail same school sea second see seem set shape ship short show
side sing sky sleep slow small snow some song soon sound south space stand star start state step stone stood
stop story street strong study such sun sure table tail take talk tell ten test than that thing think third
thought thousand three through time town trade train tree true turn two under unit until upon use usual very
voice wait walk wall want warm watch water wave week well west wheel while white whole wide wild wind window
winter wish with wonder wood word work world year young
"""
_WORDS: Final = tuple(_TEXT.split())

VOCABULARY: Final = len(_WORDS)
"""Words there are. A text that holds each of them once has the tokens a word that all long texts have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How many tokens the server makes of a prompt: a fixed part (its chat template) and some a word."""

    fixed_tokens: float
    tokens_a_word: float
    tokens_a_message: float = 0.0
    """Of each message beyond the first; 0 where only one is ever sent."""
    check_error: float | None = field(default=None, compare=False)
    """(counted - wanted)/wanted of a third prompt, of which this knew nothing; None: none was sent."""

    def tokens(self, words: int) -> float:
        """Of a prompt of one message."""
        return self.fixed_tokens + self.tokens_a_word * words

    def words(self, prompt_tokens: float) -> int:
        """Words for a prompt of about that many tokens; at least one."""
        return max(1, round((prompt_tokens - self.fixed_tokens) / self.tokens_a_word))


class Prompts:
    """The text of every request, decided by seed, salt and its number alone.

    The very first words differ, so that no prefix cache can answer for the model; another salt gives other texts of
    the same lengths. A text is one shuffle of all words after another, not independent draws: so two texts of as many
    words differ little in their tokens. A shorter text is the beginning of a longer one.
    """

    def __init__(self, *, seed: int, salt: str) -> None:
        self._entropy = (seed, int.from_bytes(hashlib.sha256(salt.encode()).digest()[:8]))

    def text(self, index: int, words: int) -> str:
        rng = np.random.default_rng((*self._entropy, index))
        shuffles = -(-words // VOCABULARY)
        order = rng.permuted(np.tile(np.arange(VOCABULARY), (shuffles, 1)), axis=1).ravel()[:words]
        return " ".join(map(_WORDS.__getitem__, order.tolist()))


def probe_text(words: int, *, salt: str) -> str:
    """A prompt to calibrate with: as the load's are, but none of them."""
    return Prompts(seed=words, salt=f"probe {salt}").text(0, words)
