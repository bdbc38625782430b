"""Let an adapter learn from documents that were re-encoded since it was fitted.

The re-encode makes a true pair of every document it finishes. `grow_adapter` fits the recipe of the card again on all
pairs at hand and chooses by held-out retrieval only what depends on their share of the collection, the residual:
seconds, where a whole selection takes minutes. `grow_directory` does it for a stored adapter and replaces the directory
in one step, so that whoever reads it sees the old one or the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .base import JSON, Adapter, Float32, PairsCard, PairsError
from .candidates import MOST_FOR_COHERENCE, compare_recipes, memory_for
from .pairs import Pairs
from .recipe import Experts, Memory, Recipe, Workshop
from .select import REVERSE, document_recipe, served
from .store import load_adapter, save_adapter
from .trial import make_trials


def grow_adapter(
    adapter: Adapter,
    pairs: Pairs,
    *,
    queries: Float32 | None = None,
    query_mean: NDArray[Any] | None = None,
    corpus_size: int | None = None,
    seed: int = 0,
) -> Adapter:
    """Fit an adapter's own recipe on more pairs (new model first), all that are known and not the further ones alone.

    queries (n, source_dim) are observed ones, or drawn as they are distributed; query_mean (source_dim,) is their mean:
    without one an adapter that is centred on queries keeps the mean it has. corpus_size is the number of documents in
    the index: a residual weighs as the share that is paired allows, and whether there is one is chosen by held-out
    retrieval; without it the residual stays as it is. A coherence map gives way to the whitened one once pairs are
    many. Calibration and fingerprints are kept. Raises PairsError for pairs of other dimensions, and for an adapter
    that is not made of recipes.
    """
    card = adapter.card
    if (pairs.source.shape[1], pairs.target.shape[1]) != (card.source_dim, card.target_dim):
        raise PairsError(
            f"pairs have {pairs.source.shape[1]} -> {pairs.target.shape[1]} dimensions, the adapter "
            f"{card.source_dim} -> {card.target_dim}: give the new model's vectors first"
        )
    recipe = _for_so_many(read_recipe(card.settings), pairs)
    share = min(1.0, len(pairs) / corpus_size) if corpus_size else card.pairs.share
    mean = _known_mean(adapter, recipe) if query_mean is None else np.asarray(query_mean, np.float64)
    if corpus_size and recipe.centring != "none":
        trials = make_trials(pairs, queries=queries, query_mean=mean, share=share, seed=seed)
        memories = (None, memory_for(share, unit=pairs.unit))
        recipe = compare_recipes(trials, (replace(recipe, memory=one) for one in memories), seed=seed).winner.recipe
    workshop = Workshop(pairs, mean, seed=seed)
    return replace(
        adapter,
        card=replace(
            card,
            method=recipe.method,
            pairs=PairsCard(len(pairs), pairs.source_name, share),
            settings=recipe.settings(),
            figures={**card.figures, "grown_from": card.pairs.count},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
        query=served(workshop.make(recipe)),
        document=served(workshop.make(document_recipe(recipe))),
        reverse=Workshop(pairs.turned(), seed=seed).make(REVERSE),
    )


def grow_directory(
    source: str | Path,
    target: str | Path,
    pairs: Pairs,
    *,
    queries: Float32 | None = None,
    query_mean: NDArray[Any] | None = None,
    corpus_size: int | None = None,
    seed: int = 0,
) -> Adapter:
    """Grow the adapter in `source` and write it to `target`, which may be the same directory, in one step.

    Raises StoreError for a directory that cannot be read, and what `grow_adapter` raises.
    """
    adapter = load_adapter(source)
    grown = grow_adapter(
        adapter, pairs, queries=queries, query_mean=query_mean, corpus_size=corpus_size, seed=seed
    )  # fmt: skip
    save_adapter(grown, target)
    return grown


def read_recipe(settings: Mapping[str, JSON]) -> Recipe:
    """The recipe that a card's settings describe. Raises PairsError where they describe none."""
    try:
        chosen = cast("dict[str, Any]", dict(settings))
        chosen["ridge"] = inf if chosen["ridge"] == "inf" else float(chosen["ridge"])
        chosen["experts"] = Experts(**chosen["experts"]) if chosen["experts"] else None
        chosen["memory"] = Memory(**chosen["memory"]) if chosen["memory"] else None
        recipe = Recipe(**chosen)
    except (KeyError, TypeError, ValueError) as error:
        raise PairsError(f"the card's settings are no recipe ({error}): fit the adapter again instead") from error
    if recipe.family == "distilled":
        raise PairsError("a distilled adapter is trained, not solved: fit it again instead of growing it")
    return recipe


def _for_so_many(recipe: Recipe, pairs: Pairs) -> Recipe:
    """The same recipe, with the linear family that so many pairs would have been given."""
    least = min(pairs.source.shape[1], pairs.target.shape[1])
    if recipe.family == "coherence" and len(pairs) > MOST_FOR_COHERENCE * least:
        return replace(recipe, family="whitened")
    return recipe


def _known_mean(adapter: Adapter, recipe: Recipe) -> NDArray[np.float64] | None:
    """The mean of queries that an adapter was centred on: what its parts take from a vector before looking it up."""
    if recipe.centring != "queries":
        return None
    centre = getattr(adapter.query, "centre", None)
    if centre is None:
        raise PairsError("the adapter is centred on queries and does not say where: give query_mean")
    return np.asarray(centre, np.float64)
