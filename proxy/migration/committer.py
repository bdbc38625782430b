"""Group commit: work that waits together shares one transaction, and so one fsync."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from .database import Desk

Result = TypeVar("Result")
_TOGETHER = 1024  # pieces of work in one transaction
_PATIENCE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class _Piece:
    work: Callable[[Connection], Any]
    durable: bool
    patient: bool
    done: Future[Any] = field(default_factory=Future)


class Committer:
    """A thread that performs writing work on a database in the order it comes; a piece that fails does so alone."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self._desk = Desk(engine)
        self._queue: SimpleQueue[_Piece | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Connection], Result], *, durable: bool, patient: bool = False) -> Future[Result]:
        """Have work done in a transaction; `durable` work is on stable storage when the future is done.

        `patient` work, which nobody waits for, may wait a moment for other work whose transaction it can share.
        """
        piece = _Piece(work, durable, patient)
        self._queue.put(piece)
        return piece.done

    async def run(self, work: Callable[[Connection], Result], *, durable: bool) -> Result:
        """Do work and wait for its commit; it is done also when the caller is cancelled meanwhile."""
        return await asyncio.shield(asyncio.wrap_future(self.submit(work, durable=durable)))

    def shut(self) -> None:
        """Do what waits, then end the thread and close the database."""
        self._queue.put(None)
        self._thread.join()
        self._desk.clear()

    def _run(self) -> None:
        while True:
            pieces = [self._queue.get()]
            until, patient = monotonic() + _PATIENCE_SECONDS, True
            while len(pieces) < _TOGETHER:
                patient = patient and pieces[-1] is not None and pieces[-1].patient
                try:
                    pieces.append(self._queue.get(patient, max(0.0, until - monotonic())))
                except Empty:
                    break
            self._commit([piece for piece in pieces if piece is not None])
            if None in pieces:
                return

    def _commit(self, pieces: list[_Piece]) -> None:
        if not pieces:
            return
        try:
            with self._desk.writing(durable=any(piece.durable for piece in pieces)) as connection:
                results = [piece.work(connection) for piece in pieces]
        except Exception as error:  # it belongs to whoever waits, and the thread has to go on
            down = isinstance(
                error.__cause__, OperationalError | sqlite3.OperationalError
            )  # it would be for each of them
            if len(pieces) > 1 and not down:  # nothing of the transaction has happened: each piece again, by itself
                for piece in pieces:
                    self._commit([piece])
                return
            self._desk.clear()
            for piece in pieces:
                piece.done.set_exception(error)
            return
        for piece, result in zip(pieces, results, strict=True):
            piece.done.set_result(result)
