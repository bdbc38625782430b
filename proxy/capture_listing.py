"""The points that a write names by a condition, listed by the database before the write goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import orjson
from pyqwest import Response

from crossfade.backends.dialect import MalformedError
from crossfade.backends.index import PointId
from crossfade.backends.writing import ConditionSlot, Hold, Question, Write, WriteCodec

from .asking import asked_headers
from .driver import Incoming, carries_answer
from .errors import BodyTooLarge, ListingRefused, MalformedRequest
from .framing import pack, unpack
from .routing import Snapshot
from .upstream import call_upstream, read_all
from .worker import Worker

MOST: Final = 100_000  # points of a write that are listed and journalled one by one
_PAGE: Final = 10_000


class TooMany(Exception):
    """A write names more points than are listed."""


@dataclass(slots=True, eq=False)
class Lister:
    """Lists what one write names; `body` is its unpacked message, and what it asks carries the client's own headers."""

    worker: Worker
    incoming: Incoming
    snapshot: Snapshot
    codec: WriteCodec
    body: bytes
    collection: str

    async def list_points(self, write: Write) -> tuple[list[PointId], list[Hold]]:
        """Every point that a write names, and its conditions held to those.

        A later step of one request sees what the earlier ones did, so its condition may still name what those touched.
        Raises TooMany, ListingRefused and UpstreamDown.
        """
        touched: dict[PointId, None] = {}
        holds: list[Hold] = []
        if write.conditions:
            await self._settle()
        for step in write.steps:
            if step.condition is not None:
                listed = await self._list(step.condition, MOST - len(touched))
                touched.update(dict.fromkeys(listed))
                holds.append((step.condition, list(touched)))
            touched.update(dict.fromkeys(step.ids))
        return list(touched), holds

    async def _settle(self) -> None:
        """Wait until writes that were answered before can be seen: those of this client come before this one."""
        question = self.codec.ask_settled(self.incoming.operation, self.incoming.path, self.body)
        if question is not None:
            await self._ask(question)

    async def _list(self, condition: ConditionSlot, room: int) -> list[PointId]:
        operation, path = self.incoming.operation, self.incoming.path
        listed: list[PointId] = []
        after: PointId | None = None
        while True:
            limit = min(_PAGE, room - len(listed) + 1)
            answer = await self._ask(self.codec.ask_ids(operation, path, self.body, condition, after, limit))
            try:
                page = self.codec.read_ids(operation, answer)
            except MalformedError as error:
                raise self._refusal(str(error)) from error
            listed += page.ids
            if len(listed) > room:
                raise TooMany
            if page.after is None:
                return listed
            after = page.after

    async def _ask(self, question: Question) -> bytes:
        """The answer to a question, unpacked. Raises ListingRefused, UpstreamDown."""
        operation = self.incoming.operation
        target = self.worker.target(self.snapshot, operation.transport)
        limit = self.snapshot.config.limits.body
        body = pack(question.body, operation.transport)
        headers = asked_headers(self.incoming)
        response = await call_upstream(target, question.method, self.incoming.authority, question.path, headers, body)
        packed = await read_all(target, response, limit)
        if not carries_answer(operation, response) or response.trailers.get("grpc-status", "0") != "0":
            raise self._refusal(_reason(response, packed))
        try:
            return unpack(operation, packed, None, limit)
        except (MalformedRequest, BodyTooLarge) as error:
            raise self._refusal(str(error)) from error

    def _refusal(self, reason: str) -> ListingRefused:
        return ListingRefused(operation=self.incoming.operation.name, collection=self.collection, reason=reason)


def _reason(response: Response, packed: bytes) -> str:
    """What the database itself says."""
    said = response.headers.get("grpc-message") or response.trailers.get("grpc-message")
    if said:
        return unquote(said)
    try:
        return str(orjson.loads(packed)["status"]["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return packed[:500].decode("utf-8", "replace") or f"HTTP {response.status}"
