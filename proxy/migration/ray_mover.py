"""Movers on a Ray cluster: actors that read, encode and write pages, while this process holds points, notes and lease.

Ray Data was the first thought. Its pipelines read when it suits them; here a page's points have to be held from before
they are read until they are written, so that no write is overtaken, and every page is checkpointed by itself. So actors
are asked for one page after another, several at a time, and each overlaps its reading, encoding and writing.

No page may be written after this process has lost its lease. An actor is told until when it may begin its write: as
long as the lease holds, and at most for a few seconds. One that dies, or does not answer, is waited for until then
before its points are let go of.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from crossfade.backends.index import IndexRefusedError, PointId

from ..config_migrate import Ray
from ..errors import EncoderFailed
from .errors import BadPlan
from .moving import LocalMover, Natives, Outcome
from .store import Lease

if TYPE_CHECKING:
    from types import ModuleType

_PAGE_SECONDS: Final = 8.0  # for reading and encoding a page; a lease lasts 15
_MARGIN_SECONDS: Final = 1.0  # for a write that was begun, and for clocks of machines that differ
_FIRST_SECONDS: Final = 300.0  # for an actor to start: it loads its model

OpenMover = Callable[[], Awaitable[LocalMover]]

log = logging.getLogger("crossfade.migration.ray")


class PageTooSlowError(RuntimeError):
    """A page took longer than the lease is good for."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What went wrong in an actor, in a form that can travel."""

    kind: str  # index, encoder, slow
    place: str
    reason: str
    retryable: bool = True


class Hand:
    """An actor; `open_mover` has to be importable on every node, as have the encoder's module and crossfade itself."""

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
        """The actor's process."""
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


class RayMover:
    """Hands pages to the actor that has the fewest. Raises BadPlan when Ray is missing or cannot be reached."""

    def __init__(self, settings: Ray, collection: str, open_mover: OpenMover) -> None:
        self._ray = _connect(settings, collection)
        remote = self._ray.remote(
            num_cpus=settings.cpus, num_gpus=settings.gpus, max_restarts=-1, max_task_retries=0, max_concurrency=8
        )(Hand)
        self._hands: list[Any] = [remote.remote(open_mover) for _ in range(settings.actors)]
        self._busy = [0] * len(self._hands)
        self._ready: set[int] = set()

    async def move(self, points: Sequence[PointId], natives: Natives, check: Callable[[], Lease]) -> Outcome:
        """See Mover."""
        at = min(range(len(self._hands)), key=self._busy.__getitem__)
        self._busy[at] += 1
        try:
            await self._get_ready(at)
            lease = check()
            until = min(time.time() + _PAGE_SECONDS, lease.expires - _MARGIN_SECONDS)
            answered = await self._ask(at, list(points), natives, until)
        finally:
            self._busy[at] -= 1
        if isinstance(answered, Refused):
            raise _error_of(answered)
        return answered

    async def _get_ready(self, at: int) -> None:
        """Loading a model must not count against a page."""
        if at in self._ready:
            return
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._hands[at].ready.remote().future()), _FIRST_SECONDS)
        except (self._ray.exceptions.RayError, TimeoutError) as error:
            raise IndexRefusedError("(ray)", f"actor {at} does not start: {error}", retryable=True) from error
        self._ready.add(at)

    async def _ask(self, at: int, points: list[PointId], natives: Natives, until: float) -> Outcome | Refused:
        asked = asyncio.wrap_future(self._hands[at].move.remote(points, natives, until).future())
        try:
            answer: Outcome | Refused = await asyncio.shield(asked)
        except asyncio.CancelledError:  # what it has begun has to end before the points are let go of
            await asyncio.wait([asked], timeout=_left(until))
            raise
        except self._ray.exceptions.RayError as error:
            self._ready.discard(at)
            log.warning("actor %d: %s", at, error)
            await asyncio.sleep(_left(until))  # it may be alive somewhere, and write until then
            raise IndexRefusedError("(ray)", f"actor {at} failed: {error}", retryable=True) from error
        return answer

    async def pids(self) -> Sequence[int]:
        """The actors' processes, each on its own node."""
        asked = (asyncio.wrap_future(hand.pid.remote().future()) for hand in self._hands)
        found: list[int] = await asyncio.gather(*asked)
        return found

    def close(self) -> None:
        """End the actors; the cluster stays."""
        for hand in self._hands:
            self._ray.kill(hand)


class RayMovers:
    """One RayMover, made when it is first asked for: in a thread, because connecting takes seconds."""

    def __init__(self, settings: Ray, collection: str, open_mover: OpenMover) -> None:
        self._made: RayMover | None = None
        self._making = asyncio.Lock()
        self._make = partial(RayMover, settings, collection, open_mover)

    async def __call__(self) -> RayMover:
        """The mover. Raises BadPlan when Ray is missing or cannot be reached."""
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
        return self._made

    def close(self) -> None:
        """End the actors, if there are any."""
        if self._made is not None:
            self._made.close()


def _left(until: float) -> float:
    return max(0.0, until + _MARGIN_SECONDS - time.time())


def _error_of(refused: Refused) -> Exception:
    if refused.kind == "encoder":
        return EncoderFailed(model=refused.place, endpoint="ray", reason=refused.reason)
    return IndexRefusedError(refused.place, refused.reason, retryable=refused.retryable)


def _connect(settings: Ray, collection: str) -> ModuleType:
    try:
        import ray  # 200 MB: only where it is asked for
    except ImportError as error:
        reason = "engine ray needs the package ray; pip install 'crossfade[ray]'"
        raise BadPlan(collection=collection, reason=reason) from error
    if not ray.is_initialized():
        try:
            ray.init(address=settings.address, log_to_driver=False, include_dashboard=False, ignore_reinit_error=True)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = f"Ray at {settings.address or 'this machine'} cannot be used: {error}"
            raise BadPlan(collection=collection, reason=reason) from error
    loaded: ModuleType = ray  # without its package a type checker knows nothing of it
    return loaded
