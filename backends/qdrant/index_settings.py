"""A new collection with the settings of another one, for vectors of other dims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel
from qdrant_client import AsyncQdrantClient, models

Diff = TypeVar("Diff", bound=BaseModel)
Vectors = models.VectorParams | dict[str, models.VectorParams]


async def copy_settings(
    client: AsyncQdrantClient, source: models.CollectionInfo, target: str, dims: Mapping[str, int]
) -> None:
    """Create `target` with the settings and payload indexes of `source`, but these dims by field."""
    config, params = source.config, source.config.params
    await client.create_collection(
        target,
        vectors_config=_resize(params.vectors or {}, dims),
        sparse_vectors_config=params.sparse_vectors,
        shard_number=params.shard_number,
        sharding_method=params.sharding_method,
        replication_factor=params.replication_factor,
        write_consistency_factor=params.write_consistency_factor,
        on_disk_payload=params.on_disk_payload,
        hnsw_config=_as_diff(config.hnsw_config, models.HnswConfigDiff),
        optimizers_config=_as_diff(config.optimizer_config, models.OptimizersConfigDiff),
        wal_config=_as_diff(config.wal_config, models.WalConfigDiff),
        quantization_config=config.quantization_config,
        strict_mode_config=_as_diff(config.strict_mode_config, models.StrictModeConfig),
        metadata=config.metadata,
    )
    for name, index in source.payload_schema.items():
        await client.create_payload_index(target, name, field_schema=index.params or index.data_type, wait=True)


def _resize(vectors: Vectors, dims: Mapping[str, int]) -> Vectors:
    if isinstance(vectors, models.VectorParams):
        return vectors.model_copy(update={"size": dims.get("", vectors.size)})
    return {name: one.model_copy(update={"size": dims.get(name, one.size)}) for name, one in vectors.items()}


def _as_diff(settings: BaseModel | None, diff: type[Diff]) -> Diff | None:
    """What a collection reports, in the form in which one is created."""
    if settings is None:
        return None
    known = diff.model_fields.keys()
    return diff(**{key: value for key, value in settings.model_dump(exclude_none=True).items() if key in known})
