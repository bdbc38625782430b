"""Whether two collections hold the same: every id, payload, and where each vector comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from qdrant_client import QdrantClient, models

from crossfade.adapters.base import Adapter, Float32
from crossfade.proxy.migration.keys import write_key
from tests.chaos.load import Told
from tests.chaos.stage import COLLECTION, TARGET, PointId
from tests.proxy.encoding_function import encode_one

_SAME = 0.9999


@dataclass(frozen=True)
class Compared:
    """Ids that the target lacks, has too much, and has otherwise than the old index says; a hash of each side."""

    lost: Sequence[PointId]
    resurrected: Sequence[PointId]
    stale: Sequence[PointId]
    hashes: tuple[str, str]

    @property
    def equal(self) -> bool:
        """Whether everything is the same."""
        return not (self.lost or self.resurrected or self.stale) and self.hashes[0] == self.hashes[1]


def compare(client: QdrantClient, adapter: Adapter, told: Told) -> Compared:
    """Compare all of both collections.

    A vector's provenance is the text it was encoded from, or the client that sent it; the old index says which by what
    it stores, and the target's vector must be that one.
    """
    old, new = (read_everything(client, name) for name in (COLLECTION, TARGET))
    wanted: dict[PointId, tuple[str, Float32 | None]] = {}
    for point, record in old.items():
        possible = _provenances(record, adapter, told, point)
        held = (one for one in possible if point in new and _holds(new[point], one[1]))
        wanted[point] = next(held, possible[0])
    there = {
        point: wanted[point][0] if point in wanted and _holds(record, wanted[point][1]) else "unexpected"
        for point, record in new.items()
    }
    expected = {point: (old[point].payload, wanted[point][0]) for point in old}
    actual = {point: (new[point].payload, there[point]) for point in new}
    stale = [point for point in old.keys() & new.keys() if expected[point] != actual[point]]
    hashes = _hash(expected), _hash(actual)
    return Compared([*(old.keys() - new.keys())], [*(new.keys() - old.keys())], stale, hashes)


def read_everything(client: QdrantClient, name: str) -> dict[PointId, models.Record]:
    """All points of a collection by id."""
    records: dict[PointId, models.Record] = {}
    offset: Any = None
    while True:
        page, offset = client.scroll(name, limit=2000, offset=offset, with_vectors=True)
        records |= {record.id: record for record in page}  # type: ignore[misc] # ids are numbers or text
        if offset is None:
            return records


def _provenances(
    record: models.Record, adapter: Adapter, told: Told, point: PointId
) -> list[tuple[str, Float32 | None]]:
    """What the target's vector must be, its name and itself (None: no vector), or one of two."""
    if not record.vector:
        return [("none", None)]
    text = (record.payload or {}).get("text")
    encoded = ("none", None) if not text else (f"text {text}", encode_one(text, "passage"))
    sent = told.natives.get(point)
    if not sent:
        return [encoded]
    stored = np.asarray(record.vector, np.float32)
    mapped = adapter.document.apply(np.stack([vector for _, vector in sent]))
    likeness = mapped @ stored / np.linalg.norm(mapped, axis=1) / np.linalg.norm(stored)
    if likeness.max() <= _SAME:
        return [encoded]
    at = int(likeness.argmax())
    native = (f"sent {at}", sent[at][1])
    return [native] if sent[at][0] > told.captured else [native, encoded]


def _holds(record: models.Record, wanted: Float32 | None) -> bool:
    if wanted is None or not record.vector:
        return wanted is None and not record.vector
    vector = np.asarray(record.vector, np.float32)
    return float(vector @ wanted) / float(np.linalg.norm(vector) * np.linalg.norm(wanted)) > _SAME


def _hash(content: Mapping[PointId, tuple[Any, str]]) -> str:
    lines = [[write_key(point), payload, provenance] for point, (payload, provenance) in content.items()]
    return hashlib.sha256(orjson.dumps(sorted(lines), option=orjson.OPT_SORT_KEYS)).hexdigest()
