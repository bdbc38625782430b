"""Let an adapter learn from documents that were re-encoded since it was fitted, without choosing anything again.

The re-encode makes a true pair of every document it finishes. `grow_adapter` fits the recipe of the card again on all
pairs at hand: seconds, where a selection takes minutes. `grow_directory` does it for a stored adapter and replaces the
directory in one step, so that whoever reads it sees the old one or the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .base import JSON, Adapter, PairsCard, PairsError
from .candidates import MEMORIES
from .pairs import Pairs
from .recipe import Experts, Memory, Recipe, Workshop
from .select import REVERSE, document_recipe, served
from .store import load_adapter, save_adapter


def grow_adapter(
    adapter: Adapter,
    pairs: Pairs,
    *,
    query_mean: NDArray[Any] | None = None,
    corpus_size: int | None = None,
    seed: int = 0,
) -> Adapter:
    """Fit an adapter's own recipe on more pairs (new model first), all that are known and not the further ones alone.

    query_mean (source_dim,) is the mean of observed queries; without one an adapter that is centred on queries keeps
    the mean it has. corpus_size is the number of documents in the index: a residual may then weigh as much as the share
    that is paired, and is added to a linear map when that share allows one. Calibration and fingerprints are kept.
    Raises PairsError for pairs of other dimensions, and for an adapter that is not made of recipes.
    """
    card = adapter.card
    if (pairs.source.shape[1], pairs.target.shape[1]) != (card.source_dim, card.target_dim):
        raise PairsError(
            f"pairs have {pairs.source.shape[1]} -> {pairs.target.shape[1]} dimensions, the adapter "
            f"{card.source_dim} -> {card.target_dim}: give the new model's vectors first"
        )
    recipe = read_recipe(card.settings)
    share = min(1.0, len(pairs) / corpus_size) if corpus_size else card.pairs.share
    recipe = replace(recipe, memory=_memory(recipe, share))
    mean = _known_mean(adapter, recipe) if query_mean is None else np.asarray(query_mean, np.float64)
    workshop = Workshop(pairs, mean, seed=seed)
    return replace(
        adapter,
        card=replace(
            card,
            method=recipe.method,
            pairs=PairsCard(len(pairs), pairs.source_name, share),
            settings=recipe.settings(),
            figures={**card.figures, "grown_from": card.pairs.count},
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
    query_mean: NDArray[Any] | None = None,
    corpus_size: int | None = None,
    seed: int = 0,
) -> Adapter:
    """Grow the adapter in `source` and write it to `target`, which may be the same directory, in one step.

    Raises StoreError for a directory that cannot be read, and what `grow_adapter` raises.
    """
    grown = grow_adapter(
        load_adapter(source), pairs, query_mean=query_mean, corpus_size=corpus_size, seed=seed
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


def _memory(recipe: Recipe, share: float | None) -> Memory | None:
    """The residual's settings, no heavier than the share that is paired; the usual one where there was none."""
    if share is None or recipe.centring == "none":
        return recipe.memory
    allowed = [memory for memory in MEMORIES if memory.weight <= min(share, 0.3)]
    if recipe.memory is None:
        return allowed[-1] if allowed else None
    return replace(recipe.memory, weight=min(max(recipe.memory.weight, 0.3), share))


def _known_mean(adapter: Adapter, recipe: Recipe) -> NDArray[np.float64] | None:
    """The mean of queries that an adapter was centred on: what its parts take from a vector before looking it up."""
    if recipe.centring != "queries":
        return None
    centre = getattr(adapter.query, "centre", None)
    if centre is None:
        raise PairsError("the adapter is centred on queries and does not say where: give query_mean")
    return np.asarray(centre, np.float64)
