"""Queries that wait together are multiplied together: one product reads a map's weights once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.base import Map

Float32 = NDArray[np.float32]
Result = TypeVar("Result")

# One thread: BLAS releases the interpreter, and a second product beside the first would only take the other core from
# the database.
_POOL = ThreadPoolExecutor(1, thread_name_prefix="crossfade-map")


class Batcher:
    """Applies maps on one event loop: small requests gathered for a tick, large ones in a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[int, tuple[Map, list[tuple[Float32, asyncio.Future[Float32]]]]] = {}

    async def off_loop(self, work: Callable[..., Result], *given: Any) -> Result:
        """Do large work in the thread."""
        return await self._loop.run_in_executor(_POOL, partial(work, *given))

    async def apply(self, through: Map, rows: Float32, inline_rows: int) -> Float32:
        """Map rows (n, source_dim) to (n, target_dim); more than `inline_rows` are mapped in the thread."""
        if len(rows) > inline_rows:
            return await self.off_loop(through.apply, rows)
        future: asyncio.Future[Float32] = self._loop.create_future()
        waiting = self._waiting.get(id(through))
        if waiting is None:
            self._waiting[id(through)] = (through, [(rows, future)])
            if len(self._waiting) == 1:
                self._loop.call_soon(self._flush)
        else:
            waiting[1].append((rows, future))
        return await future

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for through, queue in waiting.values():
            _apply_together(through, queue)


def _apply_together(through: Map, queue: list[tuple[Float32, asyncio.Future[Float32]]]) -> None:
    rows = queue[0][0] if len(queue) == 1 else np.concatenate([rows for rows, _ in queue])
    try:
        mapped = through.apply(rows)
    except Exception as error:  # whatever it is belongs to the requests that wait for it
        for _, future in queue:
            if not future.done():
                future.set_exception(error)
        return
    start = 0
    for part, future in queue:
        end = start + len(part)
        if not future.done():  # done: the client has gone
            future.set_result(mapped[start:end])
        start = end
