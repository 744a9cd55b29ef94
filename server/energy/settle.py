"""Takes requests out of the work book, with what they have used."""

from __future__ import annotations

from server.accounts import RecordKey, RequestEnergy
from server.energy.attribution import Shares
from server.energy.columns import Flags, Integers
from server.energy.work import WorkBook
from server.units import Microjoules

__all__ = ["Tab"]


class Tab:
    """What the requests of a work book owe."""

    def __init__(self, works: WorkBook) -> None:
        self._book = works
        self._methods: dict[str, int] = {}
        self._scopes: dict[str, int] = {}
        """The place of its bit: there are as many as kinds of meters."""

    def pay(self, rows: Integers, shares: Shares, scope: str) -> None:
        """Add a window's shares; a request whose share is 0 has used 0 J, which is known."""
        works = self._book.works
        method = self._methods.setdefault(shares.method, len(self._methods))
        bit = 1 << self._scopes.setdefault(scope, len(self._scopes))
        works["prefill"][rows] += shares.prefill
        works["decode"][rows] += shares.decode
        worse = rows[shares.confidence < works["confidence"][rows]]
        works["method"][worse] = method
        works["confidence"][worse] = shares.confidence
        works["scopes"][rows] |= bit
        works["paid"][rows] = True

    def spoil(self, rows: Integers) -> None:
        """They ran in a window that nobody can account for."""
        self._book.works["complete"][rows] = False

    def final(self, which: Flags, whole: Flags) -> list[RequestEnergy]:
        """Of these rows, those of which there is a record and of which something is known; `whole` is of all rows."""
        works = self._book.works
        which = which & works["recorded"] & works["paid"]
        of_each = works[which]
        payers, boots = self._book.payers(), self._book.boots()
        methods, scopes = list(self._methods), _joined(self._scopes, set(of_each["scopes"].tolist()))
        columns = ("payer", "worker", "seq", "place", "prefill", "decode", "scopes", "method", "confidence")
        rows = zip(
            self._book.ids(which),
            *(of_each[name].tolist() for name in columns),
            of_each["completed"].tolist(),
            (whole & works["complete"])[which].tolist(),
            strict=True,
        )
        return [
            RequestEnergy(
                key=RecordKey(boots[worker], seq, place),
                id=id_,
                labels=payers[payer][:5],
                prefill=Microjoules(prefill),
                decode=Microjoules(decode),
                scope=scopes[bits],
                method=methods[method],
                confidence=confidence,
                completed=completed,
                whole=all_of_it,
            )
            for id_, payer, worker, seq, place, prefill, decode, bits, method, confidence, completed, all_of_it in rows
        ]


def _joined(scopes: dict[str, int], seen: set[int]) -> dict[int, str]:
    """The names of each set of bits."""
    return {bits: "+".join(sorted(name for name, place in scopes.items() if bits >> place & 1)) for bits in seen}
