"""Which points are being brought over right now: no two tasks may work on one point.

A task that read a point before a write, and wrote it to the target after another task had brought the newer version
over, would overwrite the newer with the older one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from crossfade.backends.index import PointId


class Claims:
    """The points in work on one event loop."""

    def __init__(self) -> None:
        self._held: set[PointId] = set()
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def hold(self, points: Sequence[PointId]) -> AsyncIterator[None]:
        """Wait until none of these points is in work, then hold all of them."""
        mine = set(points)
        async with self._freed:
            await self._freed.wait_for(lambda: self._held.isdisjoint(mine))
            self._held |= mine
        try:
            yield
        finally:
            self._held -= mine
            async with self._freed:
                self._freed.notify_all()

    @property
    def held(self) -> frozenset[PointId]:
        """The points in work, for those who would rather take others than wait."""
        return frozenset(self._held)
