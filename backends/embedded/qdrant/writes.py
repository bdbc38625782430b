"""Changes to points, vectors, payloads and payload indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from qdrant_client import grpc as pb

from .config import DISTANCES, check_vectors, multi_config, read_datatype, read_modifier
from .engine import edge
from .errors import NotFound, WrongInput, engine_errors
from .filters import read_filter
from .indexes import read_index
from .shard import Collection
from .store import Store
from .values import given, read_id, read_payload, read_vectors

_MODES = {
    pb.UpdateMode.Upsert: "Upsert",
    pb.UpdateMode.InsertOnly: "InsertOnly",
    pb.UpdateMode.UpdateOnly: "UpdateOnly",
}


class Writes:
    """Every write of Qdrant's Points service, on the collections of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def upsert(self, request: pb.UpsertPoints) -> pb.UpdateResult:
        """Insert or replace points; each point's vectors and payload are replaced whole."""
        return self._apply(request, lambda collection: [upsert_points(request)])

    def delete(self, request: pb.DeletePoints) -> pb.UpdateResult:
        """Delete points by id or filter."""
        return self._apply(request, lambda collection: [delete_points(request.points)])

    def update_vectors(self, request: pb.UpdatePointVectors) -> pb.UpdateResult:
        """Replace the named vectors of points, leaving the others; raises NotFound for a point that is not there."""
        return self._apply(request, lambda collection: [update_vectors(request)])

    def delete_vectors(self, request: pb.DeletePointVectors) -> pb.UpdateResult:
        """Delete named vectors of points."""
        return self._apply(request, lambda c: [delete_vectors(request.points_selector, request.vectors)])

    def set_payload(self, request: pb.SetPayloadPoints) -> pb.UpdateResult:
        """Set payload keys, leaving the others."""
        return self._apply(request, lambda collection: [set_payload("set_payload", request)])

    def overwrite_payload(self, request: pb.SetPayloadPoints) -> pb.UpdateResult:
        """Replace whole payloads."""
        return self._apply(request, lambda collection: [set_payload("overwrite_payload", request)])

    def delete_payload(self, request: pb.DeletePayloadPoints) -> pb.UpdateResult:
        """Remove payload keys."""
        return self._apply(request, lambda collection: [delete_payload(request)])

    def clear_payload(self, request: pb.ClearPayloadPoints) -> pb.UpdateResult:
        """Remove whole payloads."""
        return self._apply(request, lambda collection: [clear_payload(request.points)])

    def update_batch(self, request: pb.UpdateBatchPoints) -> list[pb.UpdateResult]:
        """Apply operations in order; a failing one stops the batch, those before it stay applied."""
        collection = self._store.collection(request.collection_name)
        with engine_errors():
            operations = [read_operation(operation) for operation in request.operations]
        with collection.writing:
            return [result(request, collection.update(operation)) for operation in operations]

    def create_index(self, request: pb.CreateFieldIndexCollection) -> pb.UpdateResult:
        """Index a payload key."""
        return self._apply(request, lambda c: [edge.UpdateOperation.create_field_index(*read_index(request))])

    def delete_index(self, request: pb.DeleteFieldIndexCollection) -> pb.UpdateResult:
        """Drop the index of a payload key."""
        return self._apply(request, lambda c: [edge.UpdateOperation.delete_field_index(request.field_name)])

    def create_vector_name(self, request: pb.CreateVectorNameRequest) -> pb.UpdateResult:
        """Add a named vector to a collection that exists; its points have none of it yet."""
        collection = self._store.collection(request.collection_name)
        with collection.writing, engine_errors():
            operation, change = new_vector(request)
            self._store.reconfigure(collection, change)
            return result(request, collection.update(operation))

    def delete_vector_name(self, request: pb.DeleteVectorNameRequest) -> pb.UpdateResult:
        """Drop a named vector from a collection and all its points."""
        collection = self._store.collection(request.collection_name)
        with collection.writing, engine_errors():
            number = collection.update(edge.UpdateOperation.delete_vector_name(request.vector_name))
            self._store.reconfigure(collection, lambda config: without_vector(config, request.vector_name))
            return result(request, number)

    def _apply(self, request: Any, read: Callable[[Collection], Iterable[Any]]) -> pb.UpdateResult:
        collection = self._store.collection(request.collection_name)
        with engine_errors():
            operations = read(collection)
        return result(request, [collection.update(operation) for operation in operations][-1])


def result(request: Any, number: int) -> pb.UpdateResult:
    """The answer to a write: it is always applied already; without `wait` Qdrant says no more than acknowledged."""
    status = pb.UpdateStatus.Completed if request.wait else pb.UpdateStatus.Acknowledged
    return pb.UpdateResult(operation_id=number, status=status)


def upsert_points(upsert: Any) -> Any:
    """The engine's upsert for UpsertPoints or a batch's PointStructList."""
    points = [
        edge.Point(read_id(point.id), read_vectors(point.vectors), read_payload(point.payload) or None)
        for point in upsert.points
    ]
    condition = read_filter(upsert.update_filter) if upsert.HasField("update_filter") else None
    mode = getattr(edge.UpdateMode, _MODES[upsert.update_mode]) if upsert.HasField("update_mode") else None
    return edge.UpdateOperation.upsert_points(points, condition, mode)


def update_vectors(update: Any) -> Any:
    """The engine's vector update for UpdatePointVectors or a batch's UpdateVectors."""
    points = [edge.PointVectors(read_id(point.id), read_vectors(point.vectors)) for point in update.points]
    condition = read_filter(update.update_filter) if update.HasField("update_filter") else None
    return edge.UpdateOperation.update_vectors(points, condition)


def by_selector(name: str, selector: pb.PointsSelector, *arguments: Any) -> Any:
    """The engine's operation `name`, or its by-filter twin, for a selector; raises WrongInput for an empty one."""
    match selector.WhichOneof("points_selector_one_of"):
        case "points":
            ids = [read_id(point) for point in selector.points.ids]
            return getattr(edge.UpdateOperation, name)(ids, *arguments)
        case "filter":
            return getattr(edge.UpdateOperation, f"{name}_by_filter")(read_filter(selector.filter), *arguments)
    raise WrongInput(f"{name}: neither point ids nor a filter given; say which points are meant")


def delete_points(selector: pb.PointsSelector) -> Any:
    """The engine's deletion of points."""
    return by_selector("delete_points", selector)


def delete_vectors(selector: pb.PointsSelector, vectors: pb.VectorsSelector) -> Any:
    """The engine's deletion of named vectors."""
    return by_selector("delete_vectors", selector, list(vectors.names))


def set_payload(name: str, request: Any) -> Any:
    """The engine's set_payload or overwrite_payload."""
    return by_selector(name, request.points_selector, read_payload(request.payload), given(request, "key"))


def delete_payload(request: Any) -> Any:
    """The engine's removal of payload keys."""
    return by_selector("delete_payload", request.points_selector, list(request.keys))


def clear_payload(selector: pb.PointsSelector) -> Any:
    """The engine's removal of payloads."""
    return by_selector("clear_payload", selector)


def read_operation(operation: pb.PointsUpdateOperation) -> Any:
    """The engine's form of one operation of a batch."""
    match operation.WhichOneof("operation"):
        case "upsert":
            return upsert_points(operation.upsert)
        case "delete_points":
            return delete_points(operation.delete_points.points)
        case "delete_deprecated":
            return delete_points(operation.delete_deprecated)
        case "set_payload":
            return set_payload("set_payload", operation.set_payload)
        case "overwrite_payload":
            return set_payload("overwrite_payload", operation.overwrite_payload)
        case "delete_payload":
            return delete_payload(operation.delete_payload)
        case "clear_payload":
            return clear_payload(operation.clear_payload.points)
        case "clear_payload_deprecated":
            return clear_payload(operation.clear_payload_deprecated)
        case "update_vectors":
            return update_vectors(operation.update_vectors)
        case "delete_vectors":
            return delete_vectors(operation.delete_vectors.points_selector, operation.delete_vectors.vectors)
    raise WrongInput("Malformed PointsUpdateOperation: none of its kinds is set")


def new_vector(request: pb.CreateVectorNameRequest) -> tuple[Any, Callable[[pb.CollectionConfig], pb.CollectionConfig]]:
    """The engine's operation for a new named vector, and the change of the collection's configuration."""
    name, create = request.vector_name, edge.UpdateOperation
    if request.WhichOneof("vector_config") == "sparse_config":
        sparse = request.sparse_config
        params = pb.SparseVectorParams(modifier=given(sparse, "modifier"))
        if sparse.HasField("datatype"):
            params.index.datatype = sparse.datatype
        operation = create.create_sparse_vector(name, read_modifier(sparse), read_datatype(sparse))
        return operation, lambda config: with_vector(config, name, sparse=params)
    if request.WhichOneof("vector_config") != "dense_config":
        raise WrongInput(f"Vector `{name}`: neither dense_config nor sparse_config given")
    dense = request.dense_config
    multi = dense.multivector_config if dense.HasField("multivector_config") else None
    vector = pb.VectorParams(
        size=dense.size, distance=dense.distance, multivector_config=multi, datatype=given(dense, "datatype")
    )
    check_vectors(
        pb.CollectionParams(vectors_config=pb.VectorsConfig(params_map=pb.VectorParamsMap(map={name: vector})))
    )
    operation = create.create_dense_vector(
        name,
        dense.size,
        getattr(edge.Distance, DISTANCES[dense.distance]),
        multi_config() if multi else None,
        read_datatype(dense),
    )
    return operation, lambda config: with_vector(config, name, dense=vector)


def with_vector(
    config: pb.CollectionConfig,
    name: str,
    dense: pb.VectorParams | None = None,
    sparse: pb.SparseVectorParams | None = None,
) -> pb.CollectionConfig:
    """A copy of a configuration with one more named vector; raises WrongInput where the name is taken."""
    changed = pb.CollectionConfig()
    changed.CopyFrom(config)
    params = changed.params
    if name in params.vectors_config.params_map.map or name in params.sparse_vectors_config.map or not name:
        raise WrongInput(f"Vector name `{name}` is empty or taken; choose another")
    if dense is not None and params.vectors_config.WhichOneof("config") == "params":
        raise WrongInput("This collection has one unnamed vector; named dense vectors cannot be added beside it")
    if dense is not None:
        params.vectors_config.params_map.map[name].CopyFrom(dense)
    if sparse is not None:
        params.sparse_vectors_config.map[name].CopyFrom(sparse)
    return changed


def without_vector(config: pb.CollectionConfig, name: str) -> pb.CollectionConfig:
    """A copy of a configuration without a named vector; raises NotFound when it has none of that name."""
    changed = pb.CollectionConfig()
    changed.CopyFrom(config)
    dense, sparse = changed.params.vectors_config.params_map.map, changed.params.sparse_vectors_config.map
    if name in dense:
        del dense[name]
    elif name in sparse:
        del sparse[name]
    else:
        raise NotFound(f"Vector with name `{name}`")
    return changed
