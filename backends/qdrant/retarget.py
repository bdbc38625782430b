"""Requests that name a collection otherwise: in their path, in `collection_name`, and wherever points are looked up.

Of a batch the collection of the batch itself counts; those named inside are renamed along, so that both still agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import quote, unquote

import orjson

from ..dialect import Operation
from ..json_spans import EVERYTHING, Value, Wanted, read_string, replace_spans, scan_json
from ..wire import Found, Patch, Span, compile_shapes, encode_varint, read_text, rewrite, root_span, scan

TABLE: Final = {
    "LookupLocation": "collection_name=1:string",
    "WithLookup": "collection=1:string",
    "PrefetchQuery": "prefetch=1:PrefetchQuery lookup_from=8:LookupLocation",
    "QueryPoints": "collection_name=1:string prefetch=2:PrefetchQuery lookup_from=14:LookupLocation",
    "QueryPointGroups": (
        "collection_name=1:string prefetch=2:PrefetchQuery lookup_from=10:LookupLocation with_lookup=15:WithLookup"
    ),
    "QueryBatchPoints": "collection_name=1:string query_points=2:QueryPoints",
    "RecommendPoints": "collection_name=1:string lookup_from=13:LookupLocation",
    "RecommendPointGroups": "collection_name=1:string lookup_from=11:LookupLocation with_lookup=15:WithLookup",
    "RecommendBatchPoints": "collection_name=1:string recommend_points=2:RecommendPoints",
    "DiscoverPoints": "collection_name=1:string lookup_from=11:LookupLocation",
    "DiscoverBatchPoints": "collection_name=1:string discover_points=2:DiscoverPoints",
    "SearchPointGroups": "collection_name=1:string with_lookup=13:WithLookup",
    "SearchBatchPoints": "collection_name=1:string search_points=2:SearchPoints",
    "ChangeAliases": "actions=1:AliasOperations",
    "AliasOperations": (
        "create_alias=1:CreateAlias|action rename_alias=2:RenameAlias|action delete_alias=3:DeleteAlias|action"
    ),
    "CreateAlias": "collection_name=1:string",
    "GetPoints": "collection_name=1:string",  # and every message not listed here
}
_SHAPES: Final = compile_shapes(TABLE)
_MESSAGES: Final = {
    "Query": "QueryPoints",
    "QueryGroups": "QueryPointGroups",
    "QueryBatch": "QueryBatchPoints",
    "Recommend": "RecommendPoints",
    "RecommendGroups": "RecommendPointGroups",
    "RecommendBatch": "RecommendBatchPoints",
    "Discover": "DiscoverPoints",
    "DiscoverBatch": "DiscoverBatchPoints",
    "SearchGroups": "SearchPointGroups",
    "SearchBatch": "SearchBatchPoints",
    "UpdateAliases": "ChangeAliases",
}
_BELOW: Final = {  # the message of a field that holds others, or looks points up
    "prefetch": "PrefetchQuery",
    "lookup_from": "LookupLocation",
    "with_lookup": "WithLookup",
    "query_points": "QueryPoints",
    "recommend_points": "RecommendPoints",
    "discover_points": "DiscoverPoints",
    "search_points": "GetPoints",
    "actions": "AliasOperations",
    "create_alias": "CreateAlias",
}
_REPEATED: Final = ("prefetch", "actions", "query_points", "recommend_points", "discover_points", "search_points")
_LOOKUP: Final[dict[str, Wanted]] = {"collection": EVERYTHING}
_LEVEL: Final[dict[str, Wanted]] = {"lookup_from": _LOOKUP}
_LEVEL["prefetch"] = _LEVEL
_REQUEST: Final[dict[str, Wanted]] = {**_LEVEL, "with_lookup": _LOOKUP}
_WANTED: Final[dict[str, Wanted]] = {
    **_REQUEST,
    "searches": _REQUEST,
    "actions": {"create_alias": {"collection_name": EVERYTHING}},
}
_NAMING: Final = (b"lookup", b"collection_name", b"\\")  # keys that name a collection, or may after unescaping


def retarget(operation: Operation, path: str, body: bytes, names: Mapping[str, str]) -> tuple[str, bytes]:
    """Path and body with these collections named otherwise. Raises MalformedError."""
    if operation.transport == "rest":
        # In REST the path alone names a batch's collection, and its searches look nothing up.
        names_more = operation.name in _MESSAGES and operation.name != "SearchBatch"
        looks_up = names_more and any(key in body for key in _NAMING)
        return _rename_path(path, names), _rename_json(body, names) if looks_up else body
    message = _MESSAGES.get(operation.name, "GetPoints")
    return path, rewrite(body, list(_patch_message(body, (root_span(body, message),), message, names)))


def _rename_path(path: str, names: Mapping[str, str]) -> str:
    parts = path.split("/", 3)
    if len(parts) < 3 or parts[2] == "aliases" or (renamed := names.get(unquote(parts[2]))) is None:
        return path
    parts[2] = quote(renamed, safe="")
    return "/".join(parts)


def _patch_message(body: bytes, spans: Sequence[Span], message: str, names: Mapping[str, str]) -> Iterator[Patch]:
    found = scan(body, spans, _SHAPES[message])
    for field, places in found.items():
        if field in ("collection", "collection_name"):
            yield from _patch_name(body, found, field, names)
        elif (below := _BELOW.get(field)) is not None:
            for part in [(place,) for place in places] if field in _REPEATED else [places]:
                yield from _patch_message(body, part, below, names)


def _patch_name(body: bytes, found: Found, field: str, names: Mapping[str, str]) -> Iterator[Patch]:
    renamed = names.get(read_text(body, found, field))
    if renamed is not None:
        _, prefix, _, end, parent, _ = found[field][-1]
        encoded = renamed.encode()
        yield prefix, end, encode_varint(len(encoded)) + encoded, parent


def _rename_json(body: bytes, names: Mapping[str, str]) -> bytes:
    return replace_spans(body, list(_find_names(body, scan_json(body, _WANTED), names)))


def _find_names(body: bytes, value: Value, names: Mapping[str, str]) -> Iterator[tuple[int, int, bytes]]:
    for element in value.elements:
        yield from _find_names(body, element, names)
    for key, member in value.members.items():
        if member.kind in ("object", "array"):
            yield from _find_names(body, member, names)
        elif key in ("collection", "collection_name", "with_lookup"):
            named = read_string(body, member)
            if named is not None and named in names:
                yield member.start, member.end, orjson.dumps(names[named])
