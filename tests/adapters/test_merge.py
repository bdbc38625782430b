"""Tail matching and merging of hits from both spaces."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.adapters.base import PairsError
from crossfade.adapters.merge import blend_hits, blend_queries, fit_matcher, match_hits
from crossfade.adapters.vectors import unit_rows

RNG = np.random.default_rng(0)
DOCUMENTS = unit_rows(RNG.normal(size=(1_500, 16)))
QUERIES = unit_rows(RNG.normal(size=(7, 16)))


def test_scores_that_differ_by_a_line_are_put_back_exactly() -> None:
    matcher = fit_matcher(DOCUMENTS, np.column_stack([0.5 * DOCUMENTS, np.full(1_500, 0.2)]))
    match = matcher.match(QUERIES, np.column_stack([QUERIES, np.ones(7)]).astype(np.float32))
    old = 0.5 * QUERIES @ DOCUMENTS.T + 0.2
    np.testing.assert_allclose(match.apply(old), QUERIES @ DOCUMENTS.T, atol=1e-5)
    np.testing.assert_allclose(match.scale, 2.0, rtol=1e-4)


def test_each_query_has_its_own_line_and_a_single_one_takes_a_plain_list() -> None:
    other = unit_rows(RNG.normal(size=(1_500, 8)))
    asked = unit_rows(RNG.normal(size=(7, 8)))
    matcher = fit_matcher(DOCUMENTS, other, sample=400)
    together = matcher.match(QUERIES, asked)
    alone = matcher.match(QUERIES[2:3], asked[2:3])
    assert together.scale.std() > 0
    np.testing.assert_allclose(
        alone.apply(np.array([0.3, 0.1])), together.apply(np.full((7, 2), [0.3, 0.1]))[2], atol=1e-6
    )


def test_order_is_kept_and_the_tails_have_equal_mean_and_spread() -> None:
    other = unit_rows(RNG.normal(size=(1_500, 8)))
    asked = unit_rows(RNG.normal(size=(7, 8)))
    matcher = fit_matcher(DOCUMENTS, other, sample=1_500)
    assert matcher.tail == 30
    moved = np.sort(matcher.match(QUERIES, asked).apply(asked @ matcher.old.T), axis=1)[:, -30:]
    true = np.sort(QUERIES @ matcher.new.T, axis=1)[:, -30:]
    np.testing.assert_allclose(moved.mean(axis=1), true.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(moved.std(axis=1), true.std(axis=1), atol=1e-5)


def test_a_space_without_spread_is_only_shifted() -> None:
    matcher = fit_matcher(DOCUMENTS, np.ones((1_500, 3)))
    match = matcher.match(QUERIES, np.ones((7, 3), np.float32))
    np.testing.assert_array_equal(match.scale, 1.0)
    assert np.isfinite(match.shift).all()


def test_too_few_or_unequal_documents_are_refused() -> None:
    with pytest.raises(PairsError, match="19 new and 19 old"):
        fit_matcher(DOCUMENTS[:19], DOCUMENTS[:19])
    with pytest.raises(PairsError, match="30 new and 29 old"):
        fit_matcher(DOCUMENTS[:30], DOCUMENTS[:29])


HITS = st.lists(st.tuples(st.integers(0, 30), st.floats(-1, 1)), max_size=20, unique_by=lambda hit: hit[0])


@given(HITS, HITS, st.integers(0, 25))
def test_with_full_trust_hits_are_sorted_unique_and_have_true_scores(
    new: list[tuple[int, float]], old: list[tuple[int, float]], limit: int
) -> None:
    merged = blend_hits(new, old, limit, trust=1.0)
    everything = dict(old) | dict(new)
    assert len(merged) == min(limit, len(everything))
    assert [score for _, score in merged] == sorted((score for _, score in merged), reverse=True)
    assert len({key for key, _ in merged}) == len(merged)
    assert all(everything[key] == score for key, score in merged)
    left_out = [score for key, score in everything.items() if key not in dict(merged)]
    assert not merged or not left_out or max(left_out) <= merged[-1][1]


def test_a_document_in_both_indexes_is_ranked_by_both_scores() -> None:
    new, old = [("a", 0.8), ("b", 0.6)], [("b", 0.9), ("c", 0.7), ("a", 0.2)]
    assert [(key, round(score, 6)) for key, score in blend_hits(new, old, 3, trust=0.5)] == [
        ("b", 0.75),
        ("c", 0.7),
        ("a", 0.5),
    ]
    assert blend_hits(new, old, 3, trust=1.0) == [("a", 0.8), ("c", 0.7), ("b", 0.6)]
    assert [key for key, _ in blend_hits(new, old, 3, trust=0.0)] == ["b", "c", "a"]


def test_a_document_that_the_old_index_did_not_name_counts_as_its_lowest() -> None:
    assert blend_hits([("z", 0.9)], [("c", 0.7), ("d", 0.1)], 3, trust=0.5) == [("c", 0.7), ("z", 0.5), ("d", 0.1)]
    assert blend_hits([("z", 0.9)], [], 3) == [("z", 0.9)]
    assert blend_hits([], [("c", 0.7)], 3) == [("c", 0.7)]


@given(HITS, HITS, st.integers(0, 25), st.floats(0, 1))
def test_blended_hits_are_sorted_and_unique_and_leave_out_nothing_better(
    new: list[tuple[int, float]], old: list[tuple[int, float]], limit: int, trust: float
) -> None:
    blended = blend_hits(new, old, limit, trust=trust)
    everything = blend_hits(new, old, 99, trust=trust)
    assert {key for key, _ in everything} == dict(old).keys() | dict(new).keys()
    assert blended == everything[:limit]
    assert [score for _, score in everything] == sorted((score for _, score in everything), reverse=True)
    assert len({key for key, _ in everything}) == len(everything)


def test_blended_queries_are_unit_vectors_between_both_whatever_their_lengths() -> None:
    legacy, adapted = np.array([[2.0, 0.0]], np.float32), np.array([[0.0, 3.0]], np.float32)
    old, first, middle, new = (blend_queries(legacy, adapted, weight) for weight in (0.0, 0.25, 0.5, 1.0))
    np.testing.assert_allclose(old, [[1.0, 0.0]])
    np.testing.assert_allclose(first, [[0.75, 0.25]] / np.sqrt(0.625), rtol=1e-6)
    np.testing.assert_allclose(middle, [[0.5**0.5, 0.5**0.5]], rtol=1e-6)
    np.testing.assert_allclose(new, [[0.0, 1.0]])


def test_hits_with_both_scores_say_how_old_scores_compare() -> None:
    old = [(key, 0.9 - 0.1 * key) for key in range(8)]
    new = {key: 3.0 * score - 1.0 for key, score in old if key % 8 != 1} | {99: 0.5}
    line = match_hits(new, old)
    assert line is not None
    np.testing.assert_allclose(line, (3.0, -1.0), atol=1e-9)


def test_few_hits_with_both_scores_or_equal_ones_say_nothing() -> None:
    old = [(key, 0.9 - 0.1 * key) for key in range(8)]
    assert match_hits(dict(old[:4]), old) is None
    assert match_hits({}, []) is None
    assert match_hits(dict.fromkeys(range(8), 0.4), [(key, 0.5) for key in range(8)]) is None
    assert match_hits(dict.fromkeys(range(8), 0.4), old) is None
