"""A mover in a process of its own, at low priority: what it does keeps neither this process nor queries waiting.

It is asked for several pages at a time over a socket, in pickles, and ends with this process, however that ends. One
that dies is started again with the next page.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import logging
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from struct import Struct
from typing import Any, Final

import numpy as np

from crossfade.backends.index import IndexRefusedError, PointId

from ..errors import EncoderFailed
from .hand import FIRST_SECONDS, OpenMover, Refused, end_of, error_of, left
from .moving import Natives, Outcome
from .store import Lease

_PLACE: Final = "a process of its own"
_ARRIVED_SECONDS: Final = 1.0  # requests of a process that has ended have reached the database by then
_SIZE: Final = Struct("<Q")
_PR_SET_PDEATHSIG: Final = 1

log = logging.getLogger("crossfade.migration.process")


class _ProcessEndedError(RuntimeError):
    """The other process has gone."""


class ProcessMover:
    """Hands pages to the process, which is started with the first. `open_mover` has to be picklable."""

    def __init__(self, open_mover: OpenMover) -> None:
        self._open = open_mover
        self._child: _Child | None = None
        self._starting = asyncio.Lock()

    async def move(self, points: Sequence[PointId], natives: Natives, check: Callable[[], Lease]) -> Outcome:
        """See Mover."""
        child = await self._ready()
        until = end_of(check())
        asked = asyncio.ensure_future(child.ask("move", list(points), natives, until))
        try:
            answered = await asyncio.shield(asked)
        except asyncio.CancelledError:  # what it has begun has to end before the points are let go of
            await asyncio.wait([asked], timeout=left(until))
            raise
        except _ProcessEndedError as error:
            await asyncio.sleep(min(_ARRIVED_SECONDS, left(until)))
            raise IndexRefusedError("(process)", str(error), retryable=True) from error
        if isinstance(answered, Refused):
            raise error_of(answered, _PLACE)
        outcome: Outcome = unpack_pairs(*answered)
        return outcome

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return None if self._child is None or self._child.ended else self._child.process.pid

    async def _ready(self) -> _Child:
        async with self._starting:
            if self._child is None or self._child.ended:
                child = await _Child.start()
                try:
                    await child.greet()
                    answered = await asyncio.wait_for(child.ask("open", self._open), FIRST_SECONDS)
                except (_ProcessEndedError, ConnectionError, TimeoutError) as error:
                    child.end()
                    raise IndexRefusedError("(process)", f"it does not start: {error}", retryable=True) from error
                except BaseException:
                    child.end()
                    raise
                if answered is not None:
                    child.end()
                    raise EncoderFailed(model="(process)", endpoint=_PLACE, reason=answered)
                self._child = child
            return self._child

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.end()


class _Child:
    """The process and the questions that it has not answered."""

    def __init__(self, process: asyncio.subprocess.Process, writer: asyncio.StreamWriter) -> None:
        self.process, self.ended = process, False
        self._writer = writer
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._listening: asyncio.Task[None] | None = None

    @staticmethod
    async def start() -> _Child:
        """Start one that listens."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "crossfade.proxy.migration.moving_child", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                preexec_fn=_die_with_parent,
                start_new_session=True,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        child = _Child(process, writer)
        child._listening = asyncio.get_running_loop().create_task(child._listen(reader))
        return child

    async def greet(self) -> None:
        """Tell it where modules are found. Raises ConnectionError when it has ended."""
        await send(self._writer, sys.path)

    async def ask(self, what: str, *arguments: object) -> Any:
        """Its answer. Raises _ProcessEndedError."""
        if self.ended:
            raise _ProcessEndedError("it has ended")
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            with suppress(ConnectionError):  # then it has ended, and whoever listens says so
                await send(self._writer, (number, what, arguments))
            return await self._asked[number]
        finally:
            self._asked.pop(number, None)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                number, answer = await receive(reader)
                if number in self._asked and not self._asked[number].done():
                    self._asked[number].set_result(answer)
        self.end()
        code = await self.process.wait()
        log.info("the process of the re-encode has ended with %d", code)
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(_ProcessEndedError(f"it has ended with {code}; its log says why"))

    def end(self) -> None:
        """Kill it; what it was writing arrives or does not."""
        self.ended = True
        self._writer.close()
        with suppress(ProcessLookupError):
            self.process.kill()


def _die_with_parent() -> None:
    """Between fork and exec: a killed controller must not leave somebody who writes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def send(writer: asyncio.StreamWriter, message: object) -> None:
    """Write a message. Raises ConnectionError."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    writer.write(_SIZE.pack(len(data)) + data)
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> Any:
    """Read a message. Raises IncompleteReadError at the end."""
    (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
    return pickle.loads(await reader.readexactly(size))  # of the process that this one has started


def pack_pairs(outcome: Outcome) -> tuple[Outcome, list[PointId], Any, Any]:
    """An outcome for the way: its vectors as two arrays (n, dim), since many small ones take long to pickle."""
    pairs = outcome.pairs
    new, old = (np.stack([pair[at] for pair in pairs.values()]) if pairs else None for at in range(2))
    return replace(outcome, pairs={}), list(pairs), new, old


def unpack_pairs(outcome: Outcome, points: list[PointId], new: Any, old: Any) -> Outcome:
    """What `pack_pairs` packed."""
    return replace(outcome, pairs=dict(zip(points, zip(new, old, strict=True), strict=True)) if points else {})
