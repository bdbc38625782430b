"""The controller: the one process that moves migrations on, holding a lease that every one of its writes carries.

Any number of controllers may run; the one with the lease works, the others wait. A controller whose lease may have run
out stops before its next write, and one that takes over begins when the lease of the last has expired, by when the
requests of a killed one have long arrived. Where it is seen that the last one has ended (presence.py) it begins as soon
as they must have arrived.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from typing import Final

from .conduct import Conduct, Tools
from .errors import LeaseLost, MigrationStorageError
from .machine import OVER
from .presence import presence_of
from .record import Migration
from .store import Lease

LEASE: Final = "controller"
_POLL_SECONDS: Final = 0.25
_ARRIVED_SECONDS: Final = 1.0  # requests of a process that has ended on this machine have reached the database by then

log = logging.getLogger("crossfade.migration.runner")


class Held:
    """A lease, and until when this process may surely act on it: by its own clock, some time before it expires."""

    def __init__(self, lease: Lease, asked: float, ttl: float) -> None:
        self.prolong(lease, asked, ttl)

    def prolong(self, lease: Lease, asked: float, ttl: float) -> None:
        """Hold a lease that was asked for at a monotonic time."""
        self._lease, self._until = lease, asked + ttl * 0.8

    def __call__(self) -> Lease:
        """The lease. Raises LeaseLost when it may have run out."""
        if time.monotonic() > self._until:
            one = self._lease
            reason = "it could not be renewed in time; is the machine or the database overloaded?"
            raise LeaseLost(name=one.name, holder=one.holder, token=one.token, reason=reason)
        return self._lease


class Controller:
    """Leads all migrations of a store while it has the lease; `ttl` is the lease's length in seconds."""

    def __init__(self, tools: Tools, holder: str | None = None, ttl: float = 15.0) -> None:
        self._tools, self._ttl = tools, ttl
        self._holder = holder or f"{socket.gethostname()}:{os.getpid()}"
        self._running: set[str] = set()
        self._presence = presence_of(tools.store.url)

    async def run(self) -> None:
        """Lead, or wait to lead, until cancelled."""
        while True:
            try:
                await self._try_to_lead()
            except* LeaseLost as lost:
                log.warning("%s stands back: %s", self._holder, lost.exceptions[0])
            except* MigrationStorageError as failed:
                log.error("%s: %s", self._holder, failed.exceptions[0])
            await asyncio.sleep(min(1.0, self._ttl / 8))

    async def _try_to_lead(self) -> None:
        if not self._presence.take():
            return
        try:
            await self._lead_if_free()
        finally:
            self._presence.leave()

    async def _lead_if_free(self) -> None:
        asked = time.monotonic()
        lease = await self._tools.store.acquire(LEASE, self._holder, self._ttl)
        if lease is None and self._presence.proves and not await self._elsewhere():
            last = await self._tools.store.leader(LEASE)
            await asyncio.sleep(_ARRIVED_SECONDS)
            asked = time.monotonic()
            gone = None if last is None else last.token
            lease = await self._tools.store.acquire(LEASE, self._holder, self._ttl, abandoned=gone)
        if lease is None:
            return
        log.info("%s leads with token %d", self._holder, lease.token)
        held = Held(lease, asked, self._ttl)
        self._running.clear()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._renew(held))
                group.create_task(self._lead(group, held))
                if self._tools.beside is not None:
                    group.create_task(self._tools.beside(held))
        except asyncio.CancelledError:  # a clean end: whoever follows need not wait for the lease to expire
            await self._tools.store.release(held())
            raise

    async def _elsewhere(self) -> bool:
        """Whether actors on other machines may outlive the controller that has ended: its lease limits them."""
        return any(one.pace.engine == "ray" for one in await self._tools.store.read_all() if one.state not in OVER)

    async def _renew(self, held: Held) -> None:
        while True:
            await asyncio.sleep(self._ttl / 4)
            asked = time.monotonic()
            held.prolong(await self._tools.store.renew(held(), self._ttl), asked, self._ttl)

    async def _lead(self, group: asyncio.TaskGroup, held: Held) -> None:
        while True:
            for record in await self._tools.store.read_all():
                if record.id not in self._running and not (record.state in OVER and record.cleaned):
                    self._running.add(record.id)
                    group.create_task(self._conduct(record, held))
            await asyncio.sleep(_POLL_SECONDS)

    async def _conduct(self, record: Migration, held: Held) -> None:
        """Move one migration on; what nobody foresaw is kept to it, and does not stop the others."""
        try:
            async with self._tools.open_bench(record) as bench:
                await Conduct(record.id, self._tools, bench, record, held).run()
        except (LeaseLost, MigrationStorageError):
            raise
        except Exception as error:  # whatever it is: it belongs into the record, where the operator looks
            log.exception("migration %s of %s stopped", record.id, record.spec.collection)
            await self._note(record, held, f"{type(error).__name__}: {error}")
            await asyncio.sleep(self._ttl / 4)
        finally:
            self._running.discard(record.id)

    async def _note(self, record: Migration, held: Held, error: str) -> None:
        def fail(one: Migration) -> Migration:
            return one if one.state in OVER or one.error is not None else one.failed(error, retryable=True)

        await self._tools.store.change(record.id, fail, step="stopped", reason=error, lease=held())
