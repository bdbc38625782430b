"""What a merge of both indexes' hits comes to, written down once more for the tests that look at it from outside."""

from collections.abc import Mapping

import numpy as np

from crossfade.adapters.merge import TailMatch


def merge_scores(
    known: Mapping[int, float], scores: Mapping[int, float], sample: TailMatch, trust: float = 0.4
) -> list[tuple[int, float]]:
    """Rows with their merged scores, best first: known are true ones, scores those of the old index's candidates."""
    shared = [row for row in scores if row in known]
    scale, shift = float(sample.scale[0]), float(sample.shift[0])
    if len(shared) >= 5:  # the same mean and spread in both
        own, theirs = np.array([scores[row] for row in shared]), np.array([known[row] for row in shared])
        scale = float(theirs.std() / own.std())
        shift = float(theirs.mean() - scale * own.mean())
    moved = {row: scale * score + shift for row, score in scores.items()}
    lowest = min(moved.values())
    both = moved | {row: trust * score + (1 - trust) * moved.get(row, lowest) for row, score in known.items()}
    return sorted(both.items(), key=lambda hit: -hit[1])
