"""Key-value pairs, as search parameters stand in a request: eight of them in every search, so read without detours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..wire import Span, read_text, scan
from .schema import SHAPES

Params = dict[str, Span]
"""The values of pairs by key; of equal keys the first, as Milvus takes it."""

_PAIR: Final = SHAPES["KeyValuePair"]
_KEY, _VALUE = 1 << 3 | 2, 2 << 3 | 2  # tags


def read_pairs(body: bytes, pairs: Sequence[Span], wanted: frozenset[bytes]) -> Params:
    """The values of the wanted keys. Raises MalformedError where a pair is not a protobuf message."""
    params: Params = {}
    for span in pairs:
        value = _find_plain(body, span)
        if value is not None:
            key = body[span[2] + 2 : value[0]]
            if key in wanted:
                params.setdefault(key.decode(), value)
            continue
        found = scan(body, (span,), _PAIR)
        if "value" in found:
            name = read_text(body, found, "key")
            if name.encode() in wanted:
                params.setdefault(name, found["value"][-1])
    return params


def _find_plain(body: bytes, pair: Span) -> Span | None:
    """The value of a pair written as encoders write it: a key of up to 127 bytes, then a value of up to 16,383."""
    start, end = pair[2], pair[3]
    if end - start < 4 or body[start] != _KEY or body[start + 1] > 127:
        return None
    tag = start + 2 + body[start + 1]
    if tag + 1 >= end or body[tag] != _VALUE:
        return None
    size, at = body[tag + 1], tag + 2
    if size > 127:
        if at >= end or body[at] > 127:
            return None
        size += (body[at] << 7) - 128
        at += 1
    return (tag, tag + 1, at, end, pair, "value") if at + size == end else None
