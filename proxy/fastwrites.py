"""Writes on the fast path while a collection is migrated, or may be: journalled, then sent on by Envoy itself.

`capturing` has the rules. Here is what most writes need of them: their points are named one by one, and the status of
their answer says all of their end. Everything else is left to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from crossfade.backends.dialect import Edit, Message, Operation
from crossfade.backends.index import PointId

from .capture_natives import find_natives
from .capturing import SETTLES
from .endings import is_decided
from .exchange import Plan
from .framing import unpack
from .keys import Known
from .migration.machine import SERVING
from .migration.marks import Mark, Native
from .migration.record import MigrationView
from .routing import Snapshot

if TYPE_CHECKING:
    from ._filter import Call
    from .migration.journal import Journal
    from .worker import Worker


class Passage:
    """One write, from before its rules are looked at until it has ended (migration/flights.py).

    `view`: the migration that captures it, None where there is none.
    """

    __slots__ = ("_flight", "_operation", "ids", "journal", "mark", "marked_after", "view")

    def __init__(
        self,
        operation: Operation,
        view: MigrationView | None,
        ids: Sequence[PointId],
        journal: Journal | None,
        flight: AbstractContextManager[None],
    ) -> None:
        self.view, self.ids, self.journal = view, ids, journal
        self.mark: Mark | None = None
        self.marked_after = 0.0  # seconds that the mark took
        self._operation = operation
        self._flight: AbstractContextManager[None] | None = flight
        flight.__enter__()

    def end(self, status: int) -> None:
        """It has ended with this status, gRPC's or HTTP's; -1: who knows whether it has. Only the first time counts."""
        decided = status >= 0 and is_decided(self._operation, status)
        self._leave(None if decided else SETTLES)

    def drop(self) -> None:
        """It is not sent."""
        self._leave(None)

    def _leave(self, settles_in: float | None) -> None:
        if self._flight is None:
            return
        if self.mark is not None and self.journal is not None:
            self.journal.close_soon(self.mark, settles_in)
        flight, self._flight = self._flight, None
        flight.__exit__(None, None, None)


class FastWrites:
    """The writes of one listener, on its event loop."""

    def __init__(self, worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
        self._worker, self._loop = worker, loop

    def admit(self, known: Known, body: bytes, snapshot: Snapshot) -> Passage | None:
        """Begin the passage of a write, which ends it or drops it in any case; None: it needs the full route.

        Raises what is wrong with the message.
        """
        live, codec, operation = self._worker.live, self._worker.dialect.writing, known.operation
        assert codec is not None  # `read_key` has asked it
        encoding = known.context.headers.get("grpc-encoding" if operation.transport == "grpc" else "content-encoding")
        opened = unpack(operation, body, encoding, snapshot.config.limits.body)
        names = codec.find_names(operation, known.path, opened, known.context)
        if monotonic() > live.term:
            return None
        view = next((snapshot.watched[name] for name in names if name in snapshot.watched), None)
        ids, journal = self._find_points(known, opened, view, snapshot) if view is not None else ((), None)
        if view is None:
            versions = {one.id: one.version for one in snapshot.migrations.values()}
            passage = Passage(operation, None, (), None, live.flights.strange(snapshot.epoch, versions))
        elif ids is None:
            return None
        else:
            passage = Passage(operation, view, ids, journal, live.flights.write(view))
        # Only now is it sure that whoever waits for writes of before waits for this one.
        if live.snapshot is snapshot:
            return passage
        passage.drop()
        return None

    def _find_points(
        self, known: Known, opened: bytes, view: MigrationView, snapshot: Snapshot
    ) -> tuple[Sequence[PointId] | None, Journal | None]:
        """The points of a captured write, and the journal; None for a write that needs more than a mark."""
        codec, journal = self._worker.dialect.writing, self._worker.live.journals.ready(snapshot.config)
        if journal is None or not view.captures or view.holds_writes or view.state in SERVING:
            return None, None
        assert codec is not None  # as above
        write = codec.read_write(known.operation, known.path, opened, known.context)
        if write is None or write.effect != "points" or write.unsettled:
            return None, None
        if any(step.condition is not None or step.creates for step in write.steps):
            return None, None
        return [point for step in write.steps for point in step.ids], journal

    def send(
        self, call: Call, passage: Passage, known: Known, body: bytes, changed: bool, mark: bytes | None, sent: Any
    ) -> None:
        """Send a write on that nothing has to be journalled for."""
        if not call.forward(known.cluster, body, changed, mark, sent, True):
            self._cancel(passage, known)

    def capture(
        self,
        call: Call,
        passage: Passage,
        known: Known,
        body: bytes,
        changed: bool,
        mark: bytes | None,
        sent: Any,
        natives: Mapping[PointId, Native],
    ) -> None:
        """Journal what a write touches, and send it on once that is on stable storage."""
        if passage.view is None or passage.journal is None or not passage.ids:
            self.send(call, passage, known, body, changed, mark, sent)
            return
        began, migration = perf_counter(), passage.view.id

        def go_on(marked: Future[int]) -> None:
            """In the journal's thread: to wake this one first takes as long as the commit itself."""
            if marked.exception() is None:
                passage.mark, passage.marked_after = Mark(migration, marked.result()), perf_counter() - began
                if call.forward(known.cluster, body, changed, mark, sent, True):
                    return
                self._loop.call_soon_threadsafe(self._cancel, passage, known)
            else:  # the full route comes to the same, and explains it
                passage.drop()
                call.hand_on()

        writer = self._worker.live.journals.writer
        passage.journal.announce(migration, passage.ids, writer, natives).add_done_callback(go_on)

    def find_natives(
        self, passage: Passage, known: Known, message: Message | None, plan: Plan, edits: Sequence[Edit]
    ) -> Mapping[PointId, Native]:
        """Vectors of the new model that the client sends."""
        codec = self._worker.dialect.writing
        if passage.view is None or message is None or not edits or codec is None:
            return {}
        return find_natives(codec, known.operation, message, plan, edits, passage.view)

    def _cancel(self, passage: Passage, known: Known) -> None:
        passage.drop()
        self._worker.tally.requests[known.operation.name, known.operation.transport, "cancelled"] += 1
