"""One migration moved on from state to state, for as long as this process holds the lease."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from crossfade.adapters.base import AdapterError
from crossfade.backends.index import Index, IndexRefusedError, PointId
from crossfade.backends.payload_text import compile_text

from ..encoders import Encoder
from ..errors import CrossfadeError, EncoderFailed
from .backfill import Backfill, add_to, patiently
from .claims import Claims
from .converge import Lane, Moved, converge
from .errors import BadPlan, IllegalMove, LeaseLost, MigrationStorageError
from .gate import Gate
from .journal import Journal
from .ledger import Ledger
from .machine import CAPTURING, OVER, State
from .moving import Mover
from .pace import find_spend
from .popular import Ordering, find_popular, popular_path, read_popular
from .prepare import clean_up, prepare_target
from .record import Checkpoint, Migration, Spec
from .refit import Refit, Refitting, forget_refit, pairs_path
from .sample import Sampler, sample_path
from .store import Lease, Store
from .verifying import Verifying

COPYING: Final = CAPTURING - {State.CAPTURING}
_POLL_SECONDS: Final = 0.1
_SELDOM_SECONDS: Final = 1.0  # for what hardly ever is
_SERVING_SECONDS: Final = 0.02  # while the target serves, a write waits to be readable there
_TOGETHER: Final = 512  # touched points brought over at once: many cost little more than one
_SYNCED_SECONDS: Final = 5.0  # the oldest touched point may have waited so long when the target counts as in step
# Writes are held at most so long for the journal to run empty: one of unknown end (a timeout) settles after ten seconds
_HOLD_SECONDS: Final = 13.0

log = logging.getLogger("crossfade.migration.conduct")


class Workers(Protocol):
    """The processes that serve clients."""

    async def have_seen(self, migration: str, version: int) -> bool:
        """Whether every one that serves acts on this version of the migration's record, or on a newer one.

        That is: it has read it, and no write that it began by an older one is still under way.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What one migration works with: the database of both collections, the new model's encoder, and who else moves
    pages: Ray's actors, and a process of its own."""

    index: Index
    encoder: Encoder
    ray: Callable[[], Awaitable[Mover]] | None = None
    process: Mover | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Tools:
    """What every migration works with.

    `latency` gives the serving p99 in ms, None where nobody measures it; `samples` is the folder for what the workers
    need to merge hits of both indexes, None where nobody does.
    """

    store: Store
    journal: Journal
    workers: Workers
    open_bench: Callable[[Migration], AbstractAsyncContextManager[Bench]]
    latency: Callable[[], float | None] = lambda: None
    beside: Callable[[Callable[[], Lease]], Coroutine[object, object, None]] | None = None
    """What the leader does as well."""
    samples: Path | None = None
    refitting: Callable[[Spec], Refitting | None] = lambda _: None
    """How the adapter of a migration is to learn from it; None: not at all."""
    ordering: Callable[[Spec], Ordering | None] = lambda _: None
    """How a migration finds the documents that it re-encodes first; None: it goes by id."""


class Conduct:
    """The work on one migration."""

    def __init__(
        self, migration: str, tools: Tools, bench: Bench, record: Migration, hold: Callable[[], Lease]
    ) -> None:
        self._id, self._tools, self._store = migration, tools, tools.store
        self._bench, self._hold = bench, hold
        self._record = record  # as `_watch` has seen it last, for those who need not know at once
        self._barrier: int | None = None  # the newest mark that a target about to serve has to show
        self._gate = Gate(tools.store, migration, hold, tools.latency)
        self._lane = Lane(
            migration=migration,
            spec=record.spec,
            index=bench.index,
            encoder=bench.encoder,
            text=compile_text(record.spec.text),
            journal=tools.journal,
            ledger=Ledger(tools.store),
            claims=Claims(),
            hold=hold,
        )

    async def run(self) -> None:
        """Work until the migration is over and cleaned up. Raises LeaseLost and MigrationStorageError."""
        while True:
            record = await self._store.read(self._id)
            if record.state in OVER and record.cleaned:
                return
            try:
                await self._step(record)
            except (LeaseLost, MigrationStorageError):
                raise
            except IllegalMove as error:  # the operator has moved it meanwhile: look again
                log.info("%s", error)
            except (EncoderFailed, IndexRefusedError, CrossfadeError) as error:
                await self._trip(record, error)

    async def _trip(self, record: Migration, error: IndexRefusedError | CrossfadeError) -> None:
        passing = isinstance(error, EncoderFailed) or (isinstance(error, IndexRefusedError) and error.retryable)
        if passing or record.state in OVER:
            log.warning("%s waits: %s", self._id, error)
            await self._gate.tell(f"waiting: {error}")
            await asyncio.sleep(1.0)
            await self._gate.tell(None)
            return
        log.error("%s failed while %s: %s", self._id, record.state, error)
        try:
            await self._change(lambda one: one.failed(str(error), retryable=True), "fail", str(error))
        except IllegalMove:
            log.info("%s had ended before it failed", self._id)

    async def _step(self, record: Migration) -> None:
        match record.state:
            case State.PLANNED if record.started:
                await prepare_target(self._bench.index, record, self._remember_target)
                await self._change(lambda one: one.moved("prepare"), "prepare")
            case State.PREPARED:
                await self._change(lambda one: one.moved("capture"), "capture")
            case State.CAPTURING if await self._tools.workers.have_seen(self._id, record.version):
                if record.aliases is None:  # from now on nobody changes them: their changes are captured, and refused
                    names = tuple(await self._bench.index.other_names(record.spec.collection))
                    await self._change(lambda one: one.model_copy(update={"aliases": names}))
                    return
                total = await self._bench.index.count(record.spec.collection)
                await self._change(lambda one: one.moved("backfill").model_copy(update={"total": total}), "backfill")
            case state if state in COPYING:
                await self._copy()
            case state if state in OVER:
                await self._clean(record)
            case _:
                await asyncio.sleep(_POLL_SECONDS)

    async def _remember_target(self) -> None:
        await self._change(lambda one: one.model_copy(update={"made_target": True}))

    async def _copy(self) -> None:
        """Copy, follow the writes and verify, until the state is another than those that ask for it."""
        await self._open_samplers()
        try:
            async with asyncio.TaskGroup() as group:
                works = (self._backfill, self._converge, self._verify, self._refit)
                beside = [group.create_task(work()) for work in works]
                await self._watch()
                for task in beside:
                    task.cancel()
        except ExceptionGroup as failures:
            raise _first(failures) from failures

    async def _open_samplers(self) -> None:
        folder, spec = self._tools.samples, self._lane.spec
        if folder is None or self._lane.sampler is not None:
            return
        distance = (await self._bench.index.describe(spec.collection)).field(spec.field).distance
        settings = self._tools.refitting(spec)
        learnt = Sampler(pairs_path(folder, self._id), distance, settings.most) if settings is not None else None
        self._lane = replace(self._lane, sampler=Sampler(sample_path(folder, self._id), distance), learnt=learnt)

    async def _refit(self) -> None:
        """Fit the adapter again as documents are re-encoded; whatever stands against it stops nothing else."""
        folder, settings, learnt = self._tools.samples, self._tools.refitting(self._lane.spec), self._lane.learnt
        if folder is None or settings is None or learnt is None:
            return

        async def tell(pairs: int) -> None:
            await self._change(lambda one: one.model_copy(update={"refitted": pairs}))

        refit = Refit(self._id, self._lane.spec, settings, learnt, folder, tell)
        count = partial(self._bench.index.count, self._lane.spec.collection)
        await refit.run(lambda: self._record.checkpoint.done, count)

    async def _watch(self) -> None:
        holding_since: float | None = None
        while (record := await self._store.read(self._id)).state in COPYING:
            began = time.monotonic()
            self._record = record
            self._barrier = self._barrier if record.settling else None
            if record.state is State.BACKFILLING and record.checkpoint.done:
                backlog = await self._tools.journal.backlog(self._id)
                if backlog.age <= _SYNCED_SECONDS and not record.throttled:
                    await self._change(lambda one: one.moved("sync"), "sync")
            if record.settling:
                await self._settle(record)
            if record.completing:
                holding_since = time.monotonic() if holding_since is None else holding_since
                await self._complete(record, time.monotonic() - holding_since)
            else:
                holding_since = None
            # A long backlog takes its time to be counted, which the bringing over shall have.
            await asyncio.sleep(max(_POLL_SECONDS, 4 * (time.monotonic() - began)))

    async def _settle(self, record: Migration) -> None:
        """Let the target answer once it shows what was acknowledged while it did not serve.

        Writes that begin from now on wait until they can be read there (`read_your_writes`); those that did not have
        left marks, and the newest of them is waited for. It takes as long as the backlog is old.
        """
        if self._barrier is None and await self._tools.workers.have_seen(self._id, record.version):
            self._barrier = await self._tools.journal.newest(self._id)
        if self._barrier is None:
            return
        oldest = await self._tools.journal.oldest_ended(self._id)
        if oldest is None or oldest > self._barrier:
            self._barrier = None
            await self._change(lambda one: one.model_copy(update={"settling": False}), "settled")

    async def _complete(self, record: Migration, held: float) -> None:
        """Leave the old index behind once no write is under way and none is left to bring over."""
        still = await self._tools.workers.have_seen(self._id, record.version)
        backlog = await self._tools.journal.backlog(self._id)
        if still and backlog.count == 0:
            await self._change(lambda one: one.moved("complete").model_copy(update={"completing": False}), "complete")
        elif held > _HOLD_SECONDS:
            reason = f"{backlog.count} points still waited after {held:.0f} s; writes go on as before"
            await self._change(lambda one: one.model_copy(update={"completing": False}), "complete given up", reason)

    async def _backfill(self) -> None:
        while True:
            mark = await self._tools.journal.whole(self._id)
            if mark is not None and mark.ended:
                await self._change(lambda one: one.model_copy(update={"checkpoint": Checkpoint()}), "walk again")
                await self._tools.journal.clear(self._id, [mark])
                if self._tools.samples is not None:
                    popular_path(self._tools.samples, self._id).unlink(missing_ok=True)
            record = await self._store.read(self._id)
            if not record.checkpoint.done:
                await self._walk(record)
            await asyncio.sleep(_SELDOM_SECONDS)

    async def _walk(self, record: Migration) -> None:
        """The first copy from where the record stands."""
        folder, spec = self._tools.samples, self._lane.spec
        ordering = self._tools.ordering(spec)
        if folder is None or (ordering is None and not record.checkpoint.ahead):
            await Backfill(self._lane, self._gate, record, self._mover_of).run()
            return

        async def find(start: PointId | None) -> Sequence[PointId]:
            kept = read_popular(popular_path(folder, self._id))
            if kept is not None or record.checkpoint.ahead or ordering is None:
                return kept or ()
            try:
                return await find_popular(self._bench.index, spec, ordering, popular_path(folder, self._id), start)
            except (AdapterError, OSError, IndexRefusedError) as error:
                if isinstance(error, IndexRefusedError) and error.retryable:
                    raise
                log.warning("%s: documents go by id: %s", self._id, error)
                return ()

        lead = 0 if ordering is None else ordering.lead
        await Backfill(self._lane, self._gate, record, self._mover_of, find, lead).run()

    async def _mover_of(self, record: Migration) -> Mover | None:
        if record.pace.engine == "local":
            return None
        if record.pace.engine == "process" and self._bench.process is not None:
            return self._bench.process
        if record.pace.engine == "process" or self._bench.ray is None:
            reason = f"engine {record.pace.engine} is not set up here"
            raise BadPlan(collection=record.spec.collection, reason=reason)
        return await self._bench.ray()

    async def _converge(self) -> None:
        while True:
            record = self._record
            spent = find_spend(record.pace, record.tally.tokens)
            if record.checkpoint.done and spent != record.throttled:  # before that, the copying tells what holds it
                await self._gate.tell(spent)
            if spent is not None:
                await asyncio.sleep(_POLL_SECONDS)
                continue
            moved = await patiently(partial(converge, self._lane, _TOGETHER), self._gate)
            if moved is None:
                await asyncio.sleep(_SERVING_SECONDS if record.view.percent else _POLL_SECONDS)
            else:
                await self._change(partial(_tallied, moved))

    async def _verify(self) -> None:
        while True:
            record = await self._store.read(self._id) if self._record.verification.asked else self._record
            if record.verification.asked and record.state is not State.BACKFILLING:
                total = await self._bench.index.count(record.spec.collection)
                await patiently(Verifying(self._lane, record, total).run, self._gate)
            await asyncio.sleep(_POLL_SECONDS)

    async def _clean(self, record: Migration) -> None:
        if not await self._tools.workers.have_seen(self._id, record.version):
            await asyncio.sleep(_POLL_SECONDS)
            return
        if record.state is State.CANCELLED:
            await clean_up(self._bench.index, record)
        elif record.drop_old:
            await self._bench.index.replace_by_alias(record.spec.collection, record.spec.target)
        await self._tools.journal.forget(self._id)
        if self._tools.samples is not None:
            sample_path(self._tools.samples, self._id).unlink(missing_ok=True)
            popular_path(self._tools.samples, self._id).unlink(missing_ok=True)
            forget_refit(self._tools.samples, self._id, adapter=record.state is State.CANCELLED)
        await self._lane.ledger.forget(self._id, self._hold())
        await self._change(lambda one: one.model_copy(update={"cleaned": True}), "cleaned up")

    async def _change(self, change: Callable[[Migration], Migration], step: str = "", reason: str = "") -> None:
        await self._store.change(self._id, change, step=step, reason=reason, lease=self._hold())


def _tallied(moved: Moved, one: Migration) -> Migration:
    return one.model_copy(update={"tally": add_to(one.tally, moved)})


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group, however deep; a lost lease before all others."""
    lost = failures.subgroup(LeaseLost)
    found: BaseException = lost if lost is not None else failures
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
