"""Writes to a collection under migration: journalled before they go on, so that each of them is brought over.

What a write touches is on stable storage before the old index sees it (migration/journal.py has the protocol). Points
named by a condition are listed first, in the client's name, and the write is held to those: a point that begins to
match in between is not touched, as if the write had come before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Final

from crossfade.backends.dialect import Edit, MalformedError, RequestContext
from crossfade.backends.index import PointId
from crossfade.backends.writing import Hold, Write, WriteCodec

from .capture_listing import Lister, TooMany
from .capture_natives import find_natives
from .capture_sending import ENCODED, ending_of, gather, send_write
from .driver import ENCODINGS, Incoming, Outgoing, prepare, read_incoming
from .errors import CaptureFailed, ChangeRefused, MalformedRequest, UpstreamDown, WritesHeld
from .exchange import Plan, plan_request
from .framing import pack, unpack
from .migration.errors import MigrationStorageError
from .migration.machine import SERVING
from .migration.marks import Mark, Native
from .migration.missed import note_missed
from .migration.record import MigrationView
from .routing import Snapshot
from .worker import Worker

Go = Callable[[Worker, Incoming], Awaitable[Outgoing]]
"""How a request is served when nothing of it has to be journalled."""

SETTLES: Final = 10.0  # seconds after which a write whose end nobody knows has ended, or never will
_RESTORES: Final = 600.0  # the same of a snapshot that is restored after the answer
_HELD_SECONDS: Final = 15.0  # writes wait so long for a migration that is being completed
_POLL_SECONDS: Final = 0.02
_NOTHING: Final[frozenset[str]] = frozenset()


async def exchange_write(worker: Worker, incoming: Incoming, go: Go) -> Outgoing:
    """Do what one write needs while some collection is migrated, or may be at any moment.

    Raises ChangeRefused, CaptureFailed, WritesHeld, ListingRefused, and what `go` raises.
    """
    codec = worker.dialect.writing
    if codec is None:
        return await go(worker, incoming)
    try:
        body = _open(worker, incoming)
        names = codec.find_names(incoming.operation, incoming.path, body, _context(worker, incoming))
    except (MalformedError, MalformedRequest):
        return await go(worker, incoming)  # whoever reads it says what is wrong with it
    began = monotonic()
    while True:
        snapshot = worker.live.snapshot
        view = next((snapshot.watched[name] for name in names if name in snapshot.watched), None)
        _check_term(worker, snapshot, view, names)
        if view is not None and view.holds_writes:
            await _wait_held(view, began)
            continue
        with _counted(worker, snapshot, view):
            # Only now is it sure that whoever waits for writes of before waits for this one.
            if worker.live.snapshot is not snapshot:
                continue
            if view is None or not view.captures:
                return await go(worker, incoming)
            return await Capture(worker, incoming, snapshot, view, codec, body).run(go)


def _check_term(worker: Worker, snapshot: Snapshot, view: MigrationView | None, names: Sequence[str]) -> None:
    """Refuse what a replica must not do that has lost touch with the others. Raises CaptureFailed."""
    if monotonic() <= worker.live.term:
        return
    collections = snapshot.config.collections
    may = [name for name in names if name in collections and collections[name].migrate is not None]
    if view is not None or may:
        reason = (
            "this replica has not reached the migrations' store for a while, and others may have gone on without it"
        )
        raise CaptureFailed(collection=view.collection if view is not None else may[0], reason=reason)


def _counted(worker: Worker, snapshot: Snapshot, view: MigrationView | None) -> AbstractContextManager[None]:
    flights = worker.live.flights
    if view is not None:
        return flights.write(view)
    return flights.strange(snapshot.epoch, {one.id: one.version for one in snapshot.migrations.values()})


async def _wait_held(view: MigrationView, began: float) -> None:
    waited = monotonic() - began
    if waited > _HELD_SECONDS:
        raise WritesHeld(collection=view.collection, seconds=waited)
    await asyncio.sleep(_POLL_SECONDS)


def _context(worker: Worker, incoming: Incoming) -> RequestContext:
    param = worker.live.snapshot.config.detect.param
    return RequestContext(incoming.named, param, worker.schemas.find, incoming.query)


def _open(worker: Worker, incoming: Incoming) -> bytes:
    encoding = incoming.named.get(ENCODINGS[incoming.operation.transport])
    limit = worker.live.snapshot.config.limits.body
    return unpack(incoming.operation, incoming.body, encoding, limit) if incoming.body else b""


@dataclass(slots=True, eq=False)
class Capture:
    """One change of a collection whose writes are captured; `body` is its unpacked message."""

    worker: Worker
    incoming: Incoming
    snapshot: Snapshot
    view: MigrationView
    codec: WriteCodec
    body: bytes

    async def run(self, go: Go) -> Outgoing:
        """Do it, or refuse it."""
        write = await self.worker.off_loop(len(self.body), self._read)
        if write is not None and write.unsettled:
            await self._learn(write)
            write = await self.worker.off_loop(len(self.body), self._read)
        if write is None:
            return await go(self.worker, self.incoming)
        match write.effect:
            case "refused":
                raise ChangeRefused(
                    operation=self.incoming.operation.name,
                    collection=self.view.collection,
                    model=self.view.to_model,
                    reason=write.reason,
                )
            case "both":
                return await self._do_both(go)
            case "anything":
                return await self._do_anything(write, go)
        return await self._write_points(write)

    async def _learn(self, write: Write) -> None:
        """Learn what the points of a write cannot be told without. Raises SchemaUnknown, UpstreamDown."""
        target, limit = self.worker.target(self.snapshot, "grpc"), self.snapshot.config.limits.body
        transport, headers = self.incoming.operation.transport, self.incoming.named
        await self.worker.schemas.learn(write.collections, target, transport, headers, limit)

    def _read(self) -> Write | None:
        context = _context(self.worker, self.incoming)
        try:
            return self.codec.read_write(self.incoming.operation, self.incoming.path, self.body, context)
        except MalformedError as error:
            raise MalformedRequest(self.incoming.operation.name, str(error)) from error

    async def _do_both(self, go: Go) -> Outgoing:
        """A change that has to happen to the target as well, once the old index has taken it."""
        outgoing = await self._go(go)
        if not ending_of(self.worker, self.incoming, outgoing).succeeded(self.worker.dialect.reading):
            return outgoing
        reading, names = self.worker.dialect.reading, {self.view.collection: self.view.target}
        names |= dict.fromkeys(self.view.aliases, self.view.target)
        assert reading is not None  # who knows what writes mean knows how they are renamed
        path, body = reading.retarget(self.incoming.operation, self.incoming.path, self.body, names)
        renamed = self.incoming._replace(path=path, body=pack(body, self.incoming.operation.transport) if body else b"")
        try:
            repeated = await send_write(self.worker, renamed, self.snapshot, ENCODED)
            done = ending_of(self.worker, renamed, repeated).succeeded(reading)
            reason = "" if done else f"refused with HTTP {repeated.response.status}"
        except UpstreamDown as error:  # the old index has taken it, which is what the client has to know
            reason = str(error)
        if reason:
            self.worker.warn(
                f"{self.incoming.operation.name} on {self.view.collection!r} succeeded, but its repetition on "
                f"{self.view.target!r} did not ({reason}): do it there yourself, or the new index lacks it"
            )
        return outgoing

    async def _go(self, go: Go) -> Outgoing:
        return await gather(await go(self.worker, self.incoming), self.snapshot.config.limits.body)

    async def _do_anything(self, write: Write, go: Go) -> Outgoing:
        """A change that may touch any point."""
        mark = await self._announce(None, {})
        try:
            outgoing = await self._go(go)
        except BaseException:
            self._close(mark, SETTLES)
            raise
        ended = ending_of(self.worker, self.incoming, outgoing).is_settled(self.worker.dialect.reading)
        self._close(mark, SETTLES if not ended else None if write.waits else _RESTORES)
        return outgoing

    async def _write_points(self, write: Write) -> Outgoing:
        """A write whose points are known, or can be listed."""
        plan, edits, natives, operation = Plan(), list[Edit](), dict[PointId, Native](), self.incoming.operation
        if operation in self.worker.operations:
            read = await read_incoming(self.worker, self.incoming, self.snapshot)
            plan = plan_request(read.message, read.declared, self.snapshot)
            edits = await prepare(self.worker, plan, self.snapshot)
            if edits:
                natives = await self.worker.off_loop(
                    len(self.body), find_natives, self.codec, operation, read.message, plan, edits, self.view
                )
        ids, holds = await self._list(write)
        creates = any(step.creates for step in write.steps)
        touches = ids is None or bool(ids) or creates
        mark = await self._announce(ids, natives) if touches else None
        try:
            outgoing = await self._forward(plan, edits, holds)
            ending = ending_of(self.worker, self.incoming, outgoing)
            settled = ending.is_settled(self.worker.dialect.reading)
            if creates:
                self._add_created(mark, write, outgoing if ending.has_ended else None)
        except BaseException:
            if creates:
                self._add_created(mark, write, None)
            self._close(mark, SETTLES)
            raise
        self._close(mark, None if settled else SETTLES)
        if mark is not None and settled and write.waits and self.view.state in SERVING:
            await self._wait_readable(mark)
        return outgoing

    async def _list(self, write: Write) -> tuple[list[PointId] | None, list[Hold]]:
        """The points of a write and its conditions held to them; None and no holds when they are too many."""
        lister = Lister(self.worker, self.incoming, self.snapshot, self.codec, self.body, self.view.collection)
        try:
            return await lister.list_points(write)
        except TooMany:
            return None, []

    async def _announce(self, ids: Sequence[PointId] | None, natives: Mapping[PointId, Native]) -> Mark | None:
        """Journal what is about to be touched (None: anything); None where writes pass although that is impossible.

        Raises CaptureFailed.
        """
        began, live, config = perf_counter(), self.worker.live, self.snapshot.config
        try:
            journal = await live.journals.get(config)
            if ids is None:
                return await journal.mark_all(self.view.id, live.journals.writer, natives)
            return await journal.mark(self.view.id, ids, live.journals.writer, natives)
        except MigrationStorageError as error:
            self._let_pass(error)
            return None
        finally:
            self.worker.tally.latency["journal"].observe(perf_counter() - began)

    def _let_pass(self, error: MigrationStorageError) -> None:
        """Let a write pass unmarked, if the operator wants that, and remember it. Raises CaptureFailed."""
        config = self.snapshot.config
        settings = config.collections.get(self.view.collection)
        if settings is None or settings.migrate is None or settings.migrate.writes == "closed":
            raise CaptureFailed(collection=self.view.collection, reason=str(error)) from error
        try:
            note_missed(config, self.worker.live.run_dir, self.view.id)
        except OSError as worse:
            reason = f"{error}; and it cannot even be remembered: {worse}"
            raise CaptureFailed(collection=self.view.collection, reason=reason) from worse
        self.worker.warn(f"a write to {self.view.collection!r} passes unmarked, all will be copied again: {error}")

    def _close(self, mark: Mark | None, settles_in: float | None) -> None:
        """Say that a write has ended, behind the answer's back: the journal keeps the order."""
        journal = self.worker.live.journals.opened
        if mark is not None and journal is not None:
            journal.close_soon(mark, settles_in)

    def _add_created(self, mark: Mark | None, write: Write, outgoing: Outgoing | None) -> None:
        """Mark the points whose ids the database has made; all, when it does not tell them (None: no answer)."""
        journal = self.worker.live.journals.opened
        if mark is None or journal is None:
            return
        ids: Sequence[PointId] | None = None
        if outgoing is not None:
            try:
                ids = self._read_created(write, outgoing)
            except (MalformedError, MalformedRequest):
                ids = None
        journal.add_soon(mark, ids)

    def _read_created(self, write: Write, outgoing: Outgoing) -> Sequence[PointId]:
        operation, response = self.incoming.operation, outgoing.response
        if not ending_of(self.worker, self.incoming, outgoing).succeeded(self.worker.dialect.reading):
            return ()
        encoding, limit = response.headers.get(ENCODINGS[operation.transport]), self.snapshot.config.limits.body
        return self.codec.read_created(operation, unpack(operation, outgoing.gathered, encoding, limit), write)

    async def _wait_readable(self, mark: Mark) -> None:
        """Wait until what was written can be read from the target, as long as the operator allows."""
        settings = self.snapshot.config.collections.get(self.view.collection)
        journal = self.worker.live.journals.opened
        if settings is None or settings.migrate is None or journal is None:
            return
        deadline = monotonic() + settings.migrate.read_your_writes
        try:
            while monotonic() < deadline and await journal.stands(mark):
                await asyncio.sleep(_POLL_SECONDS)
        except MigrationStorageError as error:
            self.worker.warn(str(error))

    async def _forward(self, plan: Plan, edits: Sequence[Edit], holds: Sequence[Hold]) -> Outgoing:
        """Send the write on with what is mapped and held, byte for byte where nothing is."""
        incoming, dropped = self.incoming, _NOTHING
        if edits or holds:
            edited = await self.worker.off_loop(
                len(self.body), self.codec.edit, incoming.operation, self.body, edits, holds
            )
            incoming = incoming._replace(body=pack(edited, incoming.operation.transport))
            dropped = ENCODED
        outgoing = await send_write(self.worker, incoming, self.snapshot, dropped)
        word = (plan.mark or "passed").partition(";")[0]
        mark = f"{plan.mark or 'passed'}; captured" if self.snapshot.config.answers.mark else None
        return outgoing._replace(mark=mark, done=word)
