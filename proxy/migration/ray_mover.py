"""Movers on a Ray cluster: actors that read, encode and write pages, while this process holds points, notes and lease.

Ray Data was the first thought. Its pipelines read when it suits them; here a page's points have to be held from before
they are read until they are written, so that no write is overtaken, and every page is checkpointed by itself. So actors
are asked for one page after another, several at a time, and each overlaps its reading, encoding and writing.

What keeps an actor from writing after this process has lost its lease stands in hand.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from crossfade.backends.index import IndexRefusedError, PointId

from ..config_migrate import Ray
from .errors import BadPlan
from .hand import FIRST_SECONDS, Hand, OpenMover, Refused, end_of, error_of, left
from .moving import Natives, Outcome
from .store import Lease

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger("crossfade.migration.ray")


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
            answered = await self._ask(at, list(points), natives, end_of(check()))
        finally:
            self._busy[at] -= 1
        if isinstance(answered, Refused):
            raise error_of(answered, "ray")
        return answered

    async def _get_ready(self, at: int) -> None:
        """Loading a model must not count against a page."""
        if at in self._ready:
            return
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._hands[at].ready.remote().future()), FIRST_SECONDS)
        except (self._ray.exceptions.RayError, TimeoutError) as error:
            raise IndexRefusedError("(ray)", f"actor {at} does not start: {error}", retryable=True) from error
        self._ready.add(at)

    async def _ask(self, at: int, points: list[PointId], natives: Natives, until: float) -> Outcome | Refused:
        asked = asyncio.wrap_future(self._hands[at].move.remote(points, natives, until).future())
        try:
            answer: Outcome | Refused = await asyncio.shield(asked)
        except asyncio.CancelledError:  # what it has begun has to end before the points are let go of
            await asyncio.wait([asked], timeout=left(until))
            raise
        except self._ray.exceptions.RayError as error:
            self._ready.discard(at)
            log.warning("actor %d: %s", at, error)
            await asyncio.sleep(left(until))  # it may be alive somewhere, and write until then
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
