"""What differs between databases in the demo: how one is started, named in a configuration, and asked.

Everything else of the demo, its text, adapters, figures and pictures, is the same for each. Every database is asked
with its own client as it comes, for nothing that an application would not ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .demo_text import Package

Float32 = NDArray[np.float32]
Kind = Literal["qdrant", "milvus"]
HOST = "127.0.0.1"
DEPTH = 10  # hits of a query


class Refused(Exception):
    """A query that was refused; the text is what the client was told."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a database is asked, or Crossfade in front of it."""

    rest: int
    grpc: int


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens, all on 127.0.0.1: the database, and Crossfade in front of it."""

    rest: int
    grpc: int
    front_rest: int
    front_grpc: int
    admin: int

    @property
    def direct(self) -> Place:
        """The database itself."""
        return Place(self.rest, self.grpc)

    @property
    def front(self) -> Place:
        """Crossfade."""
        return Place(self.front_rest, self.front_grpc)


class Client(Protocol):
    """The database's own client, connected to a place."""

    def build(self, collection: str, packages: Sequence[Package], vectors: Float32) -> None:
        """Create a collection and store vectors (n, dim) with the packages' names and texts; ids are row numbers."""

    def ask(self, collection: str, vector: list[float]) -> list[int]:
        """The ids of the DEPTH best, best first. Raises Refused."""


class Writer(Protocol):
    """The same client, writing. Every method raises Refused."""

    def put(self, collection: str, at: int, package: Package, vector: Float32, edition: int) -> None:
        """Store a document whole, with the number of this edition."""

    def edit(self, collection: str, at: int, edition: int) -> None:
        """Change the edition alone."""

    def delete(self, collection: str, at: int) -> None:
        """Delete a document."""

    def editions(self, collection: str, ids: Sequence[int]) -> dict[int, int]:
        """The editions of those of these documents that are there."""


class Database(Protocol):
    """One database of the demo."""

    kind: Kind
    title: str
    transports: Sequence[str]  # how it can be asked: all figures are taken over the first
    one_port: bool  # REST and gRPC share one

    def listen(self, front: Place) -> str:
        """The configuration's entry under `listen` for Crossfade in front of it."""

    def upstream(self, direct: Place) -> str:
        """The configuration's entry under `upstreams`."""

    def command(self, data: Path, direct: Place) -> list[str]:
        """The command that serves it from a folder, until its parent ends."""

    def is_ready(self, direct: Place) -> bool:
        """Whether it answers."""

    def connect(self, place: Place, transport: str) -> Client:
        """Its client; the only thing that differs between database and Crossfade is the place."""

    def writer(self, place: Place) -> Writer | None:
        """A client that writes; None where the demo does not migrate."""

    def read_mark(self, front: Place, collection: str, vector: list[float]) -> str:
        """What one answer says in x-crossfade, read without the client: what was done with the query."""

    def what_to_try(self, ports: Ports, collection: str, query: Path) -> str:
        """Commands to copy into a terminal that ask `query`, a JSON file with a vector under "query"."""


def open_database(kind: Kind) -> Database:
    """A database by its kind; its client library is imported now."""
    if kind == "milvus":
        from . import demo_milvus

        return demo_milvus.DATABASE
    from . import demo_qdrant

    return demo_qdrant.DATABASE
