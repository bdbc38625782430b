"""Milvus's ReadCodec: requests led to another collection, and searches and hits of both transports tied together.

A configured name has the database before it ("DATABASE/NAME") where that is not the default one; the other collection
lies in the same database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import orjson

from ..dialect import NO_CONTEXT, MalformedError, Message, Operation, RequestContext, Transport
from ..json_spans import EVERYTHING, read_number, read_string, replace_spans, scan_json
from ..reading import Asking, Hit, Search
from ..wire import Found, Patch, Span, compile_shapes, encode_varint, read_text, read_uint, rewrite, root_span, scan
from . import hits, others, rest_searching, searching
from .message import MilvusMessage, name_collection, split_collection

_USUAL: Final = "db_name=2:string collection_name=3:string"
_SHAPES: Final = compile_shapes(
    {
        **others.TABLE,
        "": _USUAL,
        "HybridSearchRequest": f"{_USUAL} requests=5:SearchRequest",
        "Reply": "status=1:Status",
        "Status": "error_code=1:enum code=3:uint",
    }
)
_NAMES: Final = ("collection_name", "collection_names", "collectionName", "target_collection_name", "oldName")
_SPARE: Final = 100  # hits beyond those that a client asks for, which a merge may ask for
_DONE: Final = (0, 200)  # codes of success over REST: v2's and v1's


class MilvusReading:
    """See reading.ReadCodec."""

    others: Sequence[Operation] = (*others.GRPC_OTHERS.values(), *others.REST_OTHERS.values())
    squares = True

    def find_other(self, transport: Transport, method: str, path: str) -> Operation | None:
        """The one of `others` that a request line names."""
        return others.find_other(transport, method, path.partition("?")[0])

    def find_collection(
        self, operation: Operation, path: str, body: bytes, context: RequestContext = NO_CONTEXT
    ) -> str | None:
        """The collection that a request of `others` is about."""
        names = others.find_names(operation, body, context)
        return names[0] if len(names) == 1 else None

    def retarget(
        self,
        operation: Operation,
        path: str,
        body: bytes,
        names: Mapping[str, str],
        context: RequestContext = NO_CONTEXT,
    ) -> tuple[str, bytes]:
        """Path and body of any request with collections named otherwise, and everything else as it was."""
        if operation.transport == "rest":
            return path, _rename_json(body, names, context) if body else body
        message = f"{operation.name}Request"
        whole = (root_span(body, message),)
        shape = message if message in _SHAPES else ""
        return path, rewrite(body, list(_rename(body, whole, shape, names, context, "")))

    def find_searches(self, operation: Operation, request: Message) -> Sequence[Search] | None:
        """The searches of a request that consists of nothing but plain ones; None for every other request."""
        if operation.name != "Search":
            return None
        if operation.transport == "grpc":
            return searching.find_searches(_own(request), _SPARE)
        return rest_searching.find_searches(_own(request), _SPARE)

    def split_searches(self, asked: Sequence[tuple[Search, Asking]]) -> Sequence[Sequence[tuple[Search, Asking]]]:
        """Searches among certain rows alone, since a request has one filter; all others together."""
        if any(asking.among is not None for _, asking in asked):
            return [[one] for one in asked]
        return [asked] if asked else []

    def form_searches(self, operation: Operation, request: Message, asked: Sequence[tuple[Search, Asking]]) -> bytes:
        """The request with its searches asked otherwise; those that are not given are left out."""
        if operation.transport == "grpc":
            return searching.form_searches(_own(request), asked)
        return rest_searching.form_searches(_own(request), asked)

    def read_hits(self, operation: Operation, request: Message, body: bytes) -> Sequence[Sequence[Hit]]:
        """The hits of an answer, search by search."""
        if operation.transport == "grpc":
            return hits.read_hits(body)
        return rest_searching.read_hits(body, _own(request).schema)

    def form_hits(self, operation: Operation, request: Message, body: bytes, found: Sequence[Sequence[Hit]]) -> bytes:
        """The answer with these hits in place of its own, each with the score it is given with."""
        if operation.transport == "grpc":
            own = _own(request)
            return hits.form_hits(body, found, searching.read_decimals(own), shows=searching.shows_rows(own))
        return rest_searching.form_hits(body, found[0])

    def refuses(self, operation: Operation, body: bytes) -> bool:
        """Whether an answer says that the request failed: Milvus says so in the answer itself."""
        try:
            if operation.transport == "rest":
                code = read_number(body, scan_json(body, {"code": EVERYTHING}).members.get("code"))
                return code is not None and code not in _DONE
            spans: Sequence[Span] = (root_span(body, "Reply"),)
            if operation.name not in others.STATUS_REPLIES:
                spans = scan(body, spans, _SHAPES["Reply"]).get("status", ())
            status = scan(body, spans, _SHAPES["Status"])
            return any(read_uint(body, status, name) for name in ("error_code", "code"))
        except MalformedError:
            return True


def _own(request: Message) -> MilvusMessage:
    assert isinstance(request, MilvusMessage)  # the dialect reads every request itself
    return request


def _rename(
    body: bytes,
    spans: Sequence[Span],
    shape: str,
    names: Mapping[str, str],
    context: RequestContext,
    database: str,
) -> Iterator[Patch]:
    found = scan(body, spans, _SHAPES[shape])
    database = next((read_text(body, found, name) for name in ("db_name", "target_db_name") if name in found), database)
    for field in _NAMES:
        yield from _rename_field(body, found, field, names, context, database)
    for span in found.get("requests", ()):
        yield from _rename(body, (span,), "", names, context, database)


def _rename_field(
    body: bytes, found: Found, field: str, names: Mapping[str, str], context: RequestContext, database: str
) -> Iterator[Patch]:
    for span in found.get(field, ()):
        name = name_collection(database, read_text(body, {field: [span]}, field), context.headers)
        if name in names:
            encoded = split_collection(names[name])[1].encode()
            yield span[1], span[3], encode_varint(len(encoded)) + encoded, span[4]


def _rename_json(body: bytes, names: Mapping[str, str], context: RequestContext) -> bytes:
    members = scan_json(body, {"collectionName": EVERYTHING, "dbName": EVERYTHING}).members
    given = members.get("collectionName")
    text = read_string(body, given)
    if given is None or text is None:
        return body
    name = name_collection(read_string(body, members.get("dbName")) or "", text, context.headers)
    if name not in names:
        return body
    return replace_spans(body, [(given.start, given.end, orjson.dumps(split_collection(names[name])[1]))])
