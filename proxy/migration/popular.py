"""Which documents are re-encoded first: those that clients' queries find most often.

No query is kept, so queries are drawn from the mean and spread of those that were observed, and mapped by the adapter;
the old index is asked for the best of each, and a document counts the more the higher it stands. The list is kept in a
file, since what is found changes with the adapter and the collection, and a walk that goes on after a kill needs the
list that it began with.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import orjson

from crossfade.adapters.store import load_adapter
from crossfade.backends.dialect import Float32
from crossfade.backends.index import Hits, Index, PointId

from ..observing import Key, read_observed
from ..telemetry import write_atomically
from .keys import order_of, read_key, write_key
from .record import Spec

_FEWEST: Final = 50  # observed queries: fewer say little
_BEST: Final = 20  # of each
_TOGETHER: Final = 100  # searches at once: behind a large request queries wait

log = logging.getLogger("crossfade.migration.popular")


@dataclass(frozen=True, slots=True)
class Ordering:
    """Where observed queries and the adapter are; `lead` documents go first by id, for the adapter to learn from.

    `drawn` queries are asked: what a collection of millions needs.
    """

    adapter: Path
    state: Path
    lead: int
    drawn: int = 2_000


def popular_path(folder: Path, migration: str) -> Path:
    """The list of one migration."""
    return folder / f"popular-{migration}.json"


def read_popular(path: Path) -> Sequence[PointId] | None:
    """The list that was kept, most popular first; None without one that can be read."""
    try:
        return [read_key(key) for key in orjson.loads(path.read_bytes())]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s is no list of documents: %s", path, error)
        return None


async def find_popular(
    index: Index, spec: Spec, ordering: Ordering, path: Path, start: PointId | None
) -> list[PointId]:
    """Make the list of points from `start` on and keep it in a file; an empty one where too little was observed.

    Raises AdapterError, IndexRefusedError and OSError.
    """
    rows = await asyncio.to_thread(_draw_queries, spec, ordering)
    found: list[PointId] = []
    if rows is None:
        log.warning("%s: fewer than %d queries were observed, so documents go by id", spec.collection, _FEWEST)
    else:
        hits: list[Hits] = []
        for first in range(0, len(rows), _TOGETHER):
            part = rows[first : first + _TOGETHER]
            hits += await index.search(spec.collection, spec.field, part, _BEST, exact=False)
        found = [point for point in rank_found(hits) if start is None or order_of(point) >= order_of(start)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, orjson.dumps([write_key(point) for point in found]))
    return found


def rank_found(found: Sequence[Hits]) -> list[PointId]:
    """The points found, by the sum of 1 / rank over the queries that found them."""
    weights: defaultdict[PointId, float] = defaultdict(float)
    for hits in found:
        for rank, point in enumerate(hits.ids, 1):
            weights[point] += 1 / rank
    return sorted(weights, key=lambda point: -weights[point])


def _draw_queries(spec: Spec, ordering: Ordering) -> Float32 | None:
    """Queries (n, old_dim) of unit length as they ask the old index; None where too few were observed."""
    seen = read_observed(ordering.state, Key(spec.collection, spec.field, spec.to_model), spec.dim)
    if seen is None or seen.count < _FEWEST or not seen.has_spread:
        return None
    adapter = load_adapter(ordering.adapter, source_model=spec.to_model, target_model=spec.from_model)
    drawn = seen.sample(ordering.drawn)
    mapped = adapter.query.apply(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
    return np.asarray(mapped / np.linalg.norm(mapped, axis=1, keepdims=True), np.float32)
