"""Milvus's Index client, for background work, on its own client library.

Imported by name only (crossfade.backends.milvus.index): the library brings pandas, and the workers do without it.
Its calls block, so each runs in a thread.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import grpc
import numpy as np
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from ..dialect import Float32
from ..index import CollectionInfo, Distance, FieldInfo, Hits, IndexHealth, IndexRefusedError, Page, Point, PointId
from ..payload_text import compile_text
from ..sampling import draw_ids
from .copying import NotCopiableError, copy_collection
from .entities import Fields, read_entity, read_fields, write_entity, write_queries
from .expressions import name_points, write_literal
from .message import split_collection

Result = TypeVar("Result")

_PAGE: Final = 10_000  # ids listed at once; Milvus answers a query with 16,384 rows at most
_QUERIES: Final = 64  # searched at once
_WRITTEN: Final = 1_000  # rows in one request
_DISTANCES: Final[Mapping[str, Distance]] = {"COSINE": "cosine", "IP": "dot", "L2": "euclid"}
_RETRYABLE_CODES: Final = (1, 2, 3, 4, 8, 9)  # not ready, unavailable, out of memory, limits, rate, denied for now
# The rows of a query are the first in the order of ids only where it is said to be a part of an iteration, and before
# 2.4 not even then: there all ids are asked for.
_IN_ORDER: Final = {"iterator": "True", "reduce_stop_for_best": "True"}
_FIRST_IN_ORDER: Final = (2, 4)


class MilvusIndex:
    """See index.Index; "DATABASE/NAME" is a collection of another database than the default. Scores are Milvus's own:
    the larger the better for cosine and dot, squared distances for euclid.

    `connect` opens a client for a database ("" the default one); closing the index closes them all.
    """

    searches_exactly: Final = False

    def __init__(self, connect: Callable[[str], MilvusClient]) -> None:
        self._connect = connect
        self._clients: dict[str, MilvusClient] = {}
        self._in_order: bool | None = None  # asked once

    async def _ask(self, collection: str, work: Callable[[MilvusClient, str], Result]) -> Result:
        """Do blocking work with the client of the collection's database."""
        database, name = split_collection(collection)

        def call() -> Result:
            with _reporting(collection):
                if database not in self._clients:
                    self._clients[database] = self._connect(database)
                return work(self._clients[database], name)

        return await asyncio.to_thread(call)

    async def _fields(self, collection: str) -> Fields:
        return await self._ask(collection, lambda client, name: read_fields(client.describe_collection(name)))

    async def describe(self, collection: str) -> CollectionInfo:
        """The vector fields of a collection; one without an index yet counts as cosine."""

        def read(client: MilvusClient, name: str) -> CollectionInfo:
            fields = read_fields(client.describe_collection(name))
            metrics = {one["field_name"]: one.get("metric_type", "") for one in _indexes(client, name)}
            dense = tuple(
                FieldInfo(field, dim, _DISTANCES.get(metrics.get(field, ""), "cosine"), False)
                for field, dim in fields.dims.items()
            )
            return CollectionInfo(collection, dense, tuple(fields.sparse))

        return await self._ask(collection, read)

    async def exists(self, collection: str) -> bool:
        """Whether there is a collection of this name."""
        return bool(await self._ask(collection, lambda client, name: client.has_collection(name)))

    async def count(self, collection: str) -> int:
        """How many points there are, exactly."""

        def count(client: MilvusClient, name: str) -> int:
            return int(client.query(name, filter="", output_fields=["count(*)"], **_STRONG)[0]["count(*)"])

        return await self._ask(collection, count)

    async def list_ids(self, collection: str, start: PointId | None, limit: int) -> Page:
        """Up to `limit` ids in ascending order from `start` on (None: from the first).

        Each call of a Milvus before 2.4 transfers every id from `start` on.
        """
        fields = await self._fields(collection)
        least: PointId = start if start is not None else ("" if fields.text_ids else -(1 << 63) + 1)

        def list_ids(client: MilvusClient, name: str) -> list[PointId]:
            if self._in_order is None:
                self._in_order = _lists_in_order(client)
            part: dict[str, Any] = {"limit": limit + 1, **_IN_ORDER} if self._in_order else {}
            asked = f"{fields.key} >= {write_literal(least)}"
            rows = client.query(name, filter=asked, output_fields=[fields.key], **_STRONG, **part)
            return sorted(row[fields.key] for row in rows)

        ids = await self._ask(collection, list_ids)
        return Page(ids[:limit], ids[limit] if len(ids) > limit else None)

    async def sample_ids(self, collection: str, n: int, seed: int) -> Sequence[PointId]:
        """Up to `n` different ids, drawn from all of them (one call for every 10,000 points)."""
        return await draw_ids(lambda start: self.list_ids(collection, start, _PAGE), n, seed)

    async def fetch(
        self, collection: str, ids: Sequence[PointId], fields: Sequence[str] | None = None, *, payload: bool = True
    ) -> Sequence[Point]:
        """The points of these ids, in this order, without those that do not exist; `fields` None: all vectors."""
        known = await self._fields(collection)
        vectors = [*known.dims, *known.sparse] if fields is None else list(fields)
        wanted = [*vectors, *(known.payload if payload else [])]
        rows = await self._get(collection, ids, [known.key, *wanted])
        found = {row[known.key]: read_entity(row, known, vectors) for row in rows}
        return [found[point] for point in ids if point in found]

    async def fetch_texts(self, collection: str, ids: Sequence[PointId], text: str) -> Sequence[str | None]:
        """For each id its text (see payload_text), None when the point or its text does not exist."""
        compiled = compile_text(text)
        known = await self._fields(collection)
        rows = await self._get(collection, ids, [known.key, *compiled.keys])
        found = {row[known.key]: compiled.read(row) for row in rows}
        return [found.get(point) for point in ids]

    async def _get(self, collection: str, ids: Sequence[PointId], fields: list[str]) -> list[dict[str, Any]]:
        """Rows with these fields, of which the first is the key."""
        if not ids:
            return []
        # By an expression of our own: the client writes its `ids` without escaping quotes.
        asked = name_points(fields[0], ids)
        return await self._ask(
            collection, lambda client, name: list(client.query(name, filter=asked, output_fields=fields, **_STRONG))
        )

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        """Write whole points; reads with strong consistency see them at once."""
        known = await self._fields(collection)
        if known.auto_ids and points:
            reason = "Milvus gives out its ids (autoID), so points cannot be written under theirs"
            raise IndexRefusedError(collection, reason, retryable=False)
        for first in range(0, len(points), _WRITTEN):
            rows = [write_entity(point, known) for point in points[first : first + _WRITTEN]]
            await self._ask(collection, lambda client, name, rows=rows: client.upsert(name, rows))  # type: ignore[misc]  # bound now

    async def delete(self, collection: str, ids: Sequence[PointId]) -> None:
        """Delete points; ids that do not exist are no error."""
        if ids:
            asked = name_points((await self._fields(collection)).key, ids)
            await self._ask(collection, lambda client, name: client.delete(name, filter=asked))

    async def create_like(self, source: str, target: str, dims: Mapping[str, int]) -> None:
        """Create an empty collection with the schema and indexes of another, but these dims by field, and load it.

        Both are of one database. The new one does not give out ids (autoID), since points keep theirs. Raises KeyError
        for a field that the source does not have.
        """
        info = await self.describe(source)
        for name in dims:
            info.field(name)
        _, new = split_collection(target)

        def create(client: MilvusClient, name: str) -> None:
            try:
                copy_collection(client, name, new, dims, _indexes(client, name))
            except NotCopiableError as error:
                raise IndexRefusedError(source, f"cannot be made anew: {error}", retryable=False) from error

        await self._ask(source, create)

    async def drop(self, collection: str) -> None:
        """Destroy a collection; one that does not exist is no error."""
        await self._ask(collection, lambda client, name: client.drop_collection(name))

    async def other_names(self, collection: str) -> Sequence[str]:
        """Every other name under which a collection can be written: its aliases, and what it is itself an alias of."""

        def find(client: MilvusClient, name: str) -> list[str]:
            real = str(client.describe_collection(name)["collection_name"])
            return [real, *client.list_aliases(collection_name=real).get("aliases", [])]

        database, name = split_collection(collection)
        names = set(await self._ask(collection, find)) - {name}
        return sorted(f"{database}/{one}" if database else one for one in names)

    async def settle(self, collection: str) -> None:
        """Nothing: points are read as they are after everything that was answered before (strong consistency)."""

    async def replace_by_alias(self, old: str, collection: str) -> None:
        """Destroy a collection, and make its name an alias of another one; that it is one already is no error."""

        def replace(client: MilvusClient, name: str) -> None:
            target = split_collection(collection)[1]
            if name not in client.list_aliases(collection_name=target).get("aliases", []):
                client.drop_collection(name)
                client.create_alias(collection_name=target, alias=name)

        await self._ask(old, replace)

    async def search(self, collection: str, name: str, rows: Float32, k: int, *, exact: bool = True) -> Sequence[Hits]:
        """The best `k` points for each row (n, dim) in a vector field.

        Milvus searches with the index the field has; `exact` cannot be asked for where that is not a FLAT one.
        """
        hits: list[Hits] = []
        form = (await self._fields(collection)).forms.get(name, "float")
        for first in range(0, len(rows), _QUERIES):
            data = write_queries(rows[first : first + _QUERIES], form)

            def search(client: MilvusClient, stored: str, data: list[Any] = data) -> Any:
                return client.search(stored, data, anns_field=name, limit=k, **_STRONG)

            for found in await self._ask(collection, search):
                scores = np.array([hit["distance"] for hit in found], dtype=np.float32)
                hits.append(Hits([hit.id for hit in found], scores))
        return hits

    async def health(self, collection: str) -> IndexHealth:
        """Whether the collection is loaded and no row waits for its index."""

        def look(client: MilvusClient, name: str) -> IndexHealth:
            points = int(client.query(name, filter="", output_fields=["count(*)"], **_STRONG)[0]["count(*)"])
            return judge_health(points, str(client.get_load_state(name).get("state")), _indexes(client, name))

        return await self._ask(collection, look)

    async def close(self) -> None:
        """Let go of the connections."""
        for client in self._clients.values():
            await asyncio.to_thread(client.close)
        self._clients.clear()


_STRONG: Final[dict[str, Any]] = {"consistency_level": "Strong"}


def judge_health(points: int, load_state: str, indexes: Sequence[Mapping[str, Any]]) -> IndexHealth:
    """What Milvus's answers about load and indexes say; releases and milvus-lite leave out some of the numbers."""
    counted = [int(one["indexed_rows"]) for one in indexes if "indexed_rows" in one]
    waiting = {one.get("field_name", "?"): int(one.get("pending_index_rows") or 0) for one in indexes}
    behind = {name: rows for name, rows in waiting.items() if rows > 0}
    building = "; ".join(f"{rows:,} rows of {name!r} wait for their index" for name, rows in behind.items())
    broken = None if load_state == "Loaded" else f"its load state is {load_state}"
    return IndexHealth(points, min(counted, default=None), building or None, broken)


def _lists_in_order(client: MilvusClient) -> bool:
    try:
        version = re.match(r"v?(\d+)\.(\d+)", client.get_server_version())
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:  # milvus-lite 2
            return False
        raise
    return version is None or (int(version[1]), int(version[2])) >= _FIRST_IN_ORDER


def _indexes(client: MilvusClient, name: str) -> list[dict[str, Any]]:
    return [client.describe_index(name, index) for index in client.list_indexes(name)]


@contextmanager
def _reporting(collection: str) -> Iterator[None]:
    """Turn the errors of the client library into one that says where, why, and whether to try again."""
    try:
        yield
    except MilvusException as error:
        raise IndexRefusedError(collection, str(error.message), retryable=error.code in _RETRYABLE_CODES) from error
    except grpc.RpcError as error:
        retryable = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        raise IndexRefusedError(collection, f"{error.code().name}: {error.details()}", retryable=retryable) from error
