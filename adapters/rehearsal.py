"""The maps that a migration would have on its way: an adapter grown from what is re-encoded by then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Adapter, Float32, Map, PairsError
from .grow import grow_adapter, read_recipe
from .pairs import Pairs, make_pairs
from .scene import Scene
from .strategies import SHARES

_MOST_PAIRS = 8_000  # as `migrate.refit` has it unless told otherwise


def rehearse(
    adapter: Adapter,
    pairs: Pairs,
    scene: Scene,
    *,
    shares: Sequence[float] = SHARES,
    queries: Float32 | None = None,
    query_mean: NDArray[Any] | None = None,
    seed: int = 0,
) -> list[Map]:
    """The query map at each share of the scene's documents re-encoded; the adapter's own where it cannot grow.

    pairs are those that the adapter was fitted on; queries (n, source_dim) and query_mean (source_dim,) as for
    `grow_adapter`. It learns from these and the scene's together, at most 8,000 unless they were more: a scene is
    mostly smaller than the collection, of whose documents a migration has more at the same share.
    """
    try:
        read_recipe(adapter.card.settings)
    except PairsError:
        return [adapter.query for _ in shares]
    most = max(_MOST_PAIRS, len(pairs))  # a grown adapter never knows less than the one it grew from

    def grow(share: float) -> Map:
        done = scene.re_encoded(share, seed)
        known = make_pairs(
            np.concatenate([scene.new_documents[done], pairs.source])[:most],
            np.concatenate([scene.old_documents[done], pairs.target])[:most],
            check_order=False,  # both parts were looked at
        )
        paired = max(share, adapter.card.pairs.share or 0.0)
        corpus = round(len(known) / paired)
        return grow_adapter(
            adapter, known, queries=queries, query_mean=query_mean, corpus_size=corpus, seed=seed
        ).query  # fmt: skip

    return [grow(share) if share > 0 else adapter.query for share in shares]
