"""The databases behind a configuration, opened for background work: reading stored vectors and texts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossfade.backends.index import FieldInfo, Index, PointId

from .cli_collect import Document
from .cli_milvus import open_milvus
from .cli_output import UsageProblem, need_extra
from .config import Config, Tls, Upstream
from .config_values import Address, Origin

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

_TIMEOUT_SECONDS = 60  # for one page of a large collection; the upstream's own answer times are not known here


@asynccontextmanager
async def open_index(config: Config, name: str) -> AsyncIterator[Index]:
    """Open an upstream by its name; an embedded one that does not run yet is started for as long as it is open."""
    upstream = config.upstreams[name]
    if upstream.kind == "milvus":
        with open_milvus(upstream) as milvus:
            try:
                yield milvus
            finally:
                await milvus.close()
        return
    from crossfade.backends.qdrant.index import QdrantIndex

    if upstream.embedded is None or upstream.grpc is not None:
        index = QdrantIndex(_connect(upstream))
        try:
            yield index
        finally:
            await index.close()
        return
    with need_extra("embedded", "qdrant_edge"):
        from crossfade.backends.embedded import QdrantServer
    with QdrantServer(upstream.embedded, grpc_port=0, rest_port=0) as server:
        index = QdrantIndex(_connect(Upstream(kind="qdrant", grpc=Address("127.0.0.1", server.grpc_port))))
        try:
            yield index
        finally:
            await index.close()


def _connect(upstream: Upstream) -> AsyncQdrantClient:
    """Qdrant's own client: over gRPC where the upstream has it, because vectors are many bytes as JSON."""
    from qdrant_client import AsyncQdrantClient

    key = upstream.api_key.get_secret_value() if upstream.api_key else None
    settings: dict[str, Any] = {"api_key": key, "timeout": _TIMEOUT_SECONDS, "check_compatibility": False}
    if upstream.grpc is not None:
        options = _grpc_tls(upstream.tls) if upstream.tls else {}
        return AsyncQdrantClient(
            host=upstream.grpc.host,
            grpc_port=upstream.grpc.port,
            prefer_grpc=True,
            https=upstream.tls is not None,
            grpc_options={"grpc.max_receive_message_length": -1, **options},
            **settings,
        )
    assert isinstance(upstream.rest, Origin)  # an upstream has one of them
    tls = {"https": True, **_rest_tls(upstream.tls)} if upstream.rest.scheme == "https" else {"https": False}
    return AsyncQdrantClient(host=upstream.rest.address.host, port=upstream.rest.address.port, **tls, **settings)


def _grpc_tls(tls: Tls) -> dict[str, Any]:
    files = {"root_certificates": tls.ca, "private_key": tls.key, "certificate_chain": tls.cert}
    options: dict[str, Any] = {name: path.read_bytes() for name, path in files.items() if path is not None}
    if tls.server_name is not None:
        options["grpc.ssl_target_name_override"] = tls.server_name
    return options


def _rest_tls(tls: Tls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    ca = {"verify": str(tls.ca)} if tls.ca is not None else {}
    return {**ca, **({"cert": (str(tls.cert), str(tls.key))} if tls.cert is not None else {})}


@dataclass(frozen=True, slots=True)
class StoredDocuments:
    """One vector field of a collection and its documents' texts, as `collect_pairs` reads them."""

    index: Index
    collection: str
    field: str
    text: str

    async def sample(self, count: int, seed: int) -> Sequence[PointId]:
        """Up to `count` different ids, each equally likely, the same for the same seed and content."""
        return await self.index.sample_ids(self.collection, count, seed)

    async def read(self, ids: Sequence[PointId]) -> Sequence[Document]:
        """Vectors and texts of these ids, without documents that are gone."""
        points, texts = await asyncio.gather(
            self.index.fetch(self.collection, ids, [self.field], payload=False),
            self.index.fetch_texts(self.collection, ids, self.text),
        )
        said = dict(zip(ids, texts, strict=True))
        return [Document(point.id, point.vectors.get(self.field), said.get(point.id)) for point in points]


async def check_field(
    index: Index, collection: str, field: str, dim: int, index_model: str, configured: Container[str] = ()
) -> FieldInfo:
    """A collection's vector field, compared with the configuration; raises UsageProblem when they do not agree.

    Where no field is named the only one is meant, unless it is `configured` by its own name.
    """
    info = await index.describe(collection)
    found = next((one for one in info.fields if one.name == field), None)
    if not field and len(info.fields) == 1 and info.fields[0].name not in configured:
        found = info.fields[0]
    if found is None:
        names = ", ".join(repr(one.name) for one in info.fields) or "none"
        raise UsageProblem(f"collection {collection!r} has no dense vector {field!r}; it has {names}; say --field NAME")
    if found.multi:
        raise UsageProblem(f"collection {collection!r}, vector {field!r} holds several rows a point; fit from files")
    if found.dim != dim:
        raise UsageProblem(
            f"collection {collection!r}, vector {field!r} has {found.dim} dimensions, but models.{index_model}.dim is "
            f"{dim}; its index_model is another one"
        )
    return found
