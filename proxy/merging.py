"""Hits of the old index and of the new one put into one ranking, on the new index's scale. Pure.

True scores win: a point that the new index holds is ranked by its own vector there, every other one by the adapted
query's score in the old index, moved by tail matching (adapters/merge.py) with a sample of points that are in both.
Without such a sample, or with a distance that inner products do not order, both lists are interleaved by rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from crossfade.adapters.merge import merge_hits
from crossfade.backends.index import PointId
from crossfade.backends.reading import Hit

RECALL: Final = 200  # most adapted candidates of the old index, unless more hits are wanted
_SPARE: Final = 20  # not yet migrated candidates beyond those that can be returned
MARGIN: Final = 50  # hits of the new index beyond those that are returned


def count_candidates(depth: int, migrated: float) -> int:
    """How many of the old index's best are asked for where `depth` hits are wanted.

    Scores are moved along a rising line, so that of the points not yet migrated only the `depth` best can be among the
    hits: so many have to be left when those that are in the new index are taken out.
    """
    if migrated >= 1:  # what is not there yet was written just now
        return depth + MARGIN
    return max(depth, min(RECALL, ceil((depth + _SPARE) / (1 - migrated))))


@dataclass(frozen=True)
class Found:
    """What both indexes answered to one search: the new one's best, its scores of old candidates, and those."""

    new: Sequence[Hit]
    among: Sequence[Hit]
    old: Sequence[Hit]

    @property
    def true(self) -> dict[PointId, Hit]:
        """Every hit that the new index has scored."""
        return {hit.id: hit for hit in (*self.among, *self.new)}

    @property
    def falls(self) -> bool:
        """Whether better hits have higher scores: similarities, not distances."""
        for hits in (self.new, self.old, self.among):
            if len(hits) > 1 and hits[0].score != hits[-1].score:
                return hits[0].score > hits[-1].score
        return True


def merge_search(
    found: Found, count: int, line: tuple[float, float] | None, migrated: float, euclid: bool
) -> list[Hit]:
    """The best `count` hits of one search, each with its score on the new index's scale.

    `line` is scale and shift of this query's old scores; None: they do not compare, and ranks count.
    """
    true, falls = found.true, found.falls
    ranked = sorted(true.values(), key=lambda hit: -hit.score if falls else hit.score)
    old = [hit for hit in found.old if hit.id not in true]
    if line is None:
        return _interleave(ranked, old, migrated)[:count]
    raw = {hit.id: hit for hit in old} | {hit.id: hit for hit in ranked}
    if euclid:  # on unit vectors: compared as the inner products that they stand for
        ranked = [hit._replace(score=_similarity(hit.score)) for hit in ranked]
        old = [hit._replace(score=_similarity(hit.score)) for hit in old]
    scale, shift = line
    merged = merge_hits(
        [(hit.id, hit.score) for hit in ranked], [(hit.id, scale * hit.score + shift) for hit in old], count
    )
    scores = {hit.id: hit.score for hit in true.values()}
    return [raw[key]._replace(score=_final(key, score, scores, euclid)) for key, score in merged]


def _similarity(distance: float) -> float:
    return 1 - distance * distance / 2


def _final(key: PointId, score: float, true: Mapping[PointId, float], euclid: bool) -> float:
    """A true score as the database gave it, and a moved one on the database's scale."""
    if key in true:
        return true[key]
    return max(0.0, 2 - 2 * score) ** 0.5 if euclid else score


def _interleave(true: Sequence[Hit], old: Sequence[Hit], migrated: float) -> list[Hit]:
    """Both lists by rank over the size of their part; a hit of the old one gets the score of the true one before it."""
    places = [((rank + 1) / max(migrated, 1e-9), 0, hit) for rank, hit in enumerate(true)]
    places += [((rank + 1) / max(1 - migrated, 1e-9), 1, hit) for rank, hit in enumerate(old)]
    merged, score = [], true[0].score if true else None
    for _, part, hit in sorted(places, key=lambda place: place[:2]):
        if part == 0 or score is None:
            merged.append(hit)
            score = hit.score if true else None
        else:
            merged.append(hit._replace(score=score))
    return merged


def cut(hits: Sequence[Hit], offset: int, limit: int, threshold: float | None, falls: bool) -> list[Hit]:
    """The hits that a client asked for, of a ranking."""
    if threshold is not None:
        hits = [hit for hit in hits if (hit.score >= threshold if falls else hit.score <= threshold)]
    return list(hits[offset : offset + limit])
