"""A walk over all ids of two collections, page by page, by several workers, that goes on where it was killed.

A page is a range of ids in the order of the database, and holds what either collection has in it. The checkpoint keeps
where the unlisted part begins, and which listed pages were begun and not finished: those alone are done again.

Some points may be handed out ahead of the others (popular.py). The pages that come to them later pass over those that
were: they are done, or among the open parts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from crossfade.backends.index import Index, PointId

from .keys import order_of
from .record import Checkpoint

log = logging.getLogger("crossfade.migration.walk")

FindAhead = Callable[[PointId | None], Awaitable[Sequence[PointId]]]

_LISTED = 1000  # ids in one call, where a range is listed a second time


@dataclass(frozen=True, slots=True)
class Span:
    """The ids from `start` (None: the first) to before `stop` (None: to the end) that stand in either collection."""

    start: PointId | None
    stop: PointId | None
    source: Sequence[PointId]
    target: Sequence[PointId]
    part: tuple[int, int] | None = None  # of the popular points, in place of a range

    @property
    def ids(self) -> Sequence[PointId]:
        """All of them, each once, in order."""
        return sorted({*self.source, *self.target}, key=order_of)


class Walk:
    """Hands out pages to workers of one event loop; `checkpoint` says what would have to be done again after a kill.

    `find_ahead` gives the popular points from an id on (None: from the first), always the same that it gave first, and
    is asked once `lead` points were brought over by id.
    """

    def __init__(
        self,
        index: Index,
        source: str,
        target: str,
        checkpoint: Checkpoint,
        find_ahead: FindAhead | None = None,
        lead: int = 0,
    ) -> None:
        self.checkpoint = checkpoint
        self._find_ahead, self._lead = find_ahead, lead
        self._ahead: Sequence[PointId] | None = None if find_ahead is not None else ()
        self._passed: set[PointId] = set()  # the popular ones that were handed out
        self._ahead_again = list(checkpoint.ahead_open)
        self._index, self._source, self._target = index, source, target
        self._again = list(checkpoint.open)
        self._listing = asyncio.Lock()

    async def take(self, size: int) -> Span | None:
        """The next page, of about `size` ids; None when all pages have been handed out. Raises IndexRefusedError."""
        async with self._listing:
            await self._learn_ahead()
            if self._again:
                start, stop = self._again[0]
                source = await self._list(self._source, start, stop)
                target = await self._list(self._target, start, stop)
                self._again.pop(0)
                return Span(start, stop, source, target)
            if (ahead := self._take_ahead(size)) is not None:
                return ahead
            if self.checkpoint.listed:
                return None
            start = self.checkpoint.next
            page = await self._index.list_ids(self._source, start, size)
            target = await self._list(self._target, start, page.next)
            # Pages may have been finished meanwhile: what is open is asked only now.
            opened = (*self.checkpoint.open, (start, page.next))
            update = {"open": opened, "next": page.next, "listed": page.next is None}
            self.checkpoint = self.checkpoint.model_copy(update=update)
            return Span(start, page.next, self._left(page.ids), target)

    def finish(self, span: Span) -> None:
        """Take a page off the open ones."""
        points = self.checkpoint.points + len(span.source)
        if span.part is not None:
            parts = tuple(one for one in self.checkpoint.ahead_open if one != span.part)
            self.checkpoint = self.checkpoint.model_copy(update={"ahead_open": parts, "points": points})
            return
        rest = tuple(one for one in self.checkpoint.open if one != (span.start, span.stop))
        self.checkpoint = self.checkpoint.model_copy(update={"open": rest, "points": points})

    async def _learn_ahead(self) -> None:
        """Ask for the popular points when they are due, and take up what was handed out of them before a restart."""
        begun = self.checkpoint.ahead > 0
        if self._ahead is not None or not (begun or self.checkpoint.points >= self._lead):
            return
        assert self._find_ahead is not None  # else there are none
        self._ahead = await self._find_ahead(self.checkpoint.next)
        if self.checkpoint.ahead > len(self._ahead):  # the list is lost, and what was passed over with it
            log.warning("the list of popular points of %r is lost: the walk begins again", self._source)
            self.checkpoint, self._again, self._ahead_again = Checkpoint(), [], []
        self._passed.update(self._ahead[: self.checkpoint.ahead])

    def _take_ahead(self, size: int) -> Span | None:
        """The next of the popular points, if any are left."""
        ahead = self._ahead or ()
        if self._ahead_again:
            start, stop = self._ahead_again.pop(0)
            return Span(None, None, ahead[start:stop], (), (start, stop))
        start = self.checkpoint.ahead
        if start >= len(ahead) or self.checkpoint.listed:
            return None
        part = start, min(start + size, len(ahead))
        update = {"ahead": part[1], "ahead_open": (*self.checkpoint.ahead_open, part)}
        self.checkpoint = self.checkpoint.model_copy(update=update)
        self._passed.update(ahead[start : part[1]])
        return Span(None, None, ahead[start : part[1]], (), part)

    def _left(self, points: Sequence[PointId]) -> list[PointId]:
        """Those that were not handed out ahead."""
        return [point for point in points if point not in self._passed]

    async def _list(self, collection: str, start: PointId | None, stop: PointId | None) -> list[PointId]:
        """The ids of a range, from one collection."""
        found: list[PointId] = []
        at = start
        while True:
            page = await self._index.list_ids(collection, at, _LISTED)
            inside = [one for one in page.ids if stop is None or order_of(one) < order_of(stop)]
            found += inside
            if page.next is None or len(inside) < len(page.ids):
                return self._left(found)
            at = page.next
