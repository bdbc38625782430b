"""A walk over all ids of two collections, page by page, by several workers, that goes on where it was killed.

A page is a range of ids in the order of the database, and holds what either collection has in it. The checkpoint keeps
where the unlisted part begins, and which listed pages were begun and not finished: those alone are done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from crossfade.backends.index import Index, PointId

from .keys import order_of
from .record import Checkpoint

_LISTED = 1000  # ids in one call, where a range is listed a second time


@dataclass(frozen=True, slots=True)
class Span:
    """The ids from `start` (None: the first) to before `stop` (None: to the end) that stand in either collection."""

    start: PointId | None
    stop: PointId | None
    source: Sequence[PointId]
    target: Sequence[PointId]

    @property
    def ids(self) -> Sequence[PointId]:
        """All of them, each once, in order."""
        return sorted({*self.source, *self.target}, key=order_of)


class Walk:
    """Hands out pages to workers of one event loop; `checkpoint` says what would have to be done again after a kill."""

    def __init__(self, index: Index, source: str, target: str, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._index, self._source, self._target = index, source, target
        self._again = list(checkpoint.open)
        self._listing = asyncio.Lock()

    async def take(self, size: int) -> Span | None:
        """The next page, of about `size` ids; None when all pages have been handed out. Raises IndexRefusedError."""
        async with self._listing:
            if self._again:
                start, stop = self._again[0]
                source = await self._list(self._source, start, stop)
                target = await self._list(self._target, start, stop)
                self._again.pop(0)
                return Span(start, stop, source, target)
            if self.checkpoint.listed:
                return None
            start = self.checkpoint.next
            page = await self._index.list_ids(self._source, start, size)
            target = await self._list(self._target, start, page.next)
            # Pages may have been finished meanwhile: what is open is asked only now.
            opened = (*self.checkpoint.open, (start, page.next))
            update = {"open": opened, "next": page.next, "listed": page.next is None}
            self.checkpoint = self.checkpoint.model_copy(update=update)
            return Span(start, page.next, list(page.ids), target)

    def finish(self, span: Span) -> None:
        """Take a page off the open ones."""
        rest = tuple(one for one in self.checkpoint.open if one != (span.start, span.stop))
        points = self.checkpoint.points + len(span.source)
        self.checkpoint = self.checkpoint.model_copy(update={"open": rest, "points": points})

    async def _list(self, collection: str, start: PointId | None, stop: PointId | None) -> list[PointId]:
        """The ids of a range, from one collection."""
        found: list[PointId] = []
        at = start
        while True:
            page = await self._index.list_ids(collection, at, _LISTED)
            inside = [one for one in page.ids if stop is None or order_of(one) < order_of(stop)]
            found += inside
            if page.next is None or len(inside) < len(page.ids):
                return found
            at = page.next
