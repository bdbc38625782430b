"""Metrics by hand-worked cases and properties; exact search against a plain sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.adapters import search
from crossfade.adapters.metrics import (
    bootstrap_interval,
    mrr_at,
    ndcg_at,
    overlap_at,
    paired_bootstrap,
    recall_at,
)
from crossfade.adapters.search import best, search_exact


def test_ndcg_has_linear_gains_and_the_trec_eval_discount() -> None:
    rankings = np.array([[4, 1, 9]])
    judged = [{1: 3.0, 2: 1.0, 9: 2.0}]
    gained = 3 / np.log2(3) + 2 / np.log2(4)
    ideal = 3 / np.log2(2) + 2 / np.log2(3) + 1 / np.log2(4)
    assert ndcg_at(rankings, judged)[0] == pytest.approx(gained / ideal)


def test_judged_worthless_documents_count_as_unjudged_ones() -> None:
    rankings = np.array([[1, 2]])
    np.testing.assert_array_equal(ndcg_at(rankings, [{1: -1.0, 2: 1.0}]), ndcg_at(rankings, [{2: 1.0}]))


def test_recall_and_mrr_start_at_the_relevant_grade() -> None:
    rankings = np.array([[5, 6, 7]])
    judged = [{5: 1.0, 7: 2.0, 8: 3.0}]
    assert recall_at(rankings, judged, relevant_from=2)[0] == 0.5
    assert mrr_at(rankings, judged, relevant_from=2)[0] == pytest.approx(1 / 3)
    assert mrr_at(rankings, judged, depth=2, relevant_from=2)[0] == 0
    assert mrr_at(rankings, judged)[0] == 1


def test_queries_without_relevant_documents_count_as_zero() -> None:
    rankings = np.array([[1, 2]])
    for metric in (ndcg_at, recall_at, mrr_at):
        assert metric(rankings, [{}])[0] == 0


def test_overlap_counts_shared_rows_in_any_order() -> None:
    assert overlap_at(np.array([[1, 2, 3, 4]]), np.array([[4, 3, 9, 8]]), depth=4)[0] == 0.5


@given(st.integers(0, 2**32 - 1))
def test_metrics_stay_between_zero_and_one_and_a_perfect_ranking_reaches_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    judged = [{row: float(rng.integers(0, 4)) for row in range(12)} for _ in range(5)]
    perfect = np.array([sorted(one, key=lambda row: -one[row]) for one in judged])
    shuffled = np.array([rng.permutation(12) for _ in range(5)])
    relevant = np.array([max(one.values()) > 0 for one in judged])
    np.testing.assert_allclose(ndcg_at(perfect, judged), relevant, atol=1e-12)
    for metric in (ndcg_at, recall_at, mrr_at):
        found = metric(shuffled, judged)
        assert ((found >= 0) & (found <= 1 + 1e-12)).all()
        assert (found <= metric(perfect, judged) + 1e-12).all()


@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_search_finds_what_a_full_sort_finds_with_ties_by_row(
    queries: int, documents: int, top: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    left = rng.integers(-2, 3, size=(queries, 3)).astype(np.float32)
    right = rng.integers(-2, 3, size=(documents, 3)).astype(np.float32)
    rows, scores = search_exact(left, right, top)
    everything = left @ right.T
    expected = np.argsort(-everything, axis=1, kind="stable")[:, :top]
    np.testing.assert_array_equal(scores, np.take_along_axis(everything, expected, axis=1))
    np.testing.assert_array_equal(np.take_along_axis(everything, rows, axis=1), scores)
    assert all(len(set(found.tolist())) == len(found) for found in rows)


def test_blocks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(50, 8)).astype(np.float32), rng.normal(size=(70, 8)).astype(np.float32)
    whole = search_exact(left, right, 5)[0]
    monkeypatch.setattr(search, "BLOCK_SCORES", 200)
    np.testing.assert_array_equal(search_exact(left, right, 5)[0], whole)


def test_best_orders_equal_scores_by_column() -> None:
    columns, _ = best(np.array([[1.0, 2.0, 2.0, 0.0]]), 3)
    np.testing.assert_array_equal(columns, [[1, 2, 0]])


def test_the_bootstrap_covers_the_mean_and_finds_a_real_difference_only() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(400)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert paired_bootstrap(values + 0.02 + 0.05 * rng.normal(size=400), values)[2] < 0.01
    assert paired_bootstrap(values + 0.05 * rng.normal(size=400), values)[2] > 0.05
    assert paired_bootstrap(values, values)[2] == 1.0
