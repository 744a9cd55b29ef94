"""A request's provisional joules: counts times prices, as a number that everybody can read."""

from __future__ import annotations

import json
import re
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import BadRequestError
from server.gateway.grammars import Usage
from server.gateway.prices import PriceList, check_wish
from server.wire import Price, Prices

_counts = st.integers(0, 10**7)
_prices = st.floats(1e-6, 1e9)
UNKNOWN = {"energy_joules": None, "method": None, "scope": None, "provisional": True}


def prices(prompt: float | None = 3.0, output: float | None = 40.0) -> PriceList:
    one = PriceList()
    one.replace(Prices(engines={"a": Price(prompt, output, "phase_time", "gpu")}))
    return one


def joules(one: PriceList, usage: Usage) -> bytes | None:
    """What the header says; the note must say the same."""
    line = one.header_line("a", usage)
    note = json.loads(one.note("a", usage), parse_float=str, parse_int=str)
    if not line:
        assert note == UNKNOWN
        return None
    value = line.removeprefix(b"x-wattgate-energy-joules: ").removesuffix(b"\r\n")
    assert note == {"energy_joules": value.decode(), "method": "phase_time", "scope": "gpu", "provisional": True}
    return value


@given(_counts, _counts, _counts, _prices, _prices)
def test_joules_are_computed_prompt_tokens_and_output_tokens_at_their_prices(
    computed: int, cached: int, output: int, prompt_price: float, output_price: float
) -> None:
    said = joules(prices(prompt_price, output_price), Usage(computed + cached, output, cached))
    assert said is not None
    assert re.fullmatch(rb"\d+(\.\d+)?", said)
    exact = (computed * prompt_price + output * output_price) * 1e-6
    assert float(said) == pytest.approx(exact, rel=1e-3)
    assert (float(said) == 0) == (exact == 0)


@pytest.mark.parametrize(
    ("usage", "said"),
    [
        (Usage(9, 3, 4), b"0.0001350"),
        (Usage(9, 3, None), b"0.0001470"),
        (Usage(0, 0, 0), b"0"),
        (Usage(4, 3, 9), b"0.0001200"),
        (Usage(0, 10**9, 0), b"40000"),
        (Usage(0, 31_250, 0), b"1.250"),
        (Usage(None, 3, 4), None),
        (Usage(9, None, 4), None),
        (Usage(9, -3, 4), None),
    ],
)
def test_count_that_is_not_known_leaves_the_joules_unknown(usage: Usage, said: bytes | None) -> None:
    assert joules(prices(), usage) == said


@pytest.mark.parametrize("bad", [nan, inf, -1e3])
def test_price_that_cannot_be_makes_no_number(bad: float) -> None:
    assert joules(prices(prompt=bad), Usage(9, 3, 4)) is None
    assert joules(prices(output=bad), Usage(9, 3, 4)) is None


def test_price_that_is_missing_is_missed_only_where_it_is_needed() -> None:
    assert joules(prices(prompt=None), Usage(9, 3, 4)) is None
    assert joules(prices(prompt=None), Usage(9, 3, 9)) == b"0.0001200"
    assert joules(prices(output=None), Usage(9, 3, 4)) is None
    assert joules(prices(output=None), Usage(9, 0, 4)) == b"0.00001500"


def test_engine_without_prices_has_none_and_new_prices_replace_all_old_ones() -> None:
    one = prices()
    assert one.header_line("b", Usage(9, 3)) == b""
    assert json.loads(one.note("b", Usage(9, 3))) == UNKNOWN
    of_the_end = one.notes("a")
    one.replace(Prices(engines={"b": Price(1.0, 1.0, "token_share", "module")}))
    assert joules(one, Usage(9, 3)) is None
    assert json.loads(of_the_end(Usage(9, 3))) == UNKNOWN
    assert json.loads(one.note("b", Usage(9, 3)))["method"] == "token_share"


@pytest.mark.parametrize("value", [b"include", b"Include", b"INCLUDE", b" include "])
def test_wish_is_read_in_any_case(value: bytes) -> None:
    check_wish(value)


@pytest.mark.parametrize("value", [b"", b"true", b"1", b"include, include", b"exclude", b"\xff" * 400])
def test_wish_that_means_nothing_is_refused_with_what_to_send(value: bytes) -> None:
    with pytest.raises(BadRequestError, match="send `include`, or leave it out") as refused:
        check_wish(value)
    assert len(str(refused.value)) < 200
