"""JSON values found and spliced, with json.loads as oracle."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crossfade.backends.dialect import MalformedError
from crossfade.backends.json_spans import (
    EVERYTHING,
    MAX_DEPTH,
    Value,
    is_true,
    read_number,
    read_string,
    replace_spans,
    scan_json,
    write_floats,
)

NUMBERS = st.sampled_from(("0", "-0.0", "1.10", "12345678901234567890", "1e400", "-1E-5", "0.1")) | st.floats(
    allow_nan=False, allow_infinity=False
).map(repr)
SPACES = st.text(" \t\n\r", max_size=2)
STRINGS = st.text(max_size=8).map(lambda text: json.dumps(text)) | st.text(max_size=8).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
SCALARS = NUMBERS | STRINGS | st.sampled_from(("true", "false", "null"))


def make_array(parts: list[tuple[str, str, str]]) -> str:
    return "[" + ",".join(f"{before}{text}{after}" for text, before, after in parts) + "]"


def make_object(parts: list[tuple[str, str, str, str]]) -> str:
    return "{" + ",".join(f"{before}{key}{after}:{before}{text}{after}" for key, text, before, after in parts) + "}"


def extend(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    keys = st.sampled_from(('"a"', '"b"', '"v"', '"\\u0061"')) | STRINGS
    arrays = st.lists(st.tuples(texts, SPACES, SPACES), max_size=4).map(make_array)
    return arrays | st.lists(st.tuples(keys, texts, SPACES, SPACES), max_size=4).map(make_object)


TEXTS = st.recursive(SCALARS, extend, max_leaves=25)


def parse(text: str) -> Any:
    return json.loads(text, parse_float=str, parse_int=str)


def rebuild(body: bytes, value: Value) -> Any:
    """What a scan of everything says of a text, in the form of `parse`."""
    text = body[value.start : value.end].decode()
    if value.kind == "object":
        return {key: rebuild(body, one) for key, one in value.members.items()}
    if value.kind == "array":
        return [rebuild(body, one) for one in value.elements]
    return parse(text)


@given(TEXTS, SPACES, SPACES)
@example('{"v": 1, "v": [2, [3]], "\\u0076": {}}', "", "")
def test_a_scan_of_everything_says_what_the_parser_says(text: str, before: str, after: str) -> None:
    body = f"{before}{text}{after}".encode()
    value = scan_json(body, EVERYTHING)
    assert body[value.start : value.end].decode() == text
    assert rebuild(body, value) == parse(text)


@given(TEXTS)
def test_only_what_is_wanted_is_kept_and_it_stands_where_it_says(text: str) -> None:
    body = text.encode()
    value = scan_json(body, {"v": None, "a": {"v": EVERYTHING}})
    parsed = parse(text)
    assert not value.members.keys() - {"a"}
    if isinstance(parsed, dict) and isinstance(parsed.get("a"), dict) and "v" in parsed["a"]:
        inner = value.members["a"].members["v"]
        assert rebuild(body, inner) == parsed["a"]["v"]


@given(TEXTS, st.data())
def test_a_damaged_text_is_refused_exactly_when_the_parser_refuses_it(text: str, data: st.DataObject) -> None:
    body = bytearray(text.encode())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.sampled_from(b'{}[]",:\\ 0.-+eu\xff\x00\x0b') | st.integers(0, 255))
    damaged = bytes(body[: data.draw(st.sampled_from((len(body), at)))])
    wanted = data.draw(st.sampled_from((None, EVERYTHING, {"a": EVERYTHING})))
    try:
        json.loads(damaged.decode(), parse_constant=int)  # int refuses NaN and Infinity, which are not JSON
    except ValueError:
        with pytest.raises(MalformedError, match=r"^not valid JSON at byte \d+: "):
            scan_json(damaged, wanted)
    else:
        scan_json(damaged, wanted)


@given(st.lists(NUMBERS, max_size=40), SPACES)
def test_a_list_of_numbers_is_read_as_float32(numbers: list[str], space: str) -> None:
    body = ("[" + ",".join(f"{space}{number}" for number in numbers) + space + "]").encode()
    value = scan_json(body, None)
    assert value.kind == "numbers"
    with np.errstate(over="ignore"):
        expected = np.array([float(number) for number in numbers], dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(value.numbers, expected)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_floats_are_written_with_the_digits_that_read_back_the_same(floats: list[float]) -> None:
    row = np.array(floats, np.float32)
    text = write_floats(row)
    np.testing.assert_array_equal(np.array(json.loads(text)).astype(np.float32), row)
    for number, digits in zip(row, text.strip(b"[]").split(b","), strict=True):
        assert len(digits.strip(b"-").replace(b".", b"").lstrip(b"0").split(b"e")[0].rstrip(b"0")) <= 9, number


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_json_cannot_say_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="a row of 3 numbers has 1 that are not finite"):
        write_floats(np.array([1, bad, 2], np.float32))


@pytest.mark.parametrize(
    ("body", "at"),
    [
        (b"", 0),
        (b" ", 1),
        (b'{"a": 1} x', 9),
        (b'{"a": 01}', 7),
        (b'{"a" 1}', 1),
        (b"[1, 2", 5),
        (b'{"a": [[1, 2], [3}]}', 17),
        (b'{"a": "\xff"}', 7),
        (b'{"a": "' + b"\xc3\xa9" * 40_000 + b'\xc3"}', 80_007),
        (b'{"a": "\x01"}', 6),
        (b'{"b": {"deep": [1, {"x": tru}]}}', 25),
        (b"[true, nul]", 7),
    ],
)
def test_a_refusal_names_the_byte(body: bytes, at: int) -> None:
    with pytest.raises(MalformedError, match=rf"^not valid JSON at byte {at}: "):
        scan_json(body, {"a": EVERYTHING})


def test_wanted_values_may_not_be_nested_without_end_and_others_may_be_deep() -> None:
    body = b'{"a": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}"
    assert scan_json(body, {"b": None}).kind == "object"
    with pytest.raises(MalformedError, match=f"nested more than {MAX_DEPTH} deep"):
        scan_json(body, {"a": EVERYTHING})


def test_scalars_are_read_as_what_they_are() -> None:
    body = b'{"t": true, "n": null, "s": "\\u00e9", "x": -1.5e1, "f": false}'
    members = scan_json(body, EVERYTHING).members
    assert is_true(body, members["t"])
    assert not is_true(body, members["f"])
    assert read_string(body, members["s"]) == "é"
    assert read_string(body, members["x"]) is None
    assert read_number(body, members["x"]) == -15
    assert read_number(body, members["n"]) is None
    assert read_number(body, members["s"]) is None


def test_a_lone_surrogate_is_refused_only_where_its_text_matters() -> None:
    body = b'{"payload": "\\ud800", "text": "\\ud800"}'
    value = scan_json(body, {"text": None, "model": EVERYTHING})
    assert value.kind == "object"
    wanted = scan_json(body, {"text": EVERYTHING}).members["text"]
    with pytest.raises(MalformedError, match="byte 3"):
        read_string(body, wanted)


def test_spans_are_replaced_in_any_order() -> None:
    assert replace_spans(b"0123456789", [(7, 8, b"seven"), (1, 3, b""), (0, 1, b"zero")]) == b"zero3456seven89"
