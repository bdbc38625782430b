"""A half-migrated collection searched as the proxy does, on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .base import Float32
from .merge import TailMatcher, blend_hits, match_hits
from .scene import Scene
from .search import Int64, search_exact

CANDIDATES = 60  # of either index, as the proxy asks for ten hits


@dataclass(frozen=True)
class HalfMigrated:
    """A scene whose documents `done` (rows) are in the new index.

    Both indexes give their best 60, the old one of all documents, and the new one its scores of the old one's;
    `matcher` says how scores compare where too few hits do.
    """

    scene: Scene
    done: Int64
    matcher: TailMatcher

    def rank(self, asked: Float32, trusts: Sequence[float], depth: int) -> list[Int64]:
        """For each trust (weights.py) the best documents (n, depth), the old index asked with `asked` (n, old_dim).

        Missing ones are -1.
        """
        scene = self.scene
        rows, scores = search_exact(asked, scene.old_documents, CANDIDATES)
        line = self.matcher.match(scene.new_queries, asked)
        fresh = np.zeros(len(scene.new_documents), bool)
        fresh[self.done] = True
        ranked = [np.full((len(rows), depth), -1, np.int64) for _ in trusts]
        for at, query in enumerate(scene.new_queries):
            among = rows[at][fresh[rows[at]]]
            true = np.union1d(self._best_new[at], among)
            new = list(zip(true.tolist(), (scene.new_documents[true] @ query).tolist(), strict=True))
            own = list(zip(rows[at].tolist(), scores[at].tolist(), strict=True))
            scale, shift = match_hits(dict(new), own) or (float(line.scale[at]), float(line.shift[at]))
            old = [(row, scale * score + shift) for row, score in own]
            for ranking, trust in zip(ranked, trusts, strict=True):
                best = [row for row, _ in blend_hits(new, old, depth, trust=trust)]
                ranking[at, : len(best)] = best
        return ranked

    @cached_property
    def _best_new(self) -> Int64:
        """Rows (n, at most 60) of the new index's best, whatever the old one is asked."""
        if not len(self.done):
            return np.empty((len(self.scene.new_queries), 0), np.int64)
        found, _ = search_exact(self.scene.new_queries, self.scene.new_documents[self.done], CANDIDATES)
        return np.asarray(self.done[found], np.int64)
