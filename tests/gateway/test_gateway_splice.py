"""Surgery on JSON bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.gateway.grammars.splice import append_member, replace_inner_member, replace_member

_text = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["model", '"model":"x"', "\\", '"', "}", "{", "mod\\u0065l", ",", ":"]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text | st.just("model"), inner, max_size=4),
    max_leaves=12,
)
_members = st.lists(st.tuples(_text | st.just("model"), _json), min_size=1, max_size=6)


@st.composite
def _objects(draw: st.DrawFn) -> tuple[bytes, list[tuple[str, Any]]]:
    """An object as some client might write it: any spaces, any escapes, keys that stand twice."""
    members = draw(_members)
    pieces = []
    for key, value in members:
        ascii_only, indent = draw(st.booleans()), draw(st.sampled_from([None, 1]))
        name = json.dumps(key, ensure_ascii=ascii_only)
        if key == "model" and draw(st.booleans()):
            name = '"mod\\u0065l"'
        space = draw(st.sampled_from(["", " ", "\n\t"]))
        pieces.append(f"{space}{name}{space}:{space}{json.dumps(value, ensure_ascii=ascii_only, indent=indent)}{space}")
    around = draw(st.sampled_from(["", " ", "\r\n"]))
    return f"{around}{{{','.join(pieces)}}}{around}".encode(), members


@given(_objects(), _json)
def test_replacing_a_member_changes_that_member_and_no_other(
    source: tuple[bytes, list[tuple[str, Any]]], new: Any
) -> None:
    body, members = source
    expected = dict(members)
    if "model" in expected:
        expected["model"] = new
    assert json.loads(replace_member(body, "model", json.dumps(new).encode())) == expected


@given(_objects(), _json)
def test_all_members_of_a_key_that_stands_twice_are_replaced(
    source: tuple[bytes, list[tuple[str, Any]]], new: Any
) -> None:
    body, members = source
    pairs = json.loads(replace_member(body, "model", json.dumps(new).encode()), object_pairs_hook=list)
    assert [key for key, _ in pairs] == [key for key, _ in members]
    assert all(value == json.loads(json.dumps(new), object_pairs_hook=list) for key, value in pairs if key == "model")


@given(_objects())
def test_an_appended_member_is_the_only_change(source: tuple[bytes, list[tuple[str, Any]]]) -> None:
    body, members = source
    changed = append_member(body, "added", b'{"include_usage":true}')
    assert json.loads(changed) == {**dict(members), "added": {"include_usage": True}}
    assert changed.startswith(body[: body.rfind(b"}")])


@pytest.mark.parametrize("body", [b"{}", b"{ }", b" {\n} "])
def test_an_empty_object_gets_its_first_member_without_a_comma(body: bytes) -> None:
    assert json.loads(append_member(body, "model", b'"x"')) == {"model": "x"}


def test_bytes_outside_the_value_stay_as_they_are() -> None:
    body = '{ "messages" : [{"model":"a"}],\t"model" : "a" , "x": "\\u00e4 ä \\"model\\":\\"a\\"" }'.encode()
    assert replace_member(body, "model", b'"b"') == body.replace(b'"model" : "a"', b'"model" : "b"')


@given(_objects(), _json)
def test_quick_way_to_a_text_member_gives_the_same_bytes(source: tuple[bytes, list[tuple[str, Any]]], new: Any) -> None:
    body, members = source
    value = json.dumps(new).encode()
    if isinstance(dict(members).get("model"), str):
        assert replace_member(body, "model", value, is_text=True) == replace_member(body, "model", value)


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"model":"x"}],"mod\\u0065l":"a"}',
        b'{"model":"a","x":"\\"model","y":1}',
        b'{"x":"\\"model","model":"a"}',
        b'{"x":{"model":"b"},"model":"a"}',
        b'{"model":"a","model":"a"}',
        b'{"x":"model","model" \n:\t"a"}',
    ],
)
def test_quick_way_is_not_fooled_by_what_looks_like_the_member(body: bytes) -> None:
    assert replace_member(body, "model", b'"new"', is_text=True) == replace_member(body, "model", b'"new"')
    assert json.loads(replace_member(body, "model", b'"new"', is_text=True))["model"] == "new"


@given(_objects(), _objects(), _json)
def test_member_of_an_inner_object_is_the_only_change(
    outside: tuple[bytes, list[tuple[str, Any]]], inside: tuple[bytes, list[tuple[str, Any]]], new: Any
) -> None:
    body = b'{"a":{"model":1},"response": %b ,"b":%b}' % (inside[0], outside[0])
    expected = json.loads(body)
    if "model" in expected["response"]:
        expected["response"]["model"] = new
    changed = replace_inner_member(body, "response", "model", json.dumps(new).encode())
    assert json.loads(changed) == expected
    assert changed.startswith(b'{"a":{"model":1},"response": ')
    assert changed.endswith(b' ,"b":%b}' % outside[0])


@pytest.mark.parametrize(
    "body", [b'{"response":null}', b'{"response":[{"model":1}]}', b'{"x":{"response":{"model":1}}}']
)
def test_inner_member_that_is_not_there_changes_nothing(body: bytes) -> None:
    assert replace_inner_member(body, "response", "model", b'"new"') == body
