"""Selection: by retrieval, disjoint, deterministic, within a budget, on the card; first figures on real data."""

from dataclasses import replace
from itertools import pairwise
from math import inf
from typing import Any, cast

import numpy as np
import pytest

from crossfade.adapters.base import Adapter, Float32, PairsError
from crossfade.adapters.candidates import memory_for, select_recipe
from crossfade.adapters.choice import Candidate, Selection, choose
from crossfade.adapters.dataset import read_dataset
from crossfade.adapters.evaluate import STATUS_QUO, evaluate, load_judged
from crossfade.adapters.pairs import Pairs, make_pairs
from crossfade.adapters.recipe import Experts, Memory, Recipe, Workshop
from crossfade.adapters.search import search_exact
from crossfade.adapters.select import fit_adapter
from crossfade.adapters.store import load_adapter, save_adapter
from crossfade.adapters.trial import JudgedTrial, make_trials, neighbour_score
from crossfade.adapters.vectors import unit_rows

from .vector_pack import ROOT

needs_pack = pytest.mark.skipif(
    not ROOT.is_dir(), reason=f"no evaluation data at {ROOT}; set CROSSFADE_DATA to its folder"
)


def some_pairs(count: int = 300, source_dim: int = 12, target_dim: int = 10, seed: int = 0) -> Pairs:
    rng = np.random.default_rng(seed)
    source = unit_rows(rng.normal(size=(count, source_dim)) + 0.5)
    noise = 0.1 * rng.normal(size=(count, target_dim))
    return make_pairs(source, unit_rows(source @ rng.normal(size=(source_dim, target_dim)) + noise))


def some_queries(count: int = 120, dim: int = 12) -> Float32:
    return unit_rows(np.random.default_rng(7).normal(size=(count, dim)) - 0.5)


def table_of(adapter: Adapter) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", adapter.card.figures["candidates"])


def test_fit_and_searched_held_out_documents_are_disjoint_without_a_share() -> None:
    pairs = some_pairs()
    for trial in make_trials(pairs, queries=some_queries(), folds=3):
        fitted = {row.tobytes() for row in trial.fit.target}
        assert not fitted & {row.tobytes() for row in trial.documents}
        assert len(trial.fit) == 240


def test_document_queries_are_neither_fitted_nor_searched() -> None:
    pairs = some_pairs()
    for trial in make_trials(pairs):
        asked = {row.tobytes() for row in trial.queries}
        assert not asked & {row.tobytes() for row in trial.fit.source}
        found = {row.tobytes() for row in pairs.source[np.isin(pairs.target, trial.documents).all(axis=1)]}
        assert not asked & found


@pytest.mark.parametrize(("share", "searched"), [(None, 60), (0.5, 120), (0.75, 240), (1.0, 300)])
def test_documents_are_searched_at_the_share_that_is_paired(share: float | None, searched: int) -> None:
    trial = make_trials(some_pairs(), queries=some_queries(240), share=share, folds=4)[0]
    assert len(trial.documents) == searched


def test_few_observed_queries_are_made_up_with_held_out_documents_at_their_mean() -> None:
    queries = some_queries(count=15)
    mean = queries.mean(axis=0, dtype=np.float64)
    trial = make_trials(some_pairs(), queries=queries, query_mean=mean)[0]
    assert len(trial.queries) == 15 + 30
    np.testing.assert_allclose(trial.queries[15:].mean(axis=0), mean, atol=0.15)


def test_truth_is_what_the_new_model_finds_and_a_perfect_ranking_scores_one() -> None:
    truth = np.arange(30).reshape(3, 10)
    np.testing.assert_allclose(neighbour_score(truth, truth), 1.0)
    np.testing.assert_allclose(neighbour_score(truth + 100, truth), 0.0)
    swapped = truth.copy()
    swapped[:, [0, 1]] = swapped[:, [1, 0]]
    assert (neighbour_score(swapped, truth) < 0.8).all()


def test_splits_and_the_winner_are_the_same_for_the_same_seed() -> None:
    first, second = (fit_adapter(some_pairs(), queries=some_queries(), corpus_size=600, seed=5) for _ in range(2))
    assert first.card.settings == second.card.settings
    queries = some_queries(9)
    np.testing.assert_array_equal(first.query.apply(queries), second.query.apply(queries))
    tables = [[(row["settings"], row["score"]) for row in table_of(one)] for one in (first, second)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    "method",
    [
        "procrustes",
        "linear",
        "coherence",
        "whitened",
        "ridge",
        "scaled",
        "lowrank",
        "local",
        "residual",
        "local+residual",
    ],
)
def test_each_method_gives_maps_both_ways_between_unequal_dimensions(method: str) -> None:
    pairs = some_pairs(count=520)
    adapter = fit_adapter(pairs, method=method, queries=some_queries(), source_model="a", target_model="b")
    corrected = ("local", "residual", "local+residual")
    assert adapter.card.method in ((*method.split("+"), method, "whitened") if method in corrected else (method,))
    for fitted, dims in ((adapter.query, (12, 10)), (adapter.document, (12, 10)), (adapter.reverse, (10, 12))):
        assert (fitted.source_dim, fitted.target_dim) == dims
        rows = unit_rows(np.random.default_rng(0).normal(size=(5, dims[0])))
        np.testing.assert_allclose(np.linalg.norm(fitted.apply(rows), axis=1), 1.0, atol=1e-5)


def test_the_card_tells_how_it_was_chosen_and_survives_the_store(tmp_path: object) -> None:
    adapter = fit_adapter(some_pairs(), queries=some_queries(), corpus_size=1_000, source_model="a", target_model="b")
    save_adapter(adapter, f"{tmp_path}/x")
    card = load_adapter(f"{tmp_path}/x", source_model="a", target_model="b").card
    assert card == adapter.card
    assert (card.pairs.count, card.pairs.share) == (300, 0.3)
    table = table_of(adapter)
    wanted = {"procrustes", "linear", "whitened", "ridge", "lowrank", "scaled", "residual"}
    assert {row["method"] for row in table} >= wanted
    scores = [row["score"] for row in table]
    assert all(above >= below for above, below in pairwise(scores))


def test_an_adapter_carries_a_rising_calibration_and_both_models_fingerprints() -> None:
    pairs = some_pairs(count=600)
    adapter = fit_adapter(pairs, method="linear", queries=some_queries(), source_model="a", target_model="b")
    assert adapter.calibration is not None
    assert np.all(np.diff(adapter.calibration.apply(np.linspace(-1, 1, 50))) > 0)
    assert set(adapter.fingerprints) == {"a", "b"}
    assert not adapter.fingerprints["b"].is_foreign(pairs.target).any()
    assert fit_adapter(some_pairs(count=40), method="linear").calibration is None


def test_query_side_centring_is_tried_only_where_queries_were_observed() -> None:
    pairs = some_pairs()
    with_mean = fit_adapter(pairs, query_mean=some_queries().mean(axis=0), method="linear")
    without = fit_adapter(pairs, method="linear")
    centrings = [{row["settings"]["centring"] for row in table_of(one)} for one in (with_mean, without)]
    assert centrings == [{"queries"}, {"documents"}]
    with pytest.raises(PairsError, match="needs the mean of observed queries"):
        Workshop(pairs).make(Recipe(centring="queries"))


def test_judged_queries_decide_where_they_are_given() -> None:
    pairs = some_pairs()
    queries = some_queries(40)
    truth, _ = search_exact(queries, pairs.source, 3)
    judged: list[dict[int, float]] = [dict.fromkeys(row.tolist(), 1.0) for row in truth]
    adapter = fit_adapter(pairs, method="linear", judged=(queries, pairs.target, judged))
    best = max(
        JudgedTrial(pairs, queries, pairs.target, judged).score(Workshop(pairs).make(Recipe(ridge=ridge))).mean()
        for ridge in (0.3, 1.0, inf)
    )
    held_out = cast("dict[str, float]", adapter.card.figures["held_out"])
    assert held_out["score"] >= best - held_out["error"]
    assert {row["settings"]["offset"] for row in table_of(adapter)} == {0.0, 0.25, 0.5, 1.0}
    with pytest.raises(PairsError, match="40 judged queries with 39 judgements"):
        fit_adapter(pairs, judged=(queries, pairs.target, judged[1:]))


def test_a_spent_budget_still_gives_an_adapter_and_says_that_it_did_not_finish() -> None:
    seen: list[tuple[int, int, str]] = []
    adapter = fit_adapter(some_pairs(), budget_seconds=0.0, progress=lambda *step: seen.append(step))
    assert adapter.card.figures["finished"] is False
    assert 1 <= len(seen) < 20
    assert all(done <= total for done, total, _ in seen)


def scored(recipe: Recipe, values: list[float]) -> Candidate:
    return Candidate(recipe, float(np.mean(values)), 0.0, 0.0, np.array(values, np.float32))


def test_the_plainest_wins_of_those_that_the_trial_cannot_tell_from_the_best() -> None:
    plain, light, heavy = Recipe(), Recipe(memory=Memory(8, 0.05, 0.15)), Recipe(memory=Memory(8, 0.05, 0.6))
    base = [0.5, 0.3, 0.7, 0.1] * 25
    noise = [0.3, -0.3, 0.3, -0.29] * 25
    lucky = scored(heavy, [one + shift for one, shift in zip(base, noise, strict=True)])
    clear = scored(heavy, [one + 0.05 for one in base])
    assert choose([lucky, scored(light, base), scored(plain, base)]).recipe == plain
    assert choose([clear, scored(light, base), scored(plain, base)]).recipe == heavy


def test_experts_below_a_residual_have_to_be_twice_as_sure() -> None:
    alone = Recipe(memory=Memory(8, 0.05, 0.3))
    both = replace(alone, experts=Experts(12, 300.0))
    base, noise = [0.5, 0.3, 0.7, 0.1] * 25, [1.0, -1.0, 1.0, -1.0] * 25
    for standard_errors, winner in ((0.5, alone), (1.5, alone), (2.5, both)):
        better = [one + 0.1 * shift + 0.01 * standard_errors for one, shift in zip(base, noise, strict=True)]
        assert choose([scored(both, better), scored(alone, base)]).recipe == winner


def test_auto_leaves_the_published_maps_to_those_who_name_them() -> None:
    ridge, linear = scored(Recipe(pull=0.0), [0.9] * 10), scored(Recipe(ridge=inf), [0.1] * 10)
    table = Selection(ridge, (ridge, linear), True)
    chosen = {name: found.recipe if (found := table.best_of(name)) else None for name in ("auto", "ridge", "local")}
    assert chosen == {"auto": None, "ridge": ridge.recipe, "local": None}


def test_vectors_of_other_lengths_than_one_are_not_whitened() -> None:
    pairs = some_pairs()
    longer = make_pairs(pairs.source * 2.0, pairs.target * 3.0)
    found = select_recipe(make_trials(longer, queries=some_queries(), folds=2))
    assert found.winner.recipe.family == "linear"
    assert not {"coherence", "whitened"} & {one.recipe.family for one in found.table}


def test_a_residual_weighs_by_the_share_that_is_paired() -> None:
    pairs, queries = some_pairs(), some_queries()
    assert memory_for(1.0, unit=False) == Memory(16, 0.05, 0.4, 0.0)
    for share, weight, order in ((0.2, 0.16, 0.52), (0.5, 0.25, 0.7), (None, 0.19, 0.58)):
        found = select_recipe(make_trials(pairs, queries=queries, share=share), method="residual")
        assert {one.recipe.memory for one in found.table} == {None, Memory(16, 0.05, weight, order)}


@pytest.mark.parametrize(("count", "tried"), [(20, True), (30, False)])
def test_the_coherence_map_is_a_candidate_only_up_to_two_pairs_a_dimension(count: int, tried: bool) -> None:
    found = select_recipe(make_trials(some_pairs(count), queries=some_queries(), folds=2), count=count)
    assert any(one.recipe.family == "coherence" for one in found.table) is tried
    assert any(one.recipe.family == "whitened" for one in found.table) is not tried
    assert found.winner.recipe.family != "linear"


def test_experts_that_would_hurt_are_left_away() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(1_000, 12))
    turned = source @ np.linalg.qr(rng.normal(size=(12, 12)))[0]  # one rotation: experts can only add noise
    pairs = make_pairs(source, turned + 0.3 * rng.normal(size=source.shape))
    adapter = fit_adapter(pairs, method="local", queries=some_queries())
    assert "local" in {row["method"] for row in table_of(adapter)}
    assert adapter.card.method == "linear"


def test_distilled_methods_fit_where_torch_is_installed() -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'crossfade[train]'")
    adapter = fit_adapter(some_pairs(count=100), method="distilled+residual", queries=some_queries())
    tried = {row["method"] for row in table_of(adapter)}
    assert {"linear", "distilled", "distilled+residual"} <= tried
    assert adapter.card.method in tried
    assert adapter.document.kind in ("linear", "residual")


def test_a_distilled_map_and_its_documents_map_differ_by_their_centres_alone() -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'crossfade[train]'")
    pairs, queries = some_pairs(count=200), some_queries()
    shop = Workshop(pairs, queries.mean(axis=0, dtype=np.float64), queries=queries)
    recipe = Recipe("distilled", centring="queries", offset=0.5, memory=Memory(4, 0.05, 0.0))
    bare = shop.make(replace(recipe, memory=None))
    np.testing.assert_allclose(shop.make(recipe).apply(queries), bare.apply(queries), atol=1e-6)
    assert not np.array_equal(
        bare.apply(queries), shop.make(replace(recipe, family="linear", memory=None)).apply(queries)
    )


def test_recipes_that_share_experts_or_memory_give_what_a_fresh_fit_gives() -> None:
    pairs, queries = some_pairs(count=400), some_queries()
    mean = queries.mean(axis=0, dtype=np.float64)
    shared = Workshop(pairs, mean)
    for recipe in (
        Recipe(experts=Experts(4, 100.0, 0.1, 2)),
        Recipe(experts=Experts(4, 100.0, 0.2, 4), centring="queries", offset=0.5),
        Recipe(memory=Memory(8, 0.05, 0.6), experts=Experts(4, 100.0, 0.2, 4), centring="queries"),
        Recipe(memory=Memory(4, 0.02, 1.0), offset=0.25),
    ):
        fresh = Workshop(pairs, mean).make(recipe)
        np.testing.assert_allclose(shared.make(recipe).apply(queries), fresh.apply(queries), atol=1e-6)


def test_bad_arguments_are_refused_by_name() -> None:
    pairs = some_pairs()
    with pytest.raises(PairsError, match="method is 'best': it must be one of auto"):
        select_recipe(make_trials(pairs), method="best")
    with pytest.raises(PairsError, match=r"query_mean has shape \(3,\), the pairs' source has 12"):
        fit_adapter(pairs, query_mean=np.zeros(3))
    with pytest.raises(PairsError, match="vectors have 5 dimensions, the map takes 12"):
        fit_adapter(pairs, queries=np.ones((4, 5)))
    broken = some_queries()
    broken[2, 2] = np.nan
    with pytest.raises(PairsError, match="1 of 120 query vectors have NaN"):
        fit_adapter(pairs, queries=broken)


@needs_pack
def test_cranfield_reaches_its_first_figure_and_beats_both_published_baselines() -> None:
    dataset = read_dataset(ROOT / "cranfield")
    judged = load_judged(dataset, "minilm-l6", "e5-small", range(0, 225, 2))
    observed = unit_rows(dataset.queries("e5-small")[1::2])
    fit = np.random.default_rng(0).permutation(len(dataset.document_ids))[:700]
    pairs = make_pairs(judged.new_documents[fit], judged.old_documents[fit])
    adapter = fit_adapter(pairs, queries=observed, corpus_size=len(dataset.document_ids))
    shop = Workshop(pairs)
    baselines = {centring: shop.make(Recipe("procrustes", centring=centring)) for centring in ("none", "documents")}
    evaluation = evaluate(judged, {"auto": adapter, **baselines})
    auto = evaluation.row("auto")
    assert auto.of_status_quo >= 0.88
    assert auto.ndcg10 > 0.03 + max(evaluation.row(centring).ndcg10 for centring in baselines)
    assert auto.ndcg10 < 1.1 * evaluation.row(STATUS_QUO).ndcg10


def test_few_pairs_with_duplicates_and_a_constant_column_give_a_finite_adapter_that_says_so() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(300, 384)), rng.normal(size=(300, 384))
    target[:, :40] = source[:, :40] = rng.normal(size=(300, 40)) * 4
    source[:, 7] = target[:, 9] = 0.25
    source, target = np.concatenate([source, source[:30]]), np.concatenate([target, target[:30]])
    pairs = make_pairs(source.astype(np.float32), unit_rows(target))
    adapter = fit_adapter(pairs, method="residual", corpus_size=320)
    assert len(pairs) < pairs.source.shape[1]
    assert adapter.card.figures["duplicates_dropped"] == 30
    for fitted in (adapter.query, adapter.document):
        mapped = fitted.apply(np.concatenate([pairs.source[:5], np.zeros((1, 384), np.float32)]))
        assert np.isfinite(mapped).all()
        np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1.0, atol=1e-4)
