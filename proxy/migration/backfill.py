"""The first copy: every page of the old index through `bring_over`, by several workers, checkpointed page by page.

What the target has and the old index has not is part of a page too, and is deleted; so the same walk serves a second
time, when something moved past the proxy.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from crossfade.backends.index import IndexRefusedError

from ..errors import EncoderFailed
from .converge import Lane, Moved, bring_over
from .gate import Gate
from .moving import Mover
from .pace import first_batch, next_batch
from .record import Migration, Tally
from .walk import FindAhead, Span, Walk

_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds before the next try, the last one for good

Result = TypeVar("Result")

log = logging.getLogger("crossfade.migration.backfill")


class Backfill:
    """One walk of one migration."""

    def __init__(
        self,
        lane: Lane,
        gate: Gate,
        record: Migration,
        mover_of: Callable[[Migration], Awaitable[Mover | None]],
        find_ahead: FindAhead | None = None,
        lead: int = 0,
    ) -> None:
        self._lane, self._gate, self._mover_of = lane, gate, mover_of
        self._walk = Walk(lane.index, lane.spec.collection, lane.spec.target, record.checkpoint, find_ahead, lead)
        self._call = lane.encoder.batch_size
        self._batch = first_batch(self._call)
        self._workers = record.pace.workers
        self._saving = asyncio.Lock()

    async def run(self) -> None:
        """Walk to the end. Raises IndexRefusedError for what will not pass by itself, and LeaseLost."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            record = await self._gate.wait()
            span = await self._patiently(self._take)
            if span is None:
                return
            await self._page(span, record)

    async def _take(self) -> Span | None:
        return await self._walk.take(self._batch)

    async def _page(self, span: Span, record: Migration) -> None:
        ids = span.ids
        size = max(1, self._batch)
        moved, mover = Moved(), await self._mover_of(record)
        for first in range(0, max(1, len(ids)), size):
            batch = ids[first : first + size]
            began = time.monotonic()
            moved += await self._patiently(partial(bring_over, self._lane, batch, mover))
            if len(batch) == size:
                self._batch = next_batch(size, time.monotonic() - began, record.pace.batch_seconds, self._call)
            await self._gate.pay(record.pace.rate, len(batch))
        await self._save(span, moved)

    async def _save(self, span: Span, moved: Moved) -> None:
        def apply(one: Migration) -> Migration:
            # Taken inside the transaction: what is listed meanwhile is in it.
            return one.model_copy(update={"checkpoint": self._walk.checkpoint, "tally": add_to(one.tally, moved)})

        async with self._saving:  # one at a time: whoever sees a page in the checkpoint sees it in the tally
            self._walk.finish(span)
            await self._lane.ledger.store.change(self._lane.migration, apply, lease=self._lane.hold())

    async def _patiently(self, work: Callable[[], Awaitable[Result]]) -> Result:
        return await patiently(work, self._gate)


async def patiently(work: Callable[[], Awaitable[Result]], gate: Gate) -> Result:
    """Do idempotent work until it succeeds, while database or encoder are down; the record says why it waits.

    Raises IndexRefusedError for a refusal that the same call would meet again.
    """
    for attempt in itertools.count():
        try:
            done = await work()
        except (IndexRefusedError, EncoderFailed) as error:
            if isinstance(error, IndexRefusedError) and not error.retryable:
                raise
            log.warning("%s waits: %s", gate.migration, error)
            await gate.tell(f"waiting: {error}")
            await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
        else:
            if attempt:
                await gate.tell(None)
            return done
    raise AssertionError("count() does not end")


def add_to(tally: Tally, moved: Moved) -> Tally:
    """The tally after so much more was done."""
    return Tally(
        written=tally.written + moved.written,
        deleted=tally.deleted + moved.deleted,
        encoded=tally.encoded + moved.encoded,
        tokens=tally.tokens + moved.tokens,
    )
