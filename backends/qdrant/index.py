"""Qdrant's Index client, for background work, on its own client library.

Imported by name only (crossfade.backends.qdrant.index): the library costs 65 MB, and the workers do without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final
from uuid import UUID

import grpc
import numpy as np
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from ..dialect import Float32
from ..index import CollectionInfo, Distance, FieldInfo, Hits, IndexHealth, IndexRefusedError, Page, Point, PointId
from ..payload_text import compile_text
from ..sampling import draw_ids
from .index_settings import copy_settings
from .point_calls import PointCalls
from .points import read_point, write_point

_PAGE: Final = 10_000  # ids listed at once
_QUERIES: Final = 64  # searched in one batch
_DISTANCES: Final[Mapping[models.Distance, Distance]] = {
    models.Distance.COSINE: "cosine",
    models.Distance.DOT: "dot",
    models.Distance.EUCLID: "euclid",
    models.Distance.MANHATTAN: "manhattan",
}
_RETRYABLE_CODES: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
}


class QdrantIndex:
    """See index.Index. The client may speak gRPC or REST; closing the index closes it."""

    searches_exactly: Final = True

    def __init__(self, client: AsyncQdrantClient) -> None:
        self._client = client
        self._calls = PointCalls.of(client)  # None where only REST is spoken

    async def describe(self, collection: str) -> CollectionInfo:
        """The vector fields of a collection."""
        with _reporting(collection):
            params = (await self._client.get_collection(collection)).config.params
        dense = params.vectors or {}
        named = {"": dense} if isinstance(dense, models.VectorParams) else dense
        fields = tuple(
            FieldInfo(name, one.size, _DISTANCES[one.distance], one.multivector_config is not None)
            for name, one in sorted(named.items())  # gRPC gives a map, in any order
        )
        return CollectionInfo(collection, fields, tuple(sorted(params.sparse_vectors or ())))

    async def exists(self, collection: str) -> bool:
        """Whether there is a collection of this name."""
        with _reporting(collection):
            return await self._client.collection_exists(collection)

    async def count(self, collection: str) -> int:
        """How many points there are, exactly."""
        with _reporting(collection):
            return (await self._client.count(collection, exact=True)).count

    async def list_ids(self, collection: str, start: PointId | None, limit: int) -> Page:
        """Up to `limit` ids in ascending order from `start` on (None: from the first)."""
        with _reporting(collection):
            if self._calls is not None:
                return await self._calls.list_ids(collection, start, limit)
            records, following = await self._client.scroll(
                collection, offset=start, limit=limit, with_payload=False, with_vectors=False
            )
        return Page([_plain_id(record.id) for record in records], None if following is None else _plain_id(following))

    async def sample_ids(self, collection: str, n: int, seed: int) -> Sequence[PointId]:
        """Up to `n` different ids, drawn from all of them (one call for every 10,000 points)."""
        return await draw_ids(lambda start: self.list_ids(collection, start, _PAGE), n, seed)

    async def fetch(
        self, collection: str, ids: Sequence[PointId], fields: Sequence[str] | None = None, *, payload: bool = True
    ) -> Sequence[Point]:
        """The points of these ids, in this order, without those that do not exist; `fields` None: all vectors.

        The default vector cannot be asked for by name: wherever "" is among `fields` all vectors are read.
        """
        chosen: bool | list[str] = True if fields is None or "" in fields else list(fields)
        with _reporting(collection):
            if self._calls is not None:
                return await self._calls.fetch(collection, ids, None if chosen is True else fields, payload)
            records = await self._client.retrieve(collection, list(ids), with_payload=payload, with_vectors=chosen)
        found = {_plain_id(record.id): record for record in records}
        return [read_point(point, found[point]) for point in map(_plain_id, ids) if point in found]

    async def fetch_texts(self, collection: str, ids: Sequence[PointId], text: str) -> Sequence[str | None]:
        """For each id its text (see payload_text), None when the point or its text does not exist."""
        compiled = compile_text(text)
        with _reporting(collection):
            records = await self._client.retrieve(collection, list(ids), with_payload=list(compiled.keys))
        found = {_plain_id(record.id): compiled.read(record.payload or {}) for record in records}
        return [found.get(_plain_id(point)) for point in ids]

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        """Write whole points, and wait until they can be read."""
        if points:
            with _reporting(collection):
                if self._calls is not None:
                    return await self._calls.upsert(collection, points)
                await self._client.upsert(collection, [write_point(point) for point in points], wait=True)

    async def delete(self, collection: str, ids: Sequence[PointId]) -> None:
        """Delete points, and wait until they are gone; ids that do not exist are no error."""
        if ids:
            with _reporting(collection):
                await self._client.delete(collection, models.PointIdsList(points=list(ids)), wait=True)

    async def create_like(self, source: str, target: str, dims: Mapping[str, int]) -> None:
        """Create an empty collection with the settings and payload indexes of another, but these dims by field.

        Raises KeyError for a field that the source does not have.
        """
        info = await self.describe(source)
        for name in dims:
            info.field(name)
        with _reporting(target):
            settings = await self._client.get_collection(source)
            await copy_settings(self._client, settings, target, dims)

    async def drop(self, collection: str) -> None:
        """Destroy a collection; one that does not exist is no error."""
        with _reporting(collection):
            if await self._client.collection_exists(collection):
                await self._client.delete_collection(collection)

    async def other_names(self, collection: str) -> Sequence[str]:
        """Every other name under which a collection can be written: its aliases, and what it is itself an alias of."""
        with _reporting(collection):
            aliases = {one.alias_name: one.collection_name for one in (await self._client.get_aliases()).aliases}
        real = aliases.get(collection, collection)
        names = {real, *(alias for alias, of in aliases.items() if of == real)}
        return sorted(names - {collection})

    async def settle(self, collection: str) -> None:
        """Wait until every write that was answered before can be read, those that did not wait too.

        A shard performs its updates in the order in which they came, so this waits for one that changes nothing.
        """
        nothing = models.Filter(must=[models.HasIdCondition(has_id=[])])
        with _reporting(collection):
            await self._client.delete(collection, models.FilterSelector(filter=nothing), wait=True)

    async def replace_by_alias(self, old: str, collection: str) -> None:
        """Destroy a collection, and make its name an alias of another one; that it is one already is no error."""
        with _reporting(old):
            aliases = (await self._client.get_aliases()).aliases
            if any(one.alias_name == old and one.collection_name == collection for one in aliases):
                return
            if await self._client.collection_exists(old):
                await self._client.delete_collection(old)
            made = models.CreateAlias(collection_name=collection, alias_name=old)
            await self._client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])

    async def search(self, collection: str, name: str, rows: Float32, k: int, *, exact: bool = True) -> Sequence[Hits]:
        """The best `k` points for each row (n, dim) in a vector field, by exact search unless told otherwise."""
        hits: list[Hits] = []
        for first in range(0, len(rows), _QUERIES):
            requests = [
                models.QueryRequest(
                    query=row.tolist(),
                    using=name or None,
                    limit=k,
                    params=models.SearchParams(exact=exact),
                    with_payload=False,
                )
                for row in rows[first : first + _QUERIES]
            ]
            with _reporting(collection):
                answers = await self._client.query_batch_points(collection, requests)
            hits += [_read_hits(answer.points) for answer in answers]
        return hits

    async def health(self, collection: str) -> IndexHealth:
        """Whether the collection is green: yellow is still indexing, grey waits for a write to go on, red is broken."""
        with _reporting(collection):
            info = await self._client.get_collection(collection)
        points = await self.count(collection)
        says = f"its status is {info.status.value}; {info.indexed_vectors_count or 0:,} vectors are indexed"
        broken = building = None
        if info.optimizer_status != models.OptimizersStatusOneOf.OK:
            broken = f"its optimizer says {_say_optimizer(info.optimizer_status)}"
        elif info.status == models.CollectionStatus.RED:
            broken = says
        elif info.status != models.CollectionStatus.GREEN:
            building = says
        return IndexHealth(points, info.indexed_vectors_count, building, broken)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._client.close()


def _read_hits(points: Sequence[models.ScoredPoint]) -> Hits:
    scores = np.array([point.score for point in points], dtype=np.float32)
    return Hits([_plain_id(point.id) for point in points], scores)


def _say_optimizer(status: models.OptimizersStatus) -> str:
    return status.error if isinstance(status, models.OptimizersStatusOneOf1) else str(status.value)


def _plain_id(point: object) -> PointId:
    """An id as Qdrant answers with it: a number, or a UUID in lower case with dashes."""
    return point if isinstance(point, int) else str(UUID(str(point)))


@contextmanager
def _reporting(collection: str) -> Iterator[None]:
    """Turn the errors of the client library into one that says where, why, and whether to try again."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        reason = f"{error.code().name}: {error.details()}"
        raise IndexRefusedError(collection, reason, retryable=error.code() in _RETRYABLE_CODES) from error
    except UnexpectedResponse as error:
        retryable = error.status_code in (408, 429) or (error.status_code or 0) >= 500
        raise IndexRefusedError(collection, str(error), retryable=retryable) from error
    except ResponseHandlingException as error:  # what the client wraps every failure to reach the server in
        raise IndexRefusedError(collection, f"no answer: {error}", retryable=True) from error
    except (ApiException, QdrantException) as error:
        raise IndexRefusedError(collection, str(error), retryable=False) from error
