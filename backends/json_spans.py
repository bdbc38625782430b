"""Where values stand in a JSON text, so that new ones can be put in their place and every other byte stays.

A text is walked once, and only the wanted keys are looked into. What is passed over is jumped with regular
expressions and checked by orjson; lists of numbers, which are most of any vector body, are taken in one piece.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

import numpy as np
import orjson

from .dialect import Float32, MalformedError
from .pieces import Pieces, join_pieces

MAX_DEPTH: Final = 200  # of wanted values in each other; both databases' own readers stop at 128

_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_LITTLE_FLOAT: Final = np.dtype("<f4")
_SPACE = rb"[ \t\n\r]*+"
_match_string = re.compile(_STRING).match
_match_scalar = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null").match
_match_key = re.compile(_SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE).match
_match_space = re.compile(_SPACE).match
_match_comma = re.compile(_SPACE + rb"," + _SPACE).match
_match_close_array = re.compile(_SPACE + rb"\]").match
_match_close_object = re.compile(_SPACE + rb"\}").match
_match_bracket = re.compile(rb'[^"{}\[\]]*+(?:' + _STRING + rb'[^"{}\[\]]*+)*+([{}\[\]])').match

Kind = Literal["object", "array", "numbers", "string", "scalar"]
Wanted = Mapping[str, "Wanted"] | None
"""The keys to look into; lists are looked through. None: nothing below here."""


class _Everything(Mapping[str, "Wanted"]):
    """Every key, however deep."""

    def get(self, key: str, default: object = None) -> Wanted:
        return self

    def __getitem__(self, key: str) -> Wanted:
        return self

    def __iter__(self) -> NoReturn:
        raise TypeError("everything cannot be counted")

    def __len__(self) -> int:
        return 1


EVERYTHING: Final = _Everything()


@dataclass(slots=True)
class Value:
    """A JSON value that stands at start:end of its text, and what was wanted below it."""

    kind: Kind
    start: int
    end: int
    members: dict[str, Value]  # of an object; of equal keys the last
    elements: list[Value]  # of an array that is not all numbers
    numbers: Float32 | None  # (n,), of a list of numbers; an empty list is one


_NO_MEMBERS: Final[dict[str, Value]] = {}
_NO_ELEMENTS: Final[list[Value]] = []


def scan_json(body: bytes, wanted: Wanted) -> Value:
    """Find the wanted values of a JSON text. Raises MalformedError when it is not UTF-8 or not JSON."""
    _check_text(body)
    at = _match_space(body).end()  # type: ignore[union-attr]  # matches the empty string too
    value = _scan_value(body, at, wanted, 0)
    end = _match_space(body, value.end).end()  # type: ignore[union-attr]  # as above
    if end != len(body):
        _refuse(end, "there is more after the end of the value")
    return value


def _check_text(body: bytes) -> None:
    if body.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    step = 1 << 16  # so that a large body is never held a second time
    for at in range(0, len(body), step):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(body[at : at + step], final=at + step >= len(body))
        except UnicodeDecodeError as error:
            _refuse(at - pending + error.start, "the text is not UTF-8")


def _scan_value(body: bytes, at: int, wanted: Wanted, depth: int) -> Value:
    first = body[at : at + 1]
    if first == b"[":
        end = _find_numbers(body, at)
        if end:
            return Value("numbers", at, end, _NO_MEMBERS, _NO_ELEMENTS, _read_numbers(body, at, end))
    if first == b"{" or first == b"[":
        if wanted is None:
            return _skip(body, at)
        if depth == MAX_DEPTH:
            _refuse(at, f"values are nested more than {MAX_DEPTH} deep")
        scan = _scan_object if first == b"{" else _scan_array
        return scan(body, at, wanted, depth + 1)
    match = _match_string(body, at) if first == b'"' else _match_scalar(body, at)
    if match is None:
        _refuse(at, f"no value starts with {first!r} like this" if first else "the text ends where a value is due")
    return Value("string" if first == b'"' else "scalar", at, match.end(), _NO_MEMBERS, _NO_ELEMENTS, None)


def _find_numbers(body: bytes, start: int) -> int:
    """Where the list that starts here ends, if it is one of numbers alone; else 0. A few scans at memory speed."""
    find = body.find
    end = find(b"]", start) + 1
    if end and find(b"[", start + 1, end) == find(b'"', start, end) == find(b"{", start, end) == -1:
        # What is left are numbers, true and null (u) and false (s).
        return end if find(b"u", start, end) == find(b"s", start, end) == -1 else 0
    return 0


def _read_numbers(body: bytes, start: int, end: int) -> Float32:
    try:
        parsed = orjson.loads(body[start:end])
    except orjson.JSONDecodeError:  # not JSON, which the scan says exactly, or 1e400, which orjson refuses
        numbers = _scan_array(body, start, EVERYTHING, MAX_DEPTH).elements
        parsed = [float(body[number.start : number.end]) for number in numbers]
    try:
        return np.frombuffer(struct.pack(f"<{len(parsed)}f", *parsed), _LITTLE_FLOAT)  # the fastest way there is
    except OverflowError:  # beyond float32: inf, which whoever maps vectors refuses
        with np.errstate(over="ignore"):
            rounded = np.array(parsed, dtype=np.float32)
        rounded.flags.writeable = False
        return rounded


def _scan_object(body: bytes, start: int, wanted: Wanted, depth: int) -> Value:
    assert wanted is not None
    members: dict[str, Value] = {}
    close = _match_close_object(body, start + 1)
    at = start + 1
    while close is None:
        match = _match_key(body, at)
        if match is None:
            _refuse(at, "a key and a colon are due")
        text = match[1]
        key: str = decode_string(text, match.start(1)) if b"\\" in text else text[1:-1].decode()
        below = wanted.get(key)
        value = _scan_value(body, match.end(), below, depth)
        if below is not None:
            members[key] = value
        close = _match_close_object(body, value.end)
        if close is None:
            at = _pass_comma(body, value.end, "}")
    return Value("object", start, close.end(), members, _NO_ELEMENTS, None)


def _scan_array(body: bytes, start: int, wanted: Wanted, depth: int) -> Value:
    elements: list[Value] = []
    at = _match_space(body, start + 1).end()  # type: ignore[union-attr]  # matches the empty string too
    while True:
        value = _scan_value(body, at, wanted, depth)
        elements.append(value)
        close = _match_close_array(body, value.end)
        if close is not None:
            return Value("array", start, close.end(), _NO_MEMBERS, elements, None)
        at = _pass_comma(body, value.end, "]")


def _pass_comma(body: bytes, at: int, close: str) -> int:
    comma = _match_comma(body, at)
    if comma is None:
        _refuse(at, f"a comma or {close!r} is due")
    return comma.end()


def _skip(body: bytes, start: int) -> Value:
    """An object or array nothing below which is wanted."""
    depth = 0
    at = start
    while True:
        match = _match_bracket(body, at)
        if match is None:
            _refuse(start, "an object or a list is not closed")
        at = match.end()
        depth += 1 if match[1] in b"{[" else -1
        if depth == 0:
            break
    try:
        orjson.loads(body[start:at])
    except orjson.JSONDecodeError:  # not JSON, which the scan says exactly, or 1e400, which orjson refuses
        scan = _scan_object if body[start] == ord("{") else _scan_array
        scan(body, start, EVERYTHING, 0)
    return Value("object", start, at, _NO_MEMBERS, _NO_ELEMENTS, None)


def decode_string(text: bytes, start: int) -> str:
    """The string a JSON string stands for. Raises MalformedError for a lone surrogate."""
    try:
        parsed: str = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        _refuse(start + error.pos, error.msg)
    return parsed


def _refuse(at: int, reason: str) -> NoReturn:
    raise MalformedError(f"not valid JSON at byte {at}: {reason}")


def read_string(body: bytes, value: Value | None) -> str | None:
    """What a string value says, None when it is no string."""
    if value is None or value.kind != "string":
        return None
    return decode_string(body[value.start : value.end], value.start)


def read_number(body: bytes, value: Value | None) -> float | None:
    """What a number says, None when it is no number."""
    if value is None or value.kind != "scalar" or body[value.start] in b"tfn":
        return None
    return float(body[value.start : value.end])


def is_true(body: bytes, value: Value | None) -> bool:
    """Whether a value is the literal true."""
    return value is not None and value.kind == "scalar" and body[value.start] in b"t"


def write_floats(row: Float32) -> bytes:
    """A row (dim,) as a JSON list, each number with the fewest digits that read back as the same float32.

    Raises ValueError for NaN and infinities, which JSON does not have.
    """
    text = orjson.dumps(np.ascontiguousarray(row, dtype=np.float32), option=orjson.OPT_SERIALIZE_NUMPY)
    if b"n" in text:
        raise ValueError(f"a row of {row.size} numbers has {int((~np.isfinite(row)).sum())} that are not finite")
    return text


def replace_spans(body: bytes, replacements: Iterable[tuple[int, int, bytes]]) -> bytes:
    """The text with the bytes start:end replaced, for any number of (start, end, new) that do not overlap."""
    return join_pieces(splice_spans(body, replacements))


def splice_spans(body: bytes, replacements: Iterable[tuple[int, int, bytes]]) -> Pieces:
    """The pieces of that text."""
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    at = 0
    for start, end, new in sorted(replacements):
        pieces.append(view[at:start])
        pieces.append(new)
        at = end
    pieces.append(view[at:])
    return pieces
