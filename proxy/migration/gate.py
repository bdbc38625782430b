"""The gate before each batch of the re-encode: it opens when the operator's limits allow it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .pace import Allowance, Situation, find_throttle, spend
from .record import Migration
from .store import Lease, Store

_POLL_SECONDS = 0.2


@dataclass(slots=True)
class Gate:
    """One migration's gate; `latency` gives the serving p99 in ms, or None where nobody measures it."""

    store: Store
    migration: str
    hold: Callable[[], Lease]
    latency: Callable[[], float | None]
    _allowance: Allowance = field(default_factory=lambda: Allowance(0.0, time.monotonic()))

    async def wait(self) -> Migration:
        """Return, with the record as it is, once nothing is paused or throttled; what waits stands in the record."""
        while True:
            record = await self.store.read(self.migration)
            reason = self._find_reason(record)
            if reason != record.throttled:
                await self.tell(reason)
            if reason is None and not record.paused:
                return record
            await asyncio.sleep(_POLL_SECONDS)

    async def pay(self, rate: float | None, points: int) -> None:
        """Wait as long as the rate asks for after so many points."""
        if rate is not None:
            self._allowance, wait = spend(self._allowance, rate, points, time.monotonic())
            await asyncio.sleep(wait)

    async def tell(self, reason: str | None) -> None:
        """Put into the record why nothing goes on, or that it does."""
        await self.store.change(
            self.migration, lambda one: one.model_copy(update={"throttled": reason}), lease=self.hold()
        )

    def _find_reason(self, record: Migration) -> str | None:
        clock = time.gmtime()
        flag = record.pace.flag_file
        now = Situation(
            minute=clock.tm_hour * 60 + clock.tm_min,
            flagged=flag is not None and os.path.exists(flag),
            latency_ms=self.latency(),
            tokens=record.tally.tokens,
        )
        return find_throttle(record.pace, now)
