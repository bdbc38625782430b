"""gRPC answers of searches: their hits read, each with its row of every column, and other hits put in their place."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from ..dialect import MalformedError
from ..index import PointId
from ..reading import Hit
from ..wire import (
    Found,
    Patch,
    Span,
    compile_shapes,
    encode_field,
    encode_varint,
    path_of,
    read_floats,
    read_ints,
    read_uint,
    rewrite,
    root_span,
    scan,
)
from .cutting import Column, cut_rows, join_rows, read_column, write_column

TABLE: Final = {
    "SearchResults": "results=2:SearchResultData",
    "SearchResultData": (
        "num_queries=1:uint top_k=2:uint fields_data=3:FieldData scores=4:floats ids=5:IDs topks=6:uints "
        "output_fields=7:string group_by_field_value=8:FieldData distances=10:floats recalls=12:floats "
        "highlight_results=14:HighlightResult element_indices=15:LongArray group_by_field_values=17:FieldData "
        "agg_buckets=18:AggBucket"
    ),
    "IDs": "int_id=1:LongArray|id_field str_id=2:StringArray|id_field",
    "LongArray": "data=1:uints",
    "StringArray": "data=1:string",
}
_SHAPES: Final = compile_shapes(TABLE)
_UNKNOWN: Final = (
    "group_by_field_value", "group_by_field_values", "highlight_results", "element_indices", "agg_buckets",
)  # fmt: skip
# What other hits make untrue: the rest of an answer stays.
_REPLACED: Final = ("top_k", "fields_data", "scores", "ids", "topks", "output_fields", "distances", "recalls")


def read_hits(body: bytes) -> list[list[Hit]]:
    """The hits of each query; a hit's `raw` is a SearchResultData of its row alone. Raises MalformedError."""
    found = _read_results(body)
    unknown = [name for name in _UNKNOWN if name in found]
    if unknown:
        raise MalformedError(f"the answer has {unknown[0]}, which cannot be cut by row")
    ids = _read_ids(body, found)
    scores = read_floats(body, found["scores"]).tolist() if "scores" in found else []
    counts = read_ints(body, found.get("topks", ())) or [0] * (read_uint(body, found, "num_queries") or 0)
    if not len(ids) == len(scores) == sum(counts):
        raise MalformedError(f"the answer has {len(ids)} ids and {len(scores)} scores for {sum(counts)} hits")
    rows = _read_rows(body, found, len(ids))
    hits = iter([Hit(point, score, raw) for point, score, raw in zip(ids, scores, rows, strict=True)])
    return [[next(hits) for _ in range(count)] for count in counts]


def _read_results(body: bytes) -> Found:
    results = scan(body, (root_span(body, "SearchResults"),), _SHAPES["SearchResults"]).get("results", ())
    return scan(body, results, _SHAPES["SearchResultData"])


def _read_ids(body: bytes, found: Found) -> Sequence[PointId]:
    ids = scan(body, found.get("ids", ()), _SHAPES["IDs"])
    if "int_id" in ids:
        return read_ints(body, scan(body, ids["int_id"], _SHAPES["LongArray"]).get("data", ()))
    spans: Sequence[Span] = scan(body, ids.get("str_id", ()), _SHAPES["StringArray"]).get("data", ())
    try:
        return [body[span[2] : span[3]].decode() for span in spans]
    except UnicodeDecodeError as error:
        raise MalformedError(f"{path_of(spans[0])}: an id is not UTF-8: {error}") from None


def _read_rows(body: bytes, found: Found, count: int) -> list[bytes]:
    """Each row as a message."""
    names = b"".join(encode_field(7, body[span[2] : span[3]]) for span in found.get("output_fields", ()))
    columns = [cut_rows(read_column(body, span), count) for span in found.get("fields_data", ())] if count else []
    return [b"".join(encode_field(3, write_column(column[row])) for column in columns) + names for row in range(count)]


def form_hits(body: bytes, hits: Sequence[Sequence[Hit]], decimals: int, *, shows: bool) -> bytes:
    """The answer with these hits in place of its own, and with their rows if it `shows` any.

    `decimals` of its scores are kept (negative: all). Raises MalformedError for rows that cannot be put together.
    """
    every = [hit for one in hits for hit in one]
    results = scan(body, (root_span(body, "SearchResults"),), _SHAPES["SearchResults"]).get("results", ())
    found = scan(body, results, _SHAPES["SearchResultData"])
    patches: list[Patch] = [
        (span[0], span[3], b"", span[4]) for name in _REPLACED for span in found.get(name, ())
    ]  # fmt: skip
    scores = [hit.score if decimals < 0 else round(hit.score, decimals) for hit in every]
    new = b"\x10" + encode_varint(max(map(len, hits), default=0))
    new += _join_rows([hit.raw for hit in every]) if shows and every else b""
    new += encode_field(4, struct.pack(f"<{len(scores)}f", *scores)) + encode_field(5, _write_ids(every))
    new += encode_field(6, b"".join(encode_varint(len(one)) for one in hits))
    if not results:
        raise MalformedError("the answer has no results")
    end = results[-1]
    return rewrite(body, [*patches, (end[3], end[3], new, end)])


def _write_ids(hits: Sequence[Hit]) -> bytes:
    """An IDs."""
    texts = [hit.id for hit in hits if isinstance(hit.id, str)]
    numbers = [hit.id for hit in hits if isinstance(hit.id, int)]
    if texts:
        return encode_field(2, b"".join(encode_field(1, one.encode()) for one in texts))
    data = b"".join(encode_varint(one & (1 << 64) - 1) for one in numbers)
    return encode_field(1, encode_field(1, data) if data else b"")


def _join_rows(raws: Sequence[bytes]) -> bytes:
    """Columns and their names, of rows that each are a message; rows may have their columns in any order."""
    rows: list[dict[bytes, Column]] = []
    for raw in raws:
        found = scan(raw, (root_span(raw, "SearchResultData"),), _SHAPES["SearchResultData"])
        columns = [read_column(raw, span) for span in found.get("fields_data", ())]
        rows.append({_name(column.head): column for column in columns})
    if any(row.keys() != rows[0].keys() for row in rows):
        raise MalformedError("rows with different columns cannot be put together")
    joined = [join_rows([row[name] for row in rows]) for name in rows[0]]
    raw = raws[0]
    names = scan(raw, (root_span(raw, "SearchResultData"),), _SHAPES["SearchResultData"]).get("output_fields", ())
    return b"".join(encode_field(3, write_column(column)) for column in joined) + b"".join(
        encode_field(7, raw[span[2] : span[3]]) for span in names
    )


def _name(head: bytes) -> bytes:
    """What tells a column from the others of its row: its name."""
    spans = scan(head, (root_span(head, "FieldData"),), _NAMED["FieldData"]).get("field_name", ())
    return head[spans[-1][2] : spans[-1][3]] if spans else b""


_NAMED: Final = compile_shapes({"FieldData": "field_name=2:string"})
