"""Which side of the pairs is the new model's, where both have as many dimensions and no shape can tell.

Observed queries come from clients of the new model, so they look like the source side. Where nine in ten of them are
nearer to the target's fingerprint, the sides were given the wrong way round. On the pack's three models of 384
dimensions (13 collections, 50 to 2,000 pairs) 0 to 4 of 100 queries were nearer to the wrong side. Without observed
queries nothing here can know: a map is as good one way as the other.
"""

from __future__ import annotations

import numpy as np

from .base import Float32, PairsError
from .fingerprint import FEWEST, classify, fit_fingerprint
from .pairs import Pairs

FEWEST_QUERIES = 10
MOST_WRONG = 0.9  # of the queries
MOST_ROWS = 2_000  # of each side: more change nothing


def check_sides(pairs: Pairs, queries: Float32, *, seed: int = 0) -> None:
    """Refuse pairs whose target, not source, looks like the observed queries (n, source_dim).

    Passes unequal dimensions, fewer than FEWEST pairs and fewer than FEWEST_QUERIES queries. Raises PairsError.
    """
    equal = pairs.source.shape[1] == pairs.target.shape[1]
    if not equal or len(pairs) < FEWEST or len(queries) < FEWEST_QUERIES:
        return
    rows = np.random.default_rng(seed).permutation(len(pairs))[:MOST_ROWS]
    sides = {"source": fit_fingerprint(pairs.source[rows]), "target": fit_fingerprint(pairs.target[rows])}
    wrong = classify(queries, sides).count("target")
    if wrong >= MOST_WRONG * len(queries):
        raise PairsError(
            f"{wrong} of {len(queries)} observed queries look like the target's vectors, not the source's: the pairs "
            "look swapped; give the new model's vectors first"
        )
