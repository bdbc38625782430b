"""A controller in a process of its own, for tests that kill it: python controller_child.py URL GRPC REST DIRECTORY."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from crossfade.backends.qdrant.index import QdrantIndex
from crossfade.proxy.migration.conduct import Bench, Tools
from crossfade.proxy.migration.journal import Journal
from crossfade.proxy.migration.popular import Ordering
from crossfade.proxy.migration.record import Migration
from crossfade.proxy.migration.runner import Controller
from crossfade.proxy.migration.store import Store
from tests.proxy.migration.scenery import TestEncoder, connect, journal_of

TTL = 3.0
LEAD = 60  # points that go by id before popular ones, where there is an adapter beside the file
DRAWN = 400  # queries for their popularity, enough for a few hundred points


class SeenInFile:
    """What the writers' process has seen: it writes the version to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def have_seen(self, migration: str, version: int) -> bool:
        return int(self._path.read_text() or 0) >= version


async def main(url: str, grpc_port: int, rest_port: int, seen: Path) -> None:
    client = connect(grpc_port, rest_port)

    @asynccontextmanager
    async def open_bench(_: Migration) -> AsyncIterator[Bench]:
        yield Bench(QdrantIndex(client), TestEncoder(delay=0.15))

    folder = seen.parent
    popular = Ordering(folder / "adapter", folder, LEAD, DRAWN) if (folder / "adapter").exists() else None
    tools = Tools(
        Store(url),
        Journal(journal_of(url)),
        SeenInFile(seen),
        open_bench,
        samples=folder / "migrations",
        ordering=lambda _: popular,
    )
    await Controller(tools, ttl=TTL).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
