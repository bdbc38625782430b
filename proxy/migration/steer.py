"""The leader's work for the configuration's goals: takes up what the file says, makes the next step, steps back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from crossfade.backends.index import IndexRefusedError

from ..config import Config
from ..config_migrate import Migrate
from ..errors import CrossfadeError
from .errors import GateClosed, IllegalMove, LeaseLost, MigrationStorageError
from .guardrails import Seen, find_breach
from .machine import OVER
from .record import Migration
from .steering import Step, Wait, next_step, step_below, take_wishes, wishes_of
from .store import Lease
from .verbs import BY_FILE, BY_GUARDRAIL, Say, Verbs

_POLL_SECONDS: Final = 0.5
_TROUBLE_SECONDS: Final = 5.0

log = logging.getLogger("crossfade.migration.steer")


class Watch(Protocol):
    """What is seen of the serving."""

    def seen(self, collection: str, seconds: float) -> Seen:
        """Requests of a collection in the last so many seconds."""
        ...


@dataclass(slots=True)
class Steer:
    """`begin` plans and starts the configured migration of a collection."""

    verbs: Verbs
    config: Callable[[], Config]
    begin: Callable[[Say], Awaitable[Migration]]
    watch: Watch
    _quiet_until: dict[str, float] = field(default_factory=dict)  # collections whose last step could not be made

    async def run(self, hold: Callable[[], Lease]) -> None:
        """Steer every collection that the configuration describes a migration of. Raises LeaseLost."""
        while True:
            newest = {record.spec.collection: record for record in await self.verbs.store.read_all()}
            for name, collection in self.config().collections.items():
                hold()
                if collection.migrate is not None and self._quiet_until.get(name, 0.0) < _now():
                    await self._look(name, collection.migrate, newest.get(name))
            await asyncio.sleep(_POLL_SECONDS)

    async def _look(self, name: str, migrate: Migrate, record: Migration | None) -> None:
        try:
            if record is not None and record.state not in OVER:
                record = await self._take(record, migrate)
                if await self._stepped_back(record, migrate):
                    return
            await self._step(name, migrate, record)
        except (LeaseLost, MigrationStorageError):
            raise
        except (CrossfadeError, IndexRefusedError) as error:
            level = logging.INFO if isinstance(error, GateClosed | IllegalMove) else logging.ERROR
            log.log(level, "goal %s of collection %r: %s", migrate.goal, name, error)
            self._quiet_until[name] = _now() + _TROUBLE_SECONDS

    async def _take(self, record: Migration, migrate: Migrate) -> Migration:
        wishes = wishes_of(migrate)
        if record.wishes == wishes:
            return record
        before = record.wishes.goal if record.wishes is not None else "none"
        told = f"goal {before} -> {wishes.goal}" if before != wishes.goal else "limits, strategy or shadow"
        return await self.verbs.store.change(
            record.id, lambda one: take_wishes(one, wishes), actor=BY_FILE, step="configuration taken up", reason=told
        )

    async def _step(self, name: str, migrate: Migrate, record: Migration | None) -> None:
        step = await find_step(self.verbs, migrate, record)
        if isinstance(step, Wait):
            return
        say = Say(name, BY_FILE, f"goal {migrate.goal}")
        match step.verb:
            case "plan" | "start":
                await self.begin(say)
            case "verify":
                await self.verbs.verify(say)
            case "switch":
                await self.verbs.switch(say, step.percent)
            case "reverse":
                await self.verbs.reverse(say)

    async def _stepped_back(self, record: Migration, migrate: Migrate) -> bool:
        """Lower the share by a step when a guardrail does not hold, as seen since the share is what it is."""
        share, rails = record.share, migrate.guardrails
        if not share or record.completing or record.moved_at is None:
            return False
        since = min(rails.window, self.verbs.store.clock() - record.moved_at)
        breach = find_breach(rails, self.watch.seen(record.spec.collection, since))
        if breach is None:
            return False
        less = step_below(migrate, share)
        reason = f"{breach}; from {share:g} % to {less:g} %"
        log.error("collection %r: %s", record.spec.collection, reason)
        say = Say(record.spec.collection, BY_GUARDRAIL, reason)
        await (self.verbs.switch(say, less) if less else self.verbs.reverse(say))
        await self.verbs.store.change(record.id, lambda one: one.model_copy(update={"stepped_back": breach}))
        return True


async def find_step(verbs: Verbs, migrate: Migrate, record: Migration | None) -> Step | Wait:
    """The next step towards the goal, with the gates as they stand."""
    if record is None or record.state in OVER:
        return next_step(record, migrate, gates=(), verdict="never", now=verbs.store.clock())
    backlog = await verbs.journal.backlog(record.id)
    gates = await verbs.closed_gates(record, backlog)
    return next_step(record, migrate, gates=gates, verdict=verbs.verdict(record), now=verbs.store.clock())


def _now() -> float:
    return asyncio.get_running_loop().time()
