"""The paths of Qdrant's REST API: for each the RPC behind it, how its body is read and how its answer is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qdrant_client import grpc as pb

from . import rest_answers as answers
from . import rest_legacy as legacy
from . import rest_requests as requests
from .errors import NotFound
from .values import read_id

Read = Callable[[bytes], Any]
Write = Callable[[Any, Any], Any]
"""From request and response message to the JSON of `result`."""


@dataclass(frozen=True)
class Operation:
    """One path of the API: the RPC behind it, how its body is read, and how its answer is written."""

    method: str
    path: str
    rpc: str
    read: Read
    write: Write


def wants_payload(request: Any) -> bool:
    """Whether a request asked for payloads."""
    wanted = request.with_payload
    return bool(wanted.enable) or wanted.WhichOneof("selector_options") in {"include", "exclude"}


def _points(request: Any, response: Any) -> Any:
    return answers.points(response.result, wants_payload(request))


def _queried(request: Any, response: Any) -> Any:
    return {"points": _points(request, response)}


def _query_batch(request: pb.QueryBatchPoints, response: pb.QueryBatchResponse) -> Any:
    pairs = zip(request.query_points, response.result, strict=True)
    return [{"points": answers.points(each.result, wants_payload(query))} for query, each in pairs]


def _legacy_batch(request: pb.QueryBatchPoints, response: pb.QueryBatchResponse) -> Any:
    return [answer["points"] for answer in _query_batch(request, response)]


def _groups(request: Any, response: Any) -> Any:
    lookup = request.with_lookup
    lookup_payload = wants_payload(lookup) if lookup.HasField("with_payload") else True
    return answers.groups(response.result, wants_payload(request), lookup_payload)


def _one_point(request: pb.GetPoints, response: pb.GetResponse) -> Any:
    if not response.result:
        point = request.ids[0]
        raise NotFound(f"Point with id {point.num if point.HasField('num') else point.uuid} does not exists!")
    return answers.points(response.result, True)[0]


def _scrolled(request: pb.ScrollPoints, response: pb.ScrollResponse) -> Any:
    following = read_id(response.next_page_offset) if response.HasField("next_page_offset") else None
    return {"points": _points(request, response), "next_page_offset": following}


def _updated(request: Any, response: Any) -> Any:
    return answers.update(response.result)


def _plain(request: Any, response: Any) -> Any:
    return response.result


def _empty(message: Callable[[], Any]) -> Read:
    return lambda body: message()


def _whole_point(body: bytes) -> pb.GetPoints:
    return pb.GetPoints(
        with_payload=pb.WithPayloadSelector(enable=True), with_vectors=pb.WithVectorsSelector(enable=True)
    )


_C = "/collections/{collection_name}"
_P = f"{_C}/points"
_COLLECTIONS = "/qdrant.Collections/"
_POINTS = "/qdrant.Points/"

OPERATIONS = (
    Operation(
        "GET",
        "/collections",
        f"{_COLLECTIONS}List",
        _empty(pb.ListCollectionsRequest),
        lambda q, r: {"collections": [{"name": item.name} for item in r.collections]},
    ),
    Operation("POST", "/collections/aliases", f"{_COLLECTIONS}UpdateAliases", requests.change_aliases, _plain),
    Operation(
        "GET",
        "/aliases",
        f"{_COLLECTIONS}ListAliases",
        _empty(pb.ListAliasesRequest),
        lambda q, r: answers.aliases(r.aliases),
    ),
    Operation(
        "GET", _C, f"{_COLLECTIONS}Get", _empty(pb.GetCollectionInfoRequest), lambda q, r: answers.info(r.result)
    ),
    Operation("PUT", _C, f"{_COLLECTIONS}Create", requests.create_collection, _plain),
    Operation("PATCH", _C, f"{_COLLECTIONS}Update", requests.update_collection, _plain),
    Operation("DELETE", _C, f"{_COLLECTIONS}Delete", _empty(pb.DeleteCollection), _plain),
    Operation(
        "GET",
        f"{_C}/exists",
        f"{_COLLECTIONS}CollectionExists",
        _empty(pb.CollectionExistsRequest),
        lambda q, r: {"exists": r.result.exists},
    ),
    Operation(
        "GET",
        f"{_C}/aliases",
        f"{_COLLECTIONS}ListCollectionAliases",
        _empty(pb.ListCollectionAliasesRequest),
        lambda q, r: answers.aliases(r.aliases),
    ),
    Operation(
        "GET",
        f"{_C}/cluster",
        f"{_COLLECTIONS}CollectionClusterInfo",
        _empty(pb.CollectionClusterInfoRequest),
        lambda q, r: answers.cluster(r),
    ),
    Operation("PUT", f"{_C}/index", f"{_POINTS}CreateFieldIndex", requests.create_index, _updated),
    Operation(
        "DELETE",
        f"{_C}/index/{{field_name}}",
        f"{_POINTS}DeleteFieldIndex",
        _empty(pb.DeleteFieldIndexCollection),
        _updated,
    ),
    Operation(
        "PUT", f"{_C}/vectors/{{vector_name}}", f"{_POINTS}CreateVectorName", requests.create_vector_name, _updated
    ),
    Operation(
        "DELETE",
        f"{_C}/vectors/{{vector_name}}",
        f"{_POINTS}DeleteVectorName",
        _empty(pb.DeleteVectorNameRequest),
        _updated,
    ),
    Operation("PUT", _P, f"{_POINTS}Upsert", requests.upsert, _updated),
    Operation("POST", _P, f"{_POINTS}Get", requests.get_points, _points),
    Operation("POST", f"{_P}/delete", f"{_POINTS}Delete", requests.delete_points, _updated),
    Operation("PUT", f"{_P}/vectors", f"{_POINTS}UpdateVectors", requests.update_vectors, _updated),
    Operation("POST", f"{_P}/vectors/delete", f"{_POINTS}DeleteVectors", requests.delete_vectors, _updated),
    Operation("POST", f"{_P}/payload", f"{_POINTS}SetPayload", requests.set_payload, _updated),
    Operation("PUT", f"{_P}/payload", f"{_POINTS}OverwritePayload", requests.set_payload, _updated),
    Operation("POST", f"{_P}/payload/delete", f"{_POINTS}DeletePayload", requests.delete_payload, _updated),
    Operation("POST", f"{_P}/payload/clear", f"{_POINTS}ClearPayload", requests.clear_payload, _updated),
    Operation(
        "POST",
        f"{_P}/batch",
        f"{_POINTS}UpdateBatch",
        requests.update_batch,
        lambda q, r: [answers.update(item) for item in r.result],
    ),
    Operation("POST", f"{_P}/scroll", f"{_POINTS}Scroll", requests.scroll, _scrolled),
    Operation("POST", f"{_P}/count", f"{_POINTS}Count", requests.count, lambda q, r: {"count": r.result.count}),
    Operation("POST", f"{_C}/facet", f"{_POINTS}Facet", requests.facet, lambda q, r: answers.facet(r.hits)),
    Operation("POST", f"{_P}/query", f"{_POINTS}Query", requests.query, _queried),
    Operation("POST", f"{_P}/query/batch", f"{_POINTS}QueryBatch", requests.query_batch, _query_batch),
    Operation("POST", f"{_P}/query/groups", f"{_POINTS}QueryGroups", requests.query_groups, _groups),
    Operation(
        "POST",
        f"{_P}/search/matrix/pairs",
        f"{_POINTS}SearchMatrixPairs",
        requests.matrix,
        lambda q, r: answers.pairs(r.result),
    ),
    Operation(
        "POST",
        f"{_P}/search/matrix/offsets",
        f"{_POINTS}SearchMatrixOffsets",
        requests.matrix,
        lambda q, r: answers.offsets(r.result),
    ),
    Operation("GET", f"{_P}/{{id}}", f"{_POINTS}Get", _whole_point, _one_point),
    Operation("POST", f"{_P}/search", f"{_POINTS}Query", legacy.single(legacy.Search), _points),
    Operation("POST", f"{_P}/search/batch", f"{_POINTS}QueryBatch", legacy.batch(legacy.Search), _legacy_batch),
    Operation("POST", f"{_P}/search/groups", f"{_POINTS}QueryGroups", legacy.groups(legacy.SearchGroups), _groups),
    Operation("POST", f"{_P}/recommend", f"{_POINTS}Query", legacy.single(legacy.Recommend), _points),
    Operation("POST", f"{_P}/recommend/batch", f"{_POINTS}QueryBatch", legacy.batch(legacy.Recommend), _legacy_batch),
    Operation(
        "POST", f"{_P}/recommend/groups", f"{_POINTS}QueryGroups", legacy.groups(legacy.RecommendGroups), _groups
    ),
    Operation("POST", f"{_P}/discover", f"{_POINTS}Query", legacy.single(legacy.Discover), _points),
    Operation("POST", f"{_P}/discover/batch", f"{_POINTS}QueryBatch", legacy.batch(legacy.Discover), _legacy_batch),
)
