"""gRPC answers of searches: their hits read, and other hits put in their place."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from ..dialect import MalformedError, Operation
from ..index import PointId
from ..reading import Hit
from ..wire import Patch, Span, compile_shapes, encode_field, read_float, read_text, read_uint, rewrite, root_span, scan

TABLE: Final = {
    "SearchResponse": "result=1:ScoredPoint",
    "SearchBatchResponse": "result=1:BatchResult",
    "QueryResponse": "result=1:ScoredPoint",
    "QueryBatchResponse": "result=1:BatchResult",
    "BatchResult": "result=1:ScoredPoint",
    "ScoredPoint": "id=1:PointId score=3:float",
    "PointId": "num=1:uint|point_id_options uuid=2:string|point_id_options",
}
_SHAPES: Final = compile_shapes(TABLE)


def read_hits(operation: Operation, body: bytes) -> list[list[Hit]]:
    """The hits of an answer, search by search. Raises MalformedError."""
    results = _results(operation, body)
    if not operation.name.endswith("Batch"):
        return [[_read_hit(body, span) for span in results]]
    shape = _SHAPES["BatchResult"]
    return [[_read_hit(body, one) for one in scan(body, (span,), shape).get("result", ())] for span in results]


def _results(operation: Operation, body: bytes) -> Sequence[Span]:
    message = f"{operation.name}Response"
    return scan(body, (root_span(body, message),), _SHAPES[message]).get("result", ())


def _read_hit(body: bytes, span: Span) -> Hit:
    found = scan(body, (span,), _SHAPES["ScoredPoint"])
    score = read_float(body, found["score"][-1]) if "score" in found else 0.0
    return Hit(_read_id(body, found.get("id", ())), score, body[span[2] : span[3]])


def _read_id(body: bytes, spans: Sequence[Span]) -> PointId:
    found = scan(body, spans, _SHAPES["PointId"])
    if "uuid" in found:
        return read_text(body, found, "uuid")
    number = read_uint(body, found, "num")
    if number is None:
        raise MalformedError("a hit has no id")
    return number


def form_hits(operation: Operation, body: bytes, hits: Sequence[Sequence[Hit]]) -> bytes:
    """The answer with these hits in place of its own."""
    patches: list[Patch] = [(span[0], span[3], b"", span[4]) for span in _results(operation, body)]
    lists = [b"".join(encode_field(1, _with_score(hit)) for hit in one) for one in hits]
    new = b"".join(encode_field(1, one) for one in lists) if operation.name.endswith("Batch") else lists[0]
    return rewrite(body, [(0, 0, new, None), *patches])


def _with_score(hit: Hit) -> bytes:
    raw, score = hit.raw, struct.pack("<f", hit.score)
    spans = scan(raw, (root_span(raw, "ScoredPoint"),), _SHAPES["ScoredPoint"]).get("score", [])
    if len(spans) == 1:
        return raw[: spans[0][2]] + score + raw[spans[0][3] :]
    removed: list[Patch] = [(span[0], span[3], b"", None) for span in spans]
    return rewrite(raw, [*removed, (len(raw), len(raw), b"\x1d" + score, None)])
