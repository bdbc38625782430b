"""Methods of Qdrant's API that name a collection and carry no vectors.

They go from Envoy to the database without Python, except while a migration has to see them: a read that follows its
client to the new collection, a write that is captured, anything at all once the old name stands for the new collection.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from ..dialect import Operation, Transport
from ..wire import compile_shapes, read_text, root_span, scan

_POINTS: Final = {
    **dict.fromkeys(("Count", "Facet", "SearchMatrixPairs", "SearchMatrixOffsets"), False),
    **dict.fromkeys(("Delete", "DeleteVectors", "SetPayload", "OverwritePayload", "DeletePayload"), True),
    **dict.fromkeys(("ClearPayload", "CreateFieldIndex", "DeleteFieldIndex"), True),
    **dict.fromkeys(("CreateVectorName", "DeleteVectorName"), True),
}
_COLLECTIONS: Final = {
    **dict.fromkeys(("Get", "CollectionExists", "ListCollectionAliases", "CollectionClusterInfo"), False),
    **dict.fromkeys(("Create", "Update", "Delete", "UpdateAliases", "UpdateCollectionClusterSetup"), True),
    **dict.fromkeys(("CreateShardKey", "DeleteShardKey"), True),
    "ListShardKeys": False,
}
_SNAPSHOTS: Final = {"Create": True, "List": False, "Delete": True}
_POINTS_SERVICE: Final = "/qdrant.Points/"
UPDATE_ALIASES: Final = "/qdrant.Collections/UpdateAliases"
_NAMES: Final = {"Get": "CollectionInfo", "Create": "CreateCollection", "Update": "UpdateCollection"}


def _grpc(service: str, name: str, writes: bool, label: str) -> Operation:
    return Operation(label, "grpc", "POST", f"/qdrant.{service}/{name}", writes, False)


GRPC_OTHERS: Final = {
    operation.path: operation
    for operation in (
        *(_grpc("Points", name, writes, name) for name, writes in _POINTS.items()),
        *(
            _grpc("Collections", name, writes, _NAMES.get(name, "DeleteCollection" if name == "Delete" else name))
            for name, writes in _COLLECTIONS.items()
        ),
        *(
            _grpc("Snapshots", name, writes, f"{name}Snapshot{'s' if name == 'List' else ''}")
            for name, writes in _SNAPSHOTS.items()
        ),
    )
}

_REST: Final = (
    ("CollectionInfo", "GET", "", False),
    ("CreateCollection", "PUT", "", True),
    ("UpdateCollection", "PATCH", "", True),
    ("DeleteCollection", "DELETE", "", True),
    ("CollectionExists", "GET", "/exists", False),
    ("ListCollectionAliases", "GET", "/aliases", False),
    ("CollectionClusterInfo", "GET", "/cluster", False),
    ("UpdateCollectionClusterSetup", "POST", "/cluster", True),
    ("Optimizations", "GET", "/optimizations", False),
    ("ListShardKeys", "GET", "/shards", False),
    ("CreateShardKey", "PUT", "/shards", True),
    ("DeleteShardKey", "POST", "/shards/delete", True),
    ("CreateFieldIndex", "PUT", "/index", True),
    ("DeleteFieldIndex", "DELETE", "/index/{field}", True),
    ("CreateVectorName", "PUT", "/vectors/{vector}", True),
    ("DeleteVectorName", "DELETE", "/vectors/{vector}", True),
    ("Facet", "POST", "/facet", False),
    ("Count", "POST", "/points/count", False),
    ("SearchMatrixPairs", "POST", "/points/search/matrix/pairs", False),
    ("SearchMatrixOffsets", "POST", "/points/search/matrix/offsets", False),
    ("Delete", "POST", "/points/delete", True),
    ("DeleteVectors", "POST", "/points/vectors/delete", True),
    ("SetPayload", "POST", "/points/payload", True),
    ("OverwritePayload", "PUT", "/points/payload", True),
    ("DeletePayload", "POST", "/points/payload/delete", True),
    ("ClearPayload", "POST", "/points/payload/clear", True),
    ("CreateSnapshot", "POST", "/snapshots", True),
    ("ListSnapshots", "GET", "/snapshots", False),
    ("RecoverSnapshot", "PUT", "/snapshots/recover", True),
    ("UploadSnapshot", "POST", "/snapshots/upload", True),
    ("DeleteSnapshot", "DELETE", "/snapshots/{snapshot}", True),
    ("GetSnapshot", "GET", "/snapshots/{snapshot}", False),
    ("GetSnapshot", "GET", "/shards/{shard}/snapshot", False),
    ("CreateSnapshot", "POST", "/shards/{shard}/snapshots", True),
    ("ListSnapshots", "GET", "/shards/{shard}/snapshots", False),
    ("RecoverSnapshot", "PUT", "/shards/{shard}/snapshots/recover", True),
    ("UploadSnapshot", "POST", "/shards/{shard}/snapshots/upload", True),
    ("DeleteSnapshot", "DELETE", "/shards/{shard}/snapshots/{snapshot}", True),
    ("GetSnapshot", "GET", "/shards/{shard}/snapshots/{snapshot}", False),
)
_ALIASES: Final = Operation("UpdateAliases", "rest", "POST", "/collections/aliases", True, False)
REST_OTHERS: Final = (
    _ALIASES,
    *(
        Operation(name, "rest", verb, f"/collections/{{collection}}{tail}", writes, False)
        for name, verb, tail, writes in _REST
    ),
)
_PATTERNS: Final = [
    (operation, re.compile(re.sub(r"\{\w+\}", "[^/]+", operation.path) + "/?")) for operation in REST_OTHERS
]
_BELOW: Final = re.compile(r"/collections/([^/]+)(?:/.*)?")
_SHAPES: Final = compile_shapes({"Named": "collection_name=1:string"})


def find_other(transport: Transport, method: str, path: str) -> Operation | None:
    """The method a request line names; `path` is without its query string.

    Whatever stands below a collection on REST, or in the service of points on gRPC, is one, also what this version has
    never heard of.
    """
    if transport == "grpc":
        if path.startswith(_POINTS_SERVICE) and path not in GRPC_OTHERS:
            return Operation("Other", "grpc", "POST", path, True, False)
        return GRPC_OTHERS.get(path)
    for operation, pattern in _PATTERNS:
        if method == operation.method and pattern.fullmatch(path):
            return operation
    if _BELOW.fullmatch(path):
        return Operation("Other", "rest", method, "/collections/{collection}", method not in ("GET", "HEAD"), False)
    return None


def find_collection(operation: Operation, path: str, body: bytes) -> str | None:
    """The collection that a request is about; None for a change of aliases, which may name many."""
    if operation is _ALIASES or operation.path == UPDATE_ALIASES:
        return None
    if operation.transport == "rest":
        found = _BELOW.fullmatch(path)
        return None if found is None else unquote(found[1])
    return read_text(body, scan(body, (root_span(body, operation.name),), _SHAPES["Named"]), "collection_name")
