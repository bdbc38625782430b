"""Bodies of Qdrant's REST API to request messages.

Shapes are checked by qdrant-client's own models of the API; `Bodies` of legacy calls, which newer clients no longer
know, are modelled here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from qdrant_client import grpc as pb
from qdrant_client.conversions.conversion import RestToGrpc
from qdrant_client.http import models

from .errors import Unreadable
from .values import write_payload

M = TypeVar("M")

NAMES = {"with_vector": "with_vectors", "shard_key": "shard_key_selector", "vector_name": "using"}
CONVERT: dict[str, Callable[[Any], Any]] = {
    "filter": RestToGrpc.convert_filter,
    "update_filter": RestToGrpc.convert_filter,
    "params": RestToGrpc.convert_search_params,
    "with_payload": RestToGrpc.convert_with_payload_interface,
    "with_vector": RestToGrpc.convert_with_vectors,
    "with_vectors": RestToGrpc.convert_with_vectors,
    "shard_key": RestToGrpc.convert_shard_key_selector,
    "lookup_from": RestToGrpc.convert_lookup_location,
    "order_by": RestToGrpc.convert_order_by_interface,
    "update_mode": RestToGrpc.convert_update_mode,
    "offset": lambda offset: offset,
    "query": RestToGrpc.convert_query_interface,
    "with_lookup": lambda lookup: RestToGrpc.convert_with_lookup(
        models.WithLookup(collection=lookup, with_payload=True, with_vectors=False)
        if isinstance(lookup, str)
        else lookup
    ),
}


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def parse(shape: Any, body: bytes) -> Any:
    """The body as the model `shape`; raises Unreadable (400) naming the first thing that does not fit."""
    try:
        return _adapter(shape).validate_json(body)
    except ValidationError as error:
        raise Unreadable(f"Format error in JSON body: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """The deepest complaint of a validation, with its place in the body: unions complain once for each member."""
    found = max(error.errors(include_url=False, include_context=False), key=lambda item: len(item["loc"]))
    place = ".".join(str(step) for step in found["loc"])
    return f"{found['msg']} at {place}" if place else str(found["msg"])


def fill(message: M, model: BaseModel, *names: str) -> M:
    """Copy the named fields of a model that were given into a message, converted where the two differ."""
    for name in names:
        value = getattr(model, name)
        if value is None:
            continue
        value = CONVERT.get(name, lambda plain: plain)(value)
        target = NAMES.get(name, name)
        if hasattr(value, "DESCRIPTOR"):
            getattr(message, target).CopyFrom(value)
        else:
            setattr(message, target, value)
    return message


_SHARED = ("using", "filter", "params", "score_threshold", "with_payload", "with_vector", "lookup_from", "shard_key")


def ids_of(model: Any) -> list[pb.PointId]:
    """The protobuf of a list of ids."""
    return [RestToGrpc.convert_extended_point_id(point) for point in model]


def selector(model: Any) -> pb.PointsSelector | None:
    """The points a write means, by `points` or `filter`."""
    if model.points is not None:
        return RestToGrpc.convert_points_selector(models.PointIdsList(points=model.points))
    if model.filter is not None:
        return RestToGrpc.convert_points_selector(models.FilterSelector(filter=model.filter))
    return None


def upsert(body: bytes) -> pb.UpsertPoints:
    model = parse(models.PointInsertOperations, body)
    request = pb.UpsertPoints(points=RestToGrpc.convert_point_insert_operation(model))
    return fill(request, model, "update_filter", "update_mode", "shard_key")


def delete_points(body: bytes) -> pb.DeletePoints:
    return pb.DeletePoints(points=RestToGrpc.convert_points_selector(parse(models.PointsSelector, body)))


def update_vectors(body: bytes) -> pb.UpdatePointVectors:
    model = parse(models.UpdateVectors, body)
    request = pb.UpdatePointVectors(points=[RestToGrpc.convert_point_vectors(point) for point in model.points])
    return fill(request, model, "update_filter", "shard_key")


def delete_vectors(body: bytes) -> pb.DeletePointVectors:
    model = parse(models.DeleteVectors, body)
    return pb.DeletePointVectors(points_selector=selector(model), vectors=pb.VectorsSelector(names=model.vector))


def set_payload(body: bytes) -> pb.SetPayloadPoints:
    model = parse(models.SetPayload, body)
    payload = RestToGrpc.convert_payload(model.payload)
    return pb.SetPayloadPoints(payload=payload, points_selector=selector(model), key=model.key)


def delete_payload(body: bytes) -> pb.DeletePayloadPoints:
    model = parse(models.DeletePayload, body)
    return pb.DeletePayloadPoints(keys=model.keys, points_selector=selector(model))


def clear_payload(body: bytes) -> pb.ClearPayloadPoints:
    return pb.ClearPayloadPoints(points=RestToGrpc.convert_points_selector(parse(models.PointsSelector, body)))


def update_batch(body: bytes) -> pb.UpdateBatchPoints:
    model = parse(models.UpdateOperations, body)
    return pb.UpdateBatchPoints(operations=[RestToGrpc.convert_update_operation(item) for item in model.operations])


def get_points(body: bytes) -> pb.GetPoints:
    model = parse(models.PointRequest, body)
    request = pb.GetPoints(ids=ids_of(model.ids), with_payload=pb.WithPayloadSelector(enable=True))
    return fill(request, model, "with_payload", "with_vector", "shard_key")


def scroll(body: bytes) -> pb.ScrollPoints:
    model = parse(models.ScrollRequest, body)
    request = pb.ScrollPoints(with_payload=pb.WithPayloadSelector(enable=True), limit=model.limit)
    if model.offset is not None:
        request.offset.CopyFrom(RestToGrpc.convert_extended_point_id(model.offset))
    return fill(request, model, "filter", "with_payload", "with_vector", "order_by", "shard_key")


def count(body: bytes) -> pb.CountPoints:
    model = parse(models.CountRequest, body)
    return fill(pb.CountPoints(exact=True), model, "filter", "exact", "shard_key")


def facet(body: bytes) -> pb.FacetCounts:
    model = parse(models.FacetRequest, body)
    return fill(pb.FacetCounts(key=model.key), model, "filter", "limit", "exact", "shard_key")


def query(body: bytes) -> pb.QueryPoints:
    return plain_query(parse(models.QueryRequest, body))


def plain_query(model: models.QueryRequest) -> pb.QueryPoints:
    """The message of a universal query."""
    return RestToGrpc.convert_query_request(model, "")


def query_batch(body: bytes) -> pb.QueryBatchPoints:
    model = parse(models.QueryRequestBatch, body)
    return pb.QueryBatchPoints(query_points=[plain_query(search) for search in model.searches])


def query_groups(body: bytes) -> pb.QueryPointGroups:
    return grouped(parse(models.QueryGroupsRequest, body))


def grouped(model: models.QueryGroupsRequest) -> pb.QueryPointGroups:
    """The message of a grouped query."""
    given = model.prefetch
    prefetches = [] if given is None else given if isinstance(given, list) else [given]
    request = pb.QueryPointGroups(prefetch=[RestToGrpc.convert_prefetch_query(item) for item in prefetches])
    return fill(request, model, *_SHARED, "query", "limit", "group_size", "group_by", "with_lookup")


def matrix(body: bytes) -> pb.SearchMatrixPoints:
    model = parse(models.SearchMatrixRequest, body)
    return fill(pb.SearchMatrixPoints(), model, "filter", "sample", "limit", "using", "shard_key")


def create_collection(body: bytes) -> pb.CreateCollection:
    model = parse(models.CreateCollection, body)
    request = pb.CreateCollection()
    converters: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
        "vectors": ("vectors_config", RestToGrpc.convert_vectors_config),
        "sparse_vectors": ("sparse_vectors_config", RestToGrpc.convert_sparse_vector_config),
        "hnsw_config": ("hnsw_config", RestToGrpc.convert_hnsw_config_diff),
        "wal_config": ("wal_config", RestToGrpc.convert_wal_config_diff),
        "optimizers_config": ("optimizers_config", RestToGrpc.convert_optimizers_config_diff),
        "quantization_config": ("quantization_config", RestToGrpc.convert_quantization_config),
        "strict_mode_config": ("strict_mode_config", RestToGrpc.convert_strict_mode_config),
        "payload": ("payload", RestToGrpc.convert_payload_storage_params),
        "id_tracker": ("id_tracker", RestToGrpc.convert_id_tracker_params),
    }
    for name, (target, convert) in converters.items():
        value = getattr(model, name, None)
        if value is not None:
            getattr(request, target).CopyFrom(convert(value))
    if model.sharding_method is not None:
        request.sharding_method = pb.ShardingMethod.Value(model.sharding_method.value.capitalize())
    write_payload(getattr(model, "metadata", None), request.metadata)
    return fill(request, model, "shard_number", "replication_factor", "write_consistency_factor", "on_disk_payload")


def update_collection(body: bytes) -> pb.UpdateCollection:
    return RestToGrpc.convert_update_collection(parse(models.UpdateCollection, body), "")


def change_aliases(body: bytes) -> pb.ChangeAliases:
    model = parse(models.ChangeAliasesOperation, body)
    return pb.ChangeAliases(actions=[RestToGrpc.convert_alias_operations(action) for action in model.actions])


def create_index(body: bytes) -> pb.CreateFieldIndexCollection:
    model = parse(models.CreateFieldIndex, body)
    request = pb.CreateFieldIndexCollection(field_name=model.field_name)
    schema = model.field_schema
    if isinstance(schema, models.PayloadSchemaType):
        request.field_type = pb.FieldType.Value(f"FieldType{schema.value.capitalize()}")
    elif schema is not None:
        request.field_index_params.CopyFrom(RestToGrpc.convert_payload_schema_params(schema))
    return request


def read_datatype(datatype: models.VectorStorageDatatype) -> Any:
    """The protobuf's name of a storage type."""
    return pb.Datatype.Value(datatype.value.capitalize())


def create_vector_name(body: bytes) -> pb.CreateVectorNameRequest:
    model = parse(models.VectorNameConfig, body)
    request = pb.CreateVectorNameRequest()
    if isinstance(model, models.DenseVectorNameConfig):
        dense = model.dense
        request.dense_config.size = dense.size
        request.dense_config.distance = RestToGrpc.convert_distance(dense.distance)
        if dense.multivector_config is not None:
            request.dense_config.multivector_config.CopyFrom(
                RestToGrpc.convert_multivector_config(dense.multivector_config)
            )
        if dense.datatype is not None:
            request.dense_config.datatype = read_datatype(dense.datatype)
        return request
    request.sparse_config.SetInParent()
    if model.sparse.modifier is not None:
        request.sparse_config.modifier = RestToGrpc.convert_modifier(model.sparse.modifier)
    if model.sparse.datatype is not None:
        request.sparse_config.datatype = read_datatype(model.sparse.datatype)
    return request
