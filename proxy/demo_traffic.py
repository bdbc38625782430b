"""Clients that go on while the demo migrates: one asks every query over and over, one writes, each in a thread."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from .demo_ask import Answers, ask_all
from .demo_database import Client, Float32, Refused, Writer
from .demo_text import Package

_PAUSE_SECONDS = 0.02  # between two writes
_SEED = 11


@dataclass(frozen=True, slots=True)
class Pass:
    """All queries asked once, and how much of the documents was in the new index meanwhile (0 to 1, in the middle)."""

    share: float
    answers: Answers


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A collection and what is asked and written: packages, their vectors by the new model (n, dim), and queries."""

    collection: str
    packages: Sequence[Package]
    documents: Float32
    queries: Float32


@dataclass(slots=True)
class Traffic:
    """What clients have asked and written so far; `share` tells how much of the documents the new index has.

    `editions`: for each document that was written, the number of the last acknowledged write, None when it deleted it.
    """

    share: Callable[[], float]
    passes: list[Pass] = field(default_factory=list)
    queries: int = 0
    writes: int = 0
    failed: list[str] = field(default_factory=list)
    editions: dict[int, int | None] = field(default_factory=dict)
    _ending: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def run(self, asker: Client, writer: Writer, stored: Stored) -> Iterator[None]:
        """Ask and write until the block has ended."""
        threads = [
            threading.Thread(target=self._ask, args=(asker, stored), name="asks", daemon=True),
            threading.Thread(target=self._write, args=(writer, stored), name="writes", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ending.set()
            for thread in threads:
                thread.join()

    def _ask(self, client: Client, stored: Stored) -> None:
        while not self._ending.is_set():
            began = self.share()
            answers = ask_all(client, stored.collection, stored.queries, self._asked)
            if answers.refused:
                self.failed.append(f"{answers.refused} queries: {answers.message}")
            self.passes.append(Pass((began + self.share()) / 2, answers))

    def _asked(self, count: int) -> None:
        self.queries += count

    def _write(self, writer: Writer, stored: Stored) -> None:
        """Change documents that no query asks for, in three ways; a document is written by this thread alone."""
        chance = random.Random(_SEED)
        spare = range(len(stored.queries), len(stored.packages))
        while not self._ending.is_set():
            at, edition = chance.choice(spare), self.writes + 1
            try:
                self.editions[at] = self._change(writer, stored, chance.random(), at, edition)
                self.writes += 1
            except Refused as error:
                self.failed.append(f"write to document {at}: {error}")
            time.sleep(_PAUSE_SECONDS)

    def _change(self, writer: Writer, stored: Stored, kind: float, at: int, edition: int) -> int | None:
        here = self.editions.get(at, 0) is not None
        if here and kind < 0.1:
            writer.delete(stored.collection, at)
            return None
        if here and kind < 0.5:
            writer.edit(stored.collection, at, edition)
        else:
            writer.put(stored.collection, at, stored.packages[at], stored.documents[at], edition)
        return edition
