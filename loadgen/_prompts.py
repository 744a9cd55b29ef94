"""Prompts of a wanted length, made of random words, never twice the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np

__all__ = ["PROBE_WORDS", "Calibration", "Prompts", "probe_text"]

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

PROBE_WORDS: Final = (32, 160)
"""Lengths of the two prompts whose token counts calibrate all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How many tokens the server makes of a prompt: a fixed part (its chat template) and some a word."""

    fixed_tokens: float
    tokens_a_word: float

    @classmethod
    def of(cls, first: tuple[int, int], second: tuple[int, int]) -> Calibration:
        """The line through two (words, prompt tokens) pairs."""
        slope = max((second[1] - first[1]) / (second[0] - first[0]), 0.1)
        return cls(fixed_tokens=max(first[1] - slope * first[0], 0.0), tokens_a_word=slope)

    def words(self, prompt_tokens: int) -> int:
        """Words for a prompt of about that many tokens; at least one."""
        return max(1, round((prompt_tokens - self.fixed_tokens) / self.tokens_a_word))


class Prompts:
    """The text of every request, decided by seed, salt and its number alone.

    The very first words differ, so that no prefix cache can answer for the model; another salt gives other texts of
    the same lengths.
    """

    def __init__(self, *, seed: int, salt: str) -> None:
        self._entropy = (seed, int.from_bytes(hashlib.sha256(salt.encode()).digest()[:8]))

    def text(self, index: int, words: int) -> str:
        rng = np.random.default_rng((*self._entropy, index))
        return " ".join(_WORDS[at] for at in rng.integers(len(_WORDS), size=words))


def probe_text(words: int, *, salt: str) -> str:
    """A prompt to calibrate with: as the load's are, but none of them."""
    return Prompts(seed=words, salt=f"probe {salt}").text(0, words)
