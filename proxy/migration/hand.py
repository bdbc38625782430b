"""One who moves pages elsewhere than where their points are held: in another process, or on another machine.

No page may be written after the holder has lost its lease. A hand is told until when it may begin its write: as long as
the lease holds, and at most for a few seconds. One that dies, or does not answer, is waited for until then before its
points are let go of.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from crossfade.backends.index import IndexRefusedError, PointId

from ..errors import EncoderFailed
from .moving import LocalMover, Natives, Outcome
from .store import Lease

_PAGE_SECONDS: Final = 8.0  # for reading and encoding a page; a lease lasts 15
_MARGIN_SECONDS: Final = 1.0  # for a write that was begun, and for clocks of machines that differ
FIRST_SECONDS: Final = 300.0  # for a hand to start: it loads its model

OpenMover = Callable[[], Awaitable[LocalMover]]


class PageTooSlowError(RuntimeError):
    """A page took longer than the lease is good for."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What went wrong there, in a form that can travel."""

    kind: str  # index, encoder, slow
    place: str
    reason: str
    retryable: bool = True


class Hand:
    """Whoever does it; `open_mover` has to be importable there, as have the encoder's module and crossfade itself."""

    def __init__(self, open_mover: OpenMover) -> None:
        self._open = open_mover
        self._mover: LocalMover | None = None
        self._opening = asyncio.Lock()

    async def ready(self) -> bool:
        """Open index and encoder."""
        async with self._opening:
            if self._mover is None:
                self._mover = await self._open()
        return True

    async def pid(self) -> int:
        """Its process."""
        return os.getpid()

    async def move(self, points: Sequence[PointId], natives: Natives, until: float) -> Outcome | Refused:
        """A page, whose write begins before `until` (seconds since 1970) or not at all."""

        def check() -> None:
            if time.time() > until:
                raise PageTooSlowError(f"reading and encoding {len(points)} points took too long")

        await self.ready()
        assert self._mover is not None  # ready has just seen to it
        try:
            return await self._mover.move(points, natives, check)
        except IndexRefusedError as error:
            return Refused("index", error.collection, str(error), error.retryable)
        except EncoderFailed as error:
            return Refused("encoder", self._mover.spec.to_model, str(error))
        except PageTooSlowError as error:
            return Refused("slow", self._mover.spec.collection, str(error))


def end_of(lease: Lease) -> float:
    """Until when a page that is begun now may be written, in seconds since 1970."""
    return min(time.time() + _PAGE_SECONDS, lease.expires - _MARGIN_SECONDS)


def left(until: float) -> float:
    """Seconds until nothing of a page is under way any more."""
    return max(0.0, until + _MARGIN_SECONDS - time.time())


def error_of(refused: Refused, place: str) -> Exception:
    """What a hand has met, `place` being where it works."""
    if refused.kind == "encoder":
        return EncoderFailed(model=refused.place, endpoint=place, reason=refused.reason)
    return IndexRefusedError(refused.place, refused.reason, retryable=refused.retryable)
