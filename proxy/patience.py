"""How long the new index is waited for, and how soon it is asked again after it did not answer.

While a migration runs the old index can answer everything, so the new one must never make a request fail, nor every
request slow: one that did not answer rests, and is then asked by a single request first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from .errors import UpstreamDown

REST_SECONDS = 5.0
Reason = Literal["down", "slow", "resting", "refused", "unreadable"]

Result = TypeVar("Result")


class TargetFailed(Exception):
    """The new index did not answer, or not with what was asked for; the old one can."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class Patience:
    """One event loop's patience with one migration's target."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rests_until = 0.0

    async def wait(self, work: Awaitable[Result], seconds: float) -> Result:
        """The result of asking the target, within so many seconds; raises TargetFailed."""
        try:
            async with asyncio.timeout(seconds):
                done = await work
        except UpstreamDown as error:
            self._rest()
            raise TargetFailed("down") from error
        except TimeoutError as error:
            self._rest()
            raise TargetFailed("slow") from error
        self._rests_until = 0.0
        return done

    def check(self) -> None:
        """Raise TargetFailed while the target rests; the first request after that tries it, and the others wait on."""
        if self._rests_until:
            if self._clock() < self._rests_until:
                raise TargetFailed("resting")
            self._rest()

    def _rest(self) -> None:
        self._rests_until = self._clock() + REST_SECONDS


def seconds_to_wait(limit: float, deadline: str | None) -> float:
    """How long to wait for the target: up to the limit, and half of the client's deadline (grpc-timeout), if any."""
    if not deadline or not deadline[:-1].isdigit():
        return limit
    units = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
    return min(limit, int(deadline[:-1]) * units.get(deadline[-1], 1.0) / 2)
