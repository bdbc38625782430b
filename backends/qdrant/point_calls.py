"""The calls of which a migration makes many, in Qdrant's own messages over the client library's connection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from qdrant_client import AsyncQdrantClient
from qdrant_client import grpc as pb
from qdrant_client.async_qdrant_remote import AsyncQdrantRemote

from ..index import Page, Point, PointId
from .messages import read_id, read_message, write_id, write_message

_DEFAULT_SECONDS: Final = AsyncQdrantRemote.DEFAULT_GRPC_TIMEOUT


@dataclass(frozen=True, slots=True, eq=False)
class PointCalls:
    """See index.Index; a call takes at most `seconds`. Raises grpc.aio.AioRpcError."""

    client: AsyncQdrantClient
    seconds: float

    @staticmethod
    def of(client: AsyncQdrantClient) -> PointCalls | None:
        """The calls of a client, None for one that speaks REST or is no server's."""
        options = client.init_options
        if not options["prefer_grpc"] or options.get("location") == ":memory:" or options.get("path") is not None:
            return None
        seconds = options.get("timeout")
        return PointCalls(client, _DEFAULT_SECONDS if seconds is None else math.ceil(seconds))

    async def list_ids(self, collection: str, start: PointId | None, limit: int) -> Page:
        """See Index."""
        asked = pb.ScrollPoints(
            collection_name=collection,
            offset=None if start is None else write_id(start),
            limit=limit,
            with_payload=pb.WithPayloadSelector(enable=False),
            with_vectors=pb.WithVectorsSelector(enable=False),
        )
        answer = await self._stub.Scroll(asked, timeout=self.seconds)
        following = read_id(answer.next_page_offset) if answer.HasField("next_page_offset") else None
        return Page([read_id(point.id) for point in answer.result], following)

    async def fetch(
        self, collection: str, ids: Sequence[PointId], fields: Sequence[str] | None, payload: bool
    ) -> list[Point]:
        """See Index."""
        chosen = (
            pb.WithVectorsSelector(enable=True)
            if fields is None
            else pb.WithVectorsSelector(include=pb.VectorsSelector(names=fields))
        )
        asked = pb.GetPoints(
            collection_name=collection,
            ids=[write_id(point) for point in ids],
            with_payload=pb.WithPayloadSelector(enable=payload),
            with_vectors=chosen,
        )
        answer = await self._stub.Get(asked, timeout=self.seconds)
        found = {point.id: point for point in map(read_message, answer.result)}
        plain = [point if isinstance(point, int) else str(UUID(point)) for point in ids]
        return [found[point] for point in plain if point in found]

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        """See Index."""
        asked = pb.UpsertPoints(collection_name=collection, wait=True)
        for point in points:
            write_message(point, asked.points.add())
        await self._stub.Upsert(asked, timeout=self.seconds)

    @property
    def _stub(self) -> Any:
        return self.client.grpc_points  # the next of its connections
