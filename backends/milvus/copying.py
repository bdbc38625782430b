"""A new collection with the schema and indexes of another one, for vectors of other dims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pymilvus import CollectionSchema, MilvusClient

# What an index description tells beside its settings.
_STATE: Final = {"index_name", "field_name", "total_rows", "indexed_rows", "pending_index_rows", "state"}


def copy_collection(
    client: MilvusClient, source: str, target: str, dims: Mapping[str, int], indexes: Sequence[Mapping[str, Any]]
) -> None:
    """Create and load `target` with the schema of `source` and these indexes, but these dims by field."""
    described = client.describe_collection(source)
    fields = [
        {**one, "params": {**one["params"], "dim": dims[one["name"]]}} if one["name"] in dims else one
        for one in described["fields"]
    ]
    schema = CollectionSchema.construct_from_dict({**described, "fields": fields})
    settings = client.prepare_index_params()
    for one in indexes:
        settings.add_index(
            one["field_name"],
            index_name=one["index_name"],
            **{key: value for key, value in one.items() if key not in _STATE and value is not None},
        )
    client.create_collection(target, schema=schema, index_params=settings)
