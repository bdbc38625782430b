"""Hits of the old index and of the new one put into one ranking, on the new index's scale. Pure.

A point's score in the old index, by the adapted query, is moved as the points need that both have scored; where these
are few, by tail matching with a sample of points that are in both (adapters/merge.py). A point that both indexes have
scored is ranked by a mean of both, which mostly ranks better than either alone. Without such a sample, or with a
distance that inner products do not order, both lists are interleaved by rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from crossfade.adapters.merge import blend_hits, match_hits
from crossfade.backends.index import PointId
from crossfade.backends.reading import Hit

Scale = Literal["similarity", "distance", "squared"]
"""What a score is: a similarity, or a Euclidean distance or its square, of vectors of unit length."""

MARGIN: Final = 50  # hits of the new index beyond those that are returned
_SPARE: Final = 50  # and of the old one; those that the new one holds as well say how scores compare


def count_candidates(depth: int) -> int:
    """How many of the old index's best are asked for where `depth` hits are wanted."""
    return depth + _SPARE


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


def find_line(found: Found, of: Scale) -> tuple[float, float] | None:
    """Scale and shift of this search's old scores by the hits that both indexes have scored; None for too few."""
    new = {key: _similarity(hit.score, of) for key, hit in found.true.items()}
    return match_hits(new, [(hit.id, _similarity(hit.score, of)) for hit in found.old])


def merge_search(
    found: Found, count: int, line: tuple[float, float] | None, migrated: float, of: Scale, trust: float
) -> list[Hit]:
    """The best `count` hits of one search, each with its score on the new index's scale.

    `line` is scale and shift of this query's old scores; None: they do not compare, and ranks count. `trust` is how
    much the new score counts of a hit that has both.
    """
    true, falls = found.true, found.falls
    ranked = sorted(true.values(), key=lambda hit: -hit.score if falls else hit.score)
    if line is None:
        return _interleave(ranked, [hit for hit in found.old if hit.id not in true], migrated)[:count]
    new = [(hit.id, _similarity(hit.score, of)) for hit in ranked]
    scale, shift = line
    old = [(hit.id, scale * _similarity(hit.score, of) + shift) for hit in found.old]
    raw = {hit.id: hit for hit in (*found.old, *ranked)}
    merged = blend_hits(new, old, count, trust=trust)
    return [raw[key]._replace(score=_score(score, of)) for key, score in merged]


def _similarity(score: float, of: Scale) -> float:
    """The inner product that a score stands for: of unit vectors s = 1 - d^2 / 2."""
    return score if of == "similarity" else 1 - (score * score if of == "distance" else score) / 2


def _score(similarity: float, of: Scale) -> float:
    squared = max(0.0, 2 - 2 * similarity)
    return similarity if of == "similarity" else math.sqrt(squared) if of == "distance" else squared


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
