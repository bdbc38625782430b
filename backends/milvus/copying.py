"""A new collection with the schema, indexes and settings of another one, for vectors of other dims.

The new one is given its ids: where Milvus gives them out in the old one (autoID), points could not keep theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import grpc
from pymilvus import CollectionSchema, MilvusClient

# What an index description tells beside its settings.
_STATE: Final = {"index_name", "field_name", "dim", "total_rows", "indexed_rows", "pending_index_rows", "state"}
_DEFAULT_PARTITION: Final = "_default"
_EXPIRY: Final = "collection.ttl.seconds"


class NotCopiableError(ValueError):
    """A collection that another one cannot be made like; the text says why."""


def copy_collection(
    client: MilvusClient, source: str, target: str, dims: Mapping[str, int], indexes: Sequence[Mapping[str, Any]]
) -> None:
    """Create and load `target` with the schema and settings of `source` and these indexes, but these dims by field.

    Raises NotCopiableError.
    """
    described = client.describe_collection(source)
    keyed = any(one.get("is_partition_key") for one in described["fields"])
    _refuse_computed(described, dims)
    _refuse_expiry(described.get("properties") or {})
    if not keyed:
        _refuse_partitions(_list_partitions(client, source))
    schema = CollectionSchema.construct_from_dict(
        {**described, "auto_id": False, "fields": [_copy_field(one, dims) for one in described["fields"]]}
    )
    settings: dict[str, Any] = {"num_shards": described.get("num_shards") or None}
    settings |= {"num_partitions": described.get("num_partitions")} if keyed else {}
    settings |= {"properties": described["properties"]} if described.get("properties") else {}
    settings |= {"consistency_level": described["consistency_level"]} if "consistency_level" in described else {}
    known = {key: value for key, value in settings.items() if value is not None}
    client.create_collection(target, schema=schema, index_params=_copy_indexes(client, indexes), **known)


def _copy_field(field: Mapping[str, Any], dims: Mapping[str, int]) -> Mapping[str, Any]:
    copied = {**field, "auto_id": False} if field.get("auto_id") else field
    if field["name"] in dims:
        copied = {**copied, "params": {**field["params"], "dim": dims[field["name"]]}}
    return copied


def _copy_indexes(client: MilvusClient, indexes: Sequence[Mapping[str, Any]]) -> Any:
    settings = client.prepare_index_params()
    for one in indexes:
        settings.add_index(
            one["field_name"],
            index_name=one["index_name"],
            **{key: value for key, value in one.items() if key not in _STATE and value is not None},
        )
    return settings


def _refuse_computed(described: Mapping[str, Any], dims: Mapping[str, int]) -> None:
    for one in described.get("functions", ()):
        for name in one["output_field_names"]:
            if name in dims:
                raise NotCopiableError(
                    f"the vectors of field {name!r} are made by its function {one['name']!r} inside Milvus, and "
                    "another model's cannot be written into it; create a collection with another function instead"
                )


def _refuse_expiry(properties: Mapping[str, Any]) -> None:
    seconds = str(properties.get(_EXPIRY, "0"))
    if seconds not in ("0", "-1", ""):
        raise NotCopiableError(
            f"its points expire ({_EXPIRY} is {seconds}), and would live longer in the new collection, which counts "
            "from when they are written there"
        )


def _list_partitions(client: MilvusClient, name: str) -> Sequence[str]:
    try:
        return list(client.list_partitions(name))
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:  # milvus-lite 2 has none
            return ()
        raise


def _refuse_partitions(names: Sequence[str]) -> None:
    own = [name for name in names if name != _DEFAULT_PARTITION]
    if own:
        raise NotCopiableError(
            f"it has partitions of its own ({', '.join(own[:5])}), and Milvus does not tell which point is in which; "
            "a collection with a partition key can be copied"
        )
