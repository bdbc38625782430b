"""What a worker counts, as plain numbers: cheap on the path of a request, written to a file that the supervisor reads.

A worker keeps one Tally for each event loop; `prometheus` adds those of all workers, living and gone, and serves them.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

# Seconds. Mapping takes tens of microseconds, an upstream up to seconds.
BOUNDS = (5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
STAGES = ("detect", "map", "journal", "upstream")

_SUMS = (
    "requests",
    "routes",
    "errors",
    "foreign",
    "reads",
    "fallbacks",
    "old_queries",
    "shadows",
    "overlap",
    "shadow_seconds",
)
_SEPARATOR = "\x1f"


class Latency:
    """A histogram: how many observations fell up to each bound, and their sum in seconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += times
        self.total += seconds * times


@dataclass(slots=True)
class Tally:
    """Counts since the worker's start."""

    requests: defaultdict[tuple[str, str, str], int] = field(default_factory=lambda: defaultdict(int))
    """By (operation, transport, what was done)."""
    routes: defaultdict[tuple[str], int] = field(default_factory=lambda: defaultdict(int))
    """Of those, by the route they took through this process: fast or full."""
    errors: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    """By (operation, kind of error)."""
    foreign: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    """Vectors that do not look like their model's, by (collection, declared model)."""
    reads: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    """Reads of collections under migration, by (collection, how they were answered)."""
    fallbacks: defaultdict[tuple[str, str, str], int] = field(default_factory=lambda: defaultdict(int))
    """Reads that the old index answered alone instead, by (collection, how they should have been, why not)."""
    old_queries: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    """Queries of other models than the new one, by (collection, model)."""
    shadows: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    """Shadow queries, by (collection, what came of them: compared, failed, dropped)."""
    overlap: defaultdict[tuple[str], float] = field(default_factory=lambda: defaultdict(float))
    """Sum of overlap@10 of compared shadow queries, by collection."""
    shadow_seconds: defaultdict[tuple[str], float] = field(default_factory=lambda: defaultdict(float))
    """Seconds that compared shadow queries took, by collection."""
    last_old: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    """When such a query came last, as seconds since 1970."""
    latency: dict[str, Latency] = field(default_factory=lambda: {stage: Latency() for stage in STAGES})
    read_latency: defaultdict[str, Latency] = field(default_factory=lambda: defaultdict(Latency))
    """Of reads of collections under migration until their answer began, by collection."""

    def dump(self) -> bytes:
        """The tally as JSON."""
        return orjson.dumps(
            {
                **{
                    name: {_SEPARATOR.join(key): count for key, count in getattr(self, name).items()}
                    for name in (*_SUMS, "last_old")
                },
                "latency": _dump(self.latency),
                "read_latency": _dump(self.read_latency),
            }
        )

    def add(self, dumped: bytes) -> None:
        """Add another tally's dump to this one."""
        data = orjson.loads(dumped)
        for name in _SUMS:
            counts = getattr(self, name)
            for key, count in data[name].items():
                counts[tuple(key.split(_SEPARATOR))] += count
        for key, seen in data["last_old"].items():
            pair = tuple(key.split(_SEPARATOR))
            self.last_old[pair] = max(self.last_old[pair], seen)
        for name in ("latency", "read_latency"):
            histograms = getattr(self, name)
            for key, (counts, total) in data[name].items():
                mine = histograms[key]
                mine.counts = [a + b for a, b in zip(mine.counts, counts, strict=True)]
                mine.total += total


def _dump(histograms: Mapping[str, Latency]) -> dict[str, Any]:
    return {key: [one.counts, one.total] for key, one in histograms.items()}


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file whole, so that a reader never sees half of it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(data)
    fresh.rename(path)


def sum_tallies(directory: Path) -> Tally:
    """The tallies of every worker that ever wrote into a directory, added up."""
    total = Tally()
    for path in sorted(directory.glob("tally-*.json")):
        total.add(path.read_bytes())
    return total
