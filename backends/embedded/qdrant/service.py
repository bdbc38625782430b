"""Qdrant's services as one table: an RPC's path, and the function that answers its request message.

Both listeners call the same functions: gRPC hands the messages through, REST converts JSON to and from them.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from qdrant_client import grpc as pb

from .collections import Collections
from .errors import SNAPSHOTS, Unsupported, WrongInput
from .groups import Groups
from .legacy import discover_query, recommend_groups_query, recommend_query, search_groups_query, search_query
from .matrix import search_matrix, write_offsets
from .reads import Reads
from .store import Store
from .writes import Writes

TITLE = "qdrant - vector search engine"
VERSION = "1.19.0"
"""The Qdrant version whose API this serves; clients compare it with their own."""

Call = Callable[[Any], Any]


def service_calls(store: Store) -> dict[str, Call]:
    """RPC path (`/qdrant.Points/Query`) to the function from request to response message."""
    calls = {
        **_collection_calls(Collections(store)),
        **_write_calls(Writes(store)),
        **_read_calls(store, Reads(store)),
    }
    for name in ("Create", "List", "Delete", "CreateFull", "ListFull", "DeleteFull"):
        calls[f"/qdrant.Snapshots/{name}"] = _refuse_snapshots
    timed = {path: _timed(call) for path, call in calls.items()}
    timed["/qdrant.Qdrant/HealthCheck"] = lambda request: pb.HealthCheckReply(title=TITLE, version=VERSION)
    return timed


def _timed(call: Call) -> Call:
    def answer(request: Any) -> Any:
        start = perf_counter()
        response = call(request)
        response.time = perf_counter() - start
        return response

    return answer


def _refuse_snapshots(request: Any) -> Any:
    raise Unsupported(SNAPSHOTS)


def _collection_calls(collections: Collections) -> dict[str, Call]:
    done = pb.CollectionOperationResponse
    calls: dict[str, Call] = {
        "Create": lambda request: done(result=collections.create(request)),
        "Update": lambda request: done(result=collections.update(request)),
        "Delete": lambda request: done(result=collections.delete(request)),
        "UpdateAliases": lambda request: done(result=collections.change_aliases(request)),
        "Get": lambda request: pb.GetCollectionInfoResponse(result=collections.info(request)),
        "List": lambda request: pb.ListCollectionsResponse(
            collections=[pb.CollectionDescription(name=name) for name in collections.names()]
        ),
        "CollectionExists": lambda request: pb.CollectionExistsResponse(
            result=pb.CollectionExists(exists=collections.exists(request))
        ),
        "ListAliases": lambda request: pb.ListAliasesResponse(aliases=collections.aliases()),
        "ListCollectionAliases": lambda request: pb.ListAliasesResponse(
            aliases=collections.aliases(request.collection_name)
        ),
        "CollectionClusterInfo": collections.cluster,
        "ListShardKeys": lambda request: pb.ListShardKeysResponse(shard_keys=collections.shard_keys(request)),
        "UpdateCollectionClusterSetup": collections.refuse_sharding,
        "CreateShardKey": collections.refuse_sharding,
        "DeleteShardKey": collections.refuse_sharding,
    }
    return {f"/qdrant.Collections/{name}": call for name, call in calls.items()}


def _write_calls(writes: Writes) -> dict[str, Call]:
    single: dict[str, Call] = {
        "Upsert": writes.upsert,
        "Delete": writes.delete,
        "UpdateVectors": writes.update_vectors,
        "DeleteVectors": writes.delete_vectors,
        "SetPayload": writes.set_payload,
        "OverwritePayload": writes.overwrite_payload,
        "DeletePayload": writes.delete_payload,
        "ClearPayload": writes.clear_payload,
        "CreateFieldIndex": writes.create_index,
        "DeleteFieldIndex": writes.delete_index,
        "CreateVectorName": writes.create_vector_name,
        "DeleteVectorName": writes.delete_vector_name,
    }
    calls = {f"/qdrant.Points/{name}": _one_update(write) for name, write in single.items()}
    calls["/qdrant.Points/UpdateBatch"] = lambda request: pb.UpdateBatchResponse(result=writes.update_batch(request))
    return calls


def _one_update(write: Call) -> Call:
    return lambda request: pb.PointsOperationResponse(result=write(request))


def _read_calls(store: Store, reads: Reads) -> dict[str, Call]:
    groups = Groups(store, reads)

    def batch(requests: Any, collection_name: str) -> list[pb.BatchResult]:
        return reads.query_batch(collection_name, same_collection(requests, collection_name))

    calls: dict[str, Call] = {
        "Get": lambda r: pb.GetResponse(result=reads.get(r)),
        "Scroll": lambda r: _scroll(reads, r),
        "Count": lambda r: pb.CountResponse(result=pb.CountResult(count=reads.count(r))),
        "Facet": lambda r: pb.FacetResponse(hits=reads.facet(r)),
        "Query": lambda r: pb.QueryResponse(result=reads.query(r)),
        "QueryBatch": lambda r: pb.QueryBatchResponse(result=batch(r.query_points, r.collection_name)),
        "QueryGroups": lambda r: pb.QueryGroupsResponse(result=groups.query(r)),
        "Search": lambda r: pb.SearchResponse(result=reads.query(search_query(r))),
        "SearchBatch": lambda r: pb.SearchBatchResponse(
            result=batch([search_query(each) for each in r.search_points], r.collection_name)
        ),
        "SearchGroups": lambda r: pb.SearchGroupsResponse(result=groups.query(search_groups_query(r))),
        "Recommend": lambda r: pb.RecommendResponse(result=reads.query(recommend_query(r))),
        "RecommendBatch": lambda r: pb.RecommendBatchResponse(
            result=batch([recommend_query(each) for each in r.recommend_points], r.collection_name)
        ),
        "RecommendGroups": lambda r: pb.RecommendGroupsResponse(result=groups.query(recommend_groups_query(r))),
        "Discover": lambda r: pb.DiscoverResponse(result=reads.query(discover_query(r))),
        "DiscoverBatch": lambda r: pb.DiscoverBatchResponse(
            result=batch([discover_query(each) for each in r.discover_points], r.collection_name)
        ),
        "SearchMatrixPairs": lambda r: pb.SearchMatrixPairsResponse(
            result=pb.SearchMatrixPairs(pairs=search_matrix(store, r))
        ),
        "SearchMatrixOffsets": lambda r: pb.SearchMatrixOffsetsResponse(result=write_offsets(search_matrix(store, r))),
    }
    return {f"/qdrant.Points/{name}": call for name, call in calls.items()}


def same_collection(requests: list[Any], collection_name: str) -> list[Any]:
    """The queries of a batch; raises WrongInput when one names another collection than the batch."""
    for request in requests:
        if request.collection_name not in ("", collection_name):
            raise WrongInput(
                f"A batch on collection `{collection_name}` holds a query on `{request.collection_name}`; send it apart"
            )
    return list(requests)


def _scroll(reads: Reads, request: pb.ScrollPoints) -> pb.ScrollResponse:
    points, following = reads.scroll(request)
    return pb.ScrollResponse(result=points, next_page_offset=following)
