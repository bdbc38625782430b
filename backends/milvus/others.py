"""Methods of Milvus's API that name a collection and carry no vectors.

They go from Envoy to the database without Python, except while a migration has to see them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from ..dialect import Operation, RequestContext, Transport
from ..wire import compile_shapes, read_text, root_span, scan
from .message import name_collection
from .schema import SERVICE

_USUAL: Final = "db_name=2:string collection_name=3:string"
TABLE: Final = {
    "BatchDescribeCollectionRequest": "db_name=1:string collection_name=2:string",
    "GetLoadingProgressRequest": "db_name=4:string collection_name=2:string",
    "GetLoadStateRequest": "db_name=4:string collection_name=2:string",
    "CreateAliasRequest": f"{_USUAL} alias=4:string",
    "DropAliasRequest": "db_name=2:string alias=3:string",
    "AlterAliasRequest": f"{_USUAL} alias=4:string",
    "DescribeAliasRequest": "db_name=2:string alias=3:string",
    "FlushRequest": "db_name=2:string collection_names=3:string",
    "GetFlushStateRequest": "db_name=3:string collection_name=4:string",
    "GetPersistentSegmentInfoRequest": "collectionName=3:string",
    "GetQuerySegmentInfoRequest": "collectionName=3:string",
    "GetReplicasRequest": "db_name=5:string collection_name=4:string",
    "LoadBalanceRequest": "db_name=6:string collectionName=5:string",
    "ManualCompactionRequest": "db_name=5:string collection_name=4:string",
    "ImportRequest": "db_name=7:string collection_name=1:string",
    "ListImportTasksRequest": "db_name=3:string collection_name=1:string",
    "RenameCollectionRequest": "db_name=2:string oldName=3:string newName=4:string",
    "RunAnalyzerRequest": "db_name=6:string collection_name=7:string",
    "CreateSnapshotRequest": "db_name=4:string collection_name=5:string",
    "DropSnapshotRequest": "db_name=3:string collection_name=4:string",
    "DescribeSnapshotRequest": "db_name=3:string collection_name=4:string",
    "PinSnapshotDataRequest": "db_name=3:string collection_name=4:string",
    "ExportSnapshotRequest": "db_name=3:string collection_name=4:string",
    "RestoreSnapshotRequest": "target_db_name=6:string target_collection_name=7:string",
    "RestoreExternalSnapshotRequest": "db_name=2:string target_collection_name=3:string",
}
_SHAPES: Final = compile_shapes({**TABLE, "": _USUAL})
_DATABASES: Final = ("db_name", "target_db_name")
_NAMES: Final = (
    *("collection_name", "collection_names", "collectionName", "target_collection_name"),
    *("alias", "oldName", "newName"),
)
_MESSAGES: Final = {"GetCompactionStateWithPlans": "GetCompactionPlansRequest"}

READS: Final = (
    *("HasCollection", "GetCollectionStatistics", "LoadCollection", "HasPartition", "LoadPartitions", "Prewarm"),
    *("GetPartitionStatistics", "ShowPartitions", "DescribeNamespace", "ListNamespaces", "HasNamespace"),
    *("GetNamespaceStats", "GetLoadingProgress", "GetLoadState", "DescribeAlias", "ListAliases", "DescribeIndex"),
    *("GetIndexStatistics", "GetIndexState", "GetIndexBuildProgress", "Flush", "GetFlushState", "ManualCompaction"),
    *("GetPersistentSegmentInfo", "GetQuerySegmentInfo", "GetReplicas", "LoadBalance", "GetCompactionStateWithPlans"),
    *("ListImportTasks", "RunAnalyzer", "ListRowPolicies", "CreateSnapshot", "DropSnapshot", "ListSnapshots"),
    *("DescribeSnapshot", "PinSnapshotData", "ExportSnapshot", "ListRefreshExternalCollectionJobs"),
)
"""What changes no point: reads, and what only concerns how the stored points are kept."""

WRITES: Final = (
    *("Delete", "CreateCollection", "DropCollection", "ReleaseCollection", "AlterCollection", "AlterCollectionField"),
    *("AlterCollectionSchema", "AddCollectionField", "AddCollectionStructField", "AddCollectionFunction"),
    *("AlterCollectionFunction", "DropCollectionFunction", "TruncateCollection", "RenameCollection"),
    *("CreatePartition", "DropPartition", "ReleasePartitions", "CreateNamespace", "DropNamespace"),
    *("CreateAlias", "DropAlias", "AlterAlias", "CreateIndex", "AlterIndex", "DropIndex", "Import"),
    *("CreateRowPolicy", "DropRowPolicy", "RestoreSnapshot", "RestoreExternalSnapshot", "BatchUpdateManifest"),
    "RefreshExternalCollection",
)

STATUS_REPLIES: Final = frozenset(
    {
        *("LoadCollection", "LoadPartitions", "LoadBalance", "CreateSnapshot", "DropSnapshot", "CreateCollection"),
        *("DropCollection", "ReleaseCollection", "AlterCollection", "AlterCollectionField", "AddCollectionField"),
        *("AddCollectionStructField", "AddCollectionFunction", "AlterCollectionFunction", "DropCollectionFunction"),
        *("RenameCollection", "CreatePartition", "DropPartition", "ReleasePartitions", "CreateAlias", "DropAlias"),
        *("AlterAlias", "CreateIndex", "AlterIndex", "DropIndex", "CreateRowPolicy", "DropRowPolicy"),
        "BatchUpdateManifest",
    }
)
"""Methods whose reply is a status; that of every other has its status in field 1."""

GRPC_OTHERS: Final = {
    path: Operation(name, "grpc", "POST", path, name in WRITES, False)
    for name in (*READS, *WRITES)
    for path in (f"{SERVICE}/{name}",)
}

_V2: Final = "/v2/vectordb"
_REST: Final = (
    *(("Delete", f"{_V2}/entities/delete"), ("Delete", "/v1/vector/delete")),
    *(("CreateCollection", f"{_V2}/collections/create"), ("CreateCollection", "/v1/vector/collections/create")),
    *(("DropCollection", f"{_V2}/collections/drop"), ("DropCollection", "/v1/vector/collections/drop")),
    *(("RenameCollection", f"{_V2}/collections/rename"), ("ReleaseCollection", f"{_V2}/collections/release")),
    *(("TruncateCollection", f"{_V2}/collections/truncate"), ("Flush", f"{_V2}/collections/flush")),
    *(("LoadCollection", f"{_V2}/collections/load"), ("LoadCollection", f"{_V2}/collections/refresh_load")),
    *(("ManualCompaction", f"{_V2}/collections/compact"), ("HasCollection", f"{_V2}/collections/has")),
    *(("GetCollectionStatistics", f"{_V2}/collections/get_stats"),),
    *(("GetLoadState", f"{_V2}/collections/get_load_state"),),
    *(("AlterCollection", f"{_V2}/collections/{verb}_properties") for verb in ("alter", "drop")),
    *(("AlterCollectionField", f"{_V2}/collections/fields/alter_properties"),),
    *(("AddCollectionField", f"{_V2}/collections/fields/add"),),
    *(("CreateIndex", f"{_V2}/indexes/create"), ("DropIndex", f"{_V2}/indexes/drop")),
    *(("AlterIndex", f"{_V2}/indexes/{verb}_properties") for verb in ("alter", "drop")),
    *(("DescribeIndex", f"{_V2}/indexes/{verb}") for verb in ("describe", "list")),
    *(("CreateAlias", f"{_V2}/aliases/create"), ("DropAlias", f"{_V2}/aliases/drop")),
    *(("AlterAlias", f"{_V2}/aliases/alter"), ("DescribeAlias", f"{_V2}/aliases/describe")),
    *(("ListAliases", f"{_V2}/aliases/list"), ("HasPartition", f"{_V2}/partitions/has")),
    *(("CreatePartition", f"{_V2}/partitions/create"), ("DropPartition", f"{_V2}/partitions/drop")),
    *(("ReleasePartitions", f"{_V2}/partitions/release"), ("LoadPartitions", f"{_V2}/partitions/load")),
    *(("ShowPartitions", f"{_V2}/partitions/list"), ("GetPartitionStatistics", f"{_V2}/partitions/get_stats")),
    *(("Import", f"{_V2}/jobs/import/create"), ("ListImportTasks", f"{_V2}/jobs/import/list")),
)
REST_OTHERS: Final = {path: Operation(name, "rest", "POST", path, name in WRITES, False) for name, path in _REST}
_JSON_NAMES: Final = ("collectionName", "newCollectionName", "aliasName")


def find_other(transport: Transport, method: str, path: str) -> Operation | None:
    """The method a request line names; `path` is without its query string."""
    if transport == "grpc":
        return GRPC_OTHERS.get(path)
    return REST_OTHERS.get(path.rstrip("/")) if method == "POST" else None


def find_names(operation: Operation, body: bytes, context: RequestContext) -> Sequence[str]:
    """The collections, and aliases of them, that a request names. Raises MalformedError."""
    if operation.transport == "rest":
        return _find_in_json(body, context)
    message = _MESSAGES.get(operation.name, f"{operation.name}Request")
    shape = message if message in TABLE else ""
    found = scan(body, (root_span(body, message),), _SHAPES[shape])
    database = next((read_text(body, found, name) for name in _DATABASES if name in found), "")
    return [
        name_collection(database, read_text(body, {"name": [span]}, "name"), context.headers)
        for name in _NAMES
        for span in found.get(name, ())
    ]


def _find_in_json(body: bytes, context: RequestContext) -> Sequence[str]:
    try:
        parsed: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ()  # Milvus will refuse it
    if not isinstance(parsed, dict):
        return ()
    database = parsed.get("dbName")
    told = database if isinstance(database, str) else ""
    names = (parsed.get(name) for name in _JSON_NAMES)
    return [name_collection(told, name, context.headers) for name in names if isinstance(name, str)]
