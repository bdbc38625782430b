"""Growing: the same recipe on more pairs, better where they help, atomic on disk, refused where it cannot be."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossfade.adapters.base import PairsError
from crossfade.adapters.candidates import memory_for
from crossfade.adapters.grow import grow_adapter, grow_directory, read_recipe
from crossfade.adapters.pairs import Pairs
from crossfade.adapters.recipe import Experts, Memory, Recipe
from crossfade.adapters.select import fit_adapter
from crossfade.adapters.store import load_adapter, save_adapter

from .test_local_and_residual import mixed_pairs
from .test_select import some_queries


def pairs_of(count: int) -> Pairs:
    source, target = mixed_pairs()
    return Pairs(source[:count], target[:count], np.arange(count))


def test_a_grown_adapter_keeps_its_recipe_and_maps_new_documents_better() -> None:
    source, target = mixed_pairs()
    small = fit_adapter(pairs_of(200), corpus_size=1_000, source_model="a", target_model="b")
    grown = grow_adapter(small, pairs_of(900), corpus_size=1_000)
    apart = [float(np.square(one.document.apply(source[900:]) - target[900:]).sum()) for one in (small, grown)]
    assert apart[1] < 0.8 * apart[0]
    assert (grown.card.pairs.count, grown.card.pairs.share) == (900, 0.9)
    assert grown.card.figures["grown_from"] == 200
    assert (grown.calibration, grown.fingerprints) == (small.calibration, small.fingerprints)
    assert grown.card.settings["family"] == small.card.settings["family"]


@pytest.mark.parametrize("corpus", [10_000, 3_000, 1_500])
def test_a_residual_comes_with_the_share_that_is_paired(corpus: int) -> None:
    linear = fit_adapter(pairs_of(200), method="linear", corpus_size=10_000)
    memory = read_recipe(grow_adapter(linear, pairs_of(800), corpus_size=corpus).card.settings).memory
    assert memory == memory_for(800 / corpus, unit=pairs_of(800).unit)


def test_the_residual_of_the_card_gives_way_to_what_the_share_allows_now() -> None:
    with_memory = replace(fit_adapter(pairs_of(300), method="residual", corpus_size=400))
    before = read_recipe(with_memory.card.settings).memory
    assert before is not None
    after = read_recipe(grow_adapter(with_memory, pairs_of(500), corpus_size=50_000).card.settings).memory
    assert after is None or after.weight < before.weight


def test_a_coherence_map_gives_way_to_the_whitened_one_once_pairs_are_many() -> None:
    few = fit_adapter(pairs_of(30), method="coherence")
    assert read_recipe(grow_adapter(few, pairs_of(31)).card.settings).family == "coherence"
    assert read_recipe(grow_adapter(few, pairs_of(300)).card.settings).family == "whitened"


def test_growing_a_directory_replaces_it_and_keeps_where_queries_live(tmp_path: Path) -> None:
    queries = some_queries(60, dim=16)
    first = fit_adapter(pairs_of(300), method="residual", queries=queries, corpus_size=600)
    assert first.card.settings["centring"] == "queries"
    save_adapter(first, tmp_path / "a")
    grown = grow_directory(tmp_path / "a", tmp_path / "a", pairs_of(600), query_mean=queries.mean(axis=0))
    stored = load_adapter(tmp_path / "a")
    assert stored.card == grown.card
    assert stored.card.pairs.count == 600
    np.testing.assert_allclose(stored.query.apply(queries), grown.query.apply(queries), atol=1e-6)
    again = grow_adapter(stored, pairs_of(600))
    np.testing.assert_allclose(again.query.apply(queries), grown.query.apply(queries), atol=1e-5)


def test_what_cannot_grow_says_so() -> None:
    adapter = fit_adapter(pairs_of(200), method="linear")
    with pytest.raises(PairsError, match="pairs have 16 -> 8 dimensions, the adapter 16 -> 16"):
        grow_adapter(adapter, Pairs(pairs_of(50).source, pairs_of(50).target[:, :8], np.arange(50)))
    with pytest.raises(PairsError, match="no recipe"):
        grow_adapter(replace(adapter, card=replace(adapter.card, settings={})), pairs_of(300))
    with pytest.raises(PairsError, match="a distilled adapter is trained"):
        read_recipe(Recipe("distilled").settings())
    centred = fit_adapter(pairs_of(200), method="linear", queries=some_queries(60, dim=16))
    with pytest.raises(PairsError, match="centred on queries and does not say where: give query_mean"):
        grow_adapter(centred, pairs_of(300))


def test_a_recipe_survives_its_card() -> None:
    recipe = Recipe("coherence", 0.1, experts=Experts(12, 300.0), memory=Memory(8, 0.05, 0.3), centring="queries")
    assert read_recipe(recipe.settings()) == recipe
    assert read_recipe(Recipe(ridge=float("inf")).settings()) == Recipe(ridge=float("inf"))
