"""What a collection is made of: the protobuf that clients send and see, and what the engine is told.

`pb.CollectionConfig` is the one form kept: it is answered to clients and written to the catalog; the engine's own
configuration is derived from it.
"""

from __future__ import annotations

from typing import Any

from qdrant_client import grpc as pb

from .engine import edge
from .errors import Unprocessable, Unsupported, WrongInput
from .values import given

DISTANCES = {pb.Cosine: "Cosine", pb.Euclid: "Euclid", pb.Dot: "Dot", pb.Manhattan: "Manhattan"}
MAX_DIM = 65536
PLACEHOLDER = "__none__"
"""A sparse vector that no point has: collections of payloads alone are Qdrant's, and the engine wants a vector."""
INDEXING_THRESHOLD_KB = 100_000
"""Vectors beyond this size get an HNSW index: ten times Qdrant's default, since up to there a scan takes milliseconds
and is exact. A collection that sets `optimizers_config.indexing_threshold` has its own."""


def settle_config(create: pb.CreateCollection) -> pb.CollectionConfig:
    """The full configuration of a new collection: the client's wishes over Qdrant's defaults.

    Raises WrongInput or Unprocessable for sizes and distances that no vector can have, Unsupported for custom sharding.
    """
    if create.sharding_method == pb.ShardingMethod.Custom:
        raise Unsupported("custom sharding; a collection here is one shard")
    params = pb.CollectionParams(
        shard_number=1,
        replication_factor=create.replication_factor or 1,
        write_consistency_factor=create.write_consistency_factor or 1,
        on_disk_payload=create.on_disk_payload if create.HasField("on_disk_payload") else True,
    )
    for field in ("vectors_config", "sparse_vectors_config", "sharding_method", "payload", "id_tracker"):
        if create.HasField(field):
            _copy(create, params, field)
    config = pb.CollectionConfig(
        params=params,
        hnsw_config=pb.HnswConfigDiff(
            m=16, ef_construct=100, full_scan_threshold=10000, max_indexing_threads=0, on_disk=False
        ),
        optimizer_config=pb.OptimizersConfigDiff(
            deleted_threshold=0.2,
            vacuum_min_vector_number=1000,
            default_segment_number=0,
            indexing_threshold=INDEXING_THRESHOLD_KB,
            flush_interval_sec=5,
        ),
        wal_config=pb.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0, wal_retain_closed=1),
    )
    if create.HasField("quantization_config"):
        config.quantization_config.CopyFrom(create.quantization_config)
    if create.HasField("strict_mode_config"):
        config.strict_mode_config.CopyFrom(create.strict_mode_config)
    config.hnsw_config.MergeFrom(create.hnsw_config)
    config.optimizer_config.MergeFrom(create.optimizers_config)
    config.wal_config.MergeFrom(create.wal_config)
    for key, value in create.metadata.items():
        config.metadata[key].CopyFrom(value)
    check_vectors(params)
    return config


def _copy(source: Any, target: Any, field: str) -> None:
    value = getattr(source, field)
    if hasattr(value, "CopyFrom"):
        getattr(target, field).CopyFrom(value)
    else:
        setattr(target, field, value)


def dense_params(params: pb.CollectionParams) -> dict[str, pb.VectorParams]:
    """The dense vectors of a collection by name; "" is the unnamed one."""
    match params.vectors_config.WhichOneof("config"):
        case "params":
            return {"": params.vectors_config.params}
        case "params_map":
            return dict(params.vectors_config.params_map.map)
    return {}


def sparse_params(params: pb.CollectionParams) -> dict[str, pb.SparseVectorParams]:
    """The sparse vectors of a collection by name."""
    return dict(params.sparse_vectors_config.map)


def check_vectors(params: pb.CollectionParams) -> None:
    """Refuse sizes outside 1..65536, unknown distances, and a name that is both dense and sparse."""
    dense, sparse = dense_params(params), sparse_params(params)
    for name, vector in dense.items():
        where = f"vectors.{name}" if name else "vectors"
        if not 1 <= vector.size <= MAX_DIM:
            raise Unprocessable(f"{where}.size: value {vector.size} invalid, must be from 1 to {MAX_DIM}")
        if vector.distance not in DISTANCES:
            raise WrongInput(f"{where}.distance is not set; give one of {', '.join(DISTANCES.values())}")
    for name in sparse:
        if name in dense or not name:
            raise WrongInput(f"Sparse vector name `{name}` is empty or also names a dense vector; choose another")


def engine_config(config: pb.CollectionConfig) -> Any:
    """The engine's configuration of a collection."""
    params = config.params
    vectors = {name: _dense(vector, config.hnsw_config) for name, vector in dense_params(params).items()}
    sparse = {name: _sparse(vector) for name, vector in sparse_params(params).items()}
    if not vectors and not sparse:
        sparse = {PLACEHOLDER: edge.EdgeSparseVectorParams()}
    return edge.EdgeConfig(
        vectors=vectors or None,
        sparse_vectors=sparse or None,
        on_disk_payload=params.on_disk_payload,
        hnsw_config=_hnsw(config.hnsw_config),
        quantization_config=_quantization(config.quantization_config),
        optimizers=_optimizers(config.optimizer_config),
        payload_memory=_memory(params.payload) if params.HasField("payload") else None,
        id_tracker_memory=_memory(params.id_tracker) if params.HasField("id_tracker") else None,
    )


def _dense(vector: pb.VectorParams, base: pb.HnswConfigDiff) -> Any:
    hnsw = None
    if vector.HasField("hnsw_config"):
        merged = pb.HnswConfigDiff()
        merged.CopyFrom(base)
        merged.MergeFrom(vector.hnsw_config)
        hnsw = _hnsw(merged)
    return edge.EdgeVectorParams(
        size=vector.size,
        distance=getattr(edge.Distance, DISTANCES[vector.distance]),
        on_disk=given(vector, "on_disk"),
        multivector_config=_multi(vector) if vector.HasField("multivector_config") else None,
        datatype=_datatype(vector.datatype) if vector.HasField("datatype") else None,
        quantization_config=_quantization(vector.quantization_config),
        hnsw_config=hnsw,
        memory=_memory(vector),
    )


def multi_config() -> Any:
    """The one comparison of multi-vectors that exists, MaxSim."""
    return edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)


def _multi(vector: pb.VectorParams) -> Any:
    if vector.multivector_config.comparator != pb.MultiVectorComparator.MaxSim:
        raise WrongInput(f"Unknown multi-vector comparator {vector.multivector_config.comparator}; use max_sim")
    return multi_config()


def _datatype(datatype: Any) -> Any:
    name = pb.Datatype.Name(datatype)
    return None if name == "Default" else getattr(edge.VectorStorageDatatype, name)


def read_datatype(message: Any) -> Any:
    """The engine's storage type named by a message's optional `datatype`."""
    return _datatype(message.datatype) if message.HasField("datatype") else None


def _memory(message: Any) -> Any:
    if not message.HasField("memory") or message.memory == pb.Memory.MemoryUnknown:
        return None
    return getattr(edge.Memory, pb.Memory.Name(message.memory))


read_memory = _memory


def read_modifier(message: Any) -> Any:
    """The engine's IDF modifier when a message's optional `modifier` asks for it."""
    return edge.Modifier.Idf if message.HasField("modifier") and message.modifier == pb.Modifier.Idf else None


def _sparse(vector: pb.SparseVectorParams) -> Any:
    index = vector.index
    return edge.EdgeSparseVectorParams(
        full_scan_threshold=given(index, "full_scan_threshold"),
        on_disk=given(index, "on_disk"),
        modifier=read_modifier(vector),
        datatype=read_datatype(index),
        memory=_memory(index),
    )


def _hnsw(hnsw: pb.HnswConfigDiff) -> Any:
    return edge.HnswIndexConfig(
        m=hnsw.m,
        ef_construct=hnsw.ef_construct,
        full_scan_threshold=hnsw.full_scan_threshold,
        max_indexing_threads=hnsw.max_indexing_threads,
        on_disk=given(hnsw, "on_disk"),
        payload_m=given(hnsw, "payload_m"),
        inline_storage=given(hnsw, "inline_storage"),
        memory=_memory(hnsw),
    )


def _optimizers(optimizers: pb.OptimizersConfigDiff) -> Any:
    fields = (
        "deleted_threshold",
        "vacuum_min_vector_number",
        "default_segment_number",
        "max_segment_size",
        "indexing_threshold",
        "prevent_unoptimized",
    )
    return edge.EdgeOptimizersConfig(**{field: given(optimizers, field) for field in fields})


def _quantization(config: pb.QuantizationConfig) -> Any:
    match config.WhichOneof("quantization"):
        case "scalar":
            scalar = config.scalar
            if scalar.type != pb.QuantizationType.Int8:
                raise WrongInput("quantization_config.scalar.type is not set; int8 is the one there is")
            return edge.ScalarQuantizationConfig(
                edge.ScalarType.Int8, given(scalar, "quantile"), given(scalar, "always_ram"), _memory(scalar)
            )
        case "product":
            ratio = getattr(edge.CompressionRatio, pb.CompressionRatio.Name(config.product.compression).upper())
            return edge.ProductQuantizationConfig(ratio, given(config.product, "always_ram"), _memory(config.product))
        case "binary":
            return _binary(config.binary)
        case "turboquant":
            turbo = config.turboquant
            bits = getattr(edge.TurboQuantBitSize, pb.TurboQuantBitSize.Name(turbo.bits))
            return edge.TurboQuantQuantizationConfig(
                given(turbo, "always_ram"), bits if turbo.HasField("bits") else None, _memory(turbo)
            )
    return None


def _binary(binary: pb.BinaryQuantization) -> Any:
    encoding = query_encoding = None
    if binary.HasField("encoding"):
        encoding = getattr(edge.BinaryQuantizationEncoding, pb.BinaryQuantizationEncoding.Name(binary.encoding))
    if binary.HasField("query_encoding"):
        setting = pb.BinaryQuantizationQueryEncoding.Setting.Name(binary.query_encoding.setting)
        query_encoding = getattr(edge.BinaryQuantizationQueryEncoding, setting)
    return edge.BinaryQuantizationConfig(given(binary, "always_ram"), encoding, query_encoding, _memory(binary))


def update_config(config: pb.CollectionConfig, update: pb.UpdateCollection) -> pb.CollectionConfig:
    """A copy of `config` with the client's changes; raises WrongInput for a vector that is not there."""
    changed = pb.CollectionConfig()
    changed.CopyFrom(config)
    changed.hnsw_config.MergeFrom(update.hnsw_config)
    changed.optimizer_config.MergeFrom(update.optimizers_config)
    changed.params.MergeFrom(_params_of(update.params))
    _update_quantization(changed, update)
    _update_vectors(changed.params, update.vectors_config)
    for name, sparse in update.sparse_vectors_config.map.items():
        if name not in changed.params.sparse_vectors_config.map:
            raise WrongInput(f"Not existing vector name error: {name}")
        changed.params.sparse_vectors_config.map[name].MergeFrom(sparse)
    if update.HasField("strict_mode_config"):
        changed.strict_mode_config.MergeFrom(update.strict_mode_config)
    for key, value in update.metadata.items():
        if value.WhichOneof("kind") == "null_value":
            changed.metadata.pop(key, None)
        else:
            changed.metadata[key].CopyFrom(value)
    return changed


def _params_of(diff: pb.CollectionParamsDiff) -> pb.CollectionParams:
    params = pb.CollectionParams()
    for field, _ in diff.ListFields():
        _copy(diff, params, field.name)
    return params


def _update_quantization(holder: Any, update: Any) -> None:
    """Apply a quantization diff; `disabled` removes it."""
    diff = update.quantization_config
    kind = diff.WhichOneof("quantization")
    if kind == "disabled":
        holder.ClearField("quantization_config")
    elif kind is not None:
        getattr(holder.quantization_config, kind).CopyFrom(getattr(diff, kind))


def _update_vectors(params: pb.CollectionParams, diff: pb.VectorsConfigDiff) -> None:
    kind = diff.WhichOneof("config")
    changes = {"": diff.params} if kind == "params" else dict(diff.params_map.map) if kind == "params_map" else {}
    vectors = dense_params(params)
    for name, change in changes.items():
        if name not in vectors:
            raise WrongInput(f"Not existing vector name error: {name}")
        vectors[name].hnsw_config.MergeFrom(change.hnsw_config) if change.HasField("hnsw_config") else None
        _update_quantization(vectors[name], change)
        for field in ("on_disk", "memory"):
            if change.HasField(field):
                setattr(vectors[name], field, getattr(change, field))
