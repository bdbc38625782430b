"""The demo's questions: every query one after the other, and how long single ones take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .demo_database import DEPTH, Client, Float32, Refused

Advance = Callable[[int], None]
MISSED = -1  # in a ranking: nothing there


@dataclass(frozen=True, slots=True)
class Answers:
    """What a run of queries got: rows of documents (queries, DEPTH), best first, and the error if there was one."""

    rankings: NDArray[np.int64]
    refused: int
    message: str | None


def ask_all(client: Client, collection: str, vectors: Float32, advance: Advance) -> Answers:
    """Ask one query after the other, vectors (n, dim); a refused one finds nothing and is counted."""
    rankings = np.full((len(vectors), DEPTH), MISSED, np.int64)
    refused, message = 0, None
    for at, vector in enumerate(vectors):
        try:
            found = client.ask(collection, vector.tolist())
            rankings[at, : len(found)] = found
        except Refused as error:
            refused, message = refused + 1, str(error)
        advance(1)
    return Answers(rankings, refused, message)


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of single queries, one after the other."""

    p50: float
    p99: float


def measure_latency(routes: Sequence[Callable[[int], object]], count: int, advance: Advance) -> list[Latency]:
    """Time `count` queries by each route in turn, so that whatever else the machine does hits all of them alike."""
    taken = np.empty((count, len(routes)))
    for at in range(count):
        for column, ask in enumerate(routes):
            started = time.perf_counter()
            ask(at)
            taken[at, column] = (time.perf_counter() - started) * 1000
        advance(1)
    return [Latency(*map(float, np.percentile(column, [50, 99]))) for column in taken.T]


def route(client: Client, collection: str, vectors: Float32) -> Callable[[int], object]:
    """A function that asks the query of a number, with vectors (n, dim) turned into lists beforehand."""
    lists = vectors.tolist()
    return lambda at: client.ask(collection, lists[at % len(lists)])
