import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from crossfade.adapters.base import PairsError, StoreError
from crossfade.adapters.observe import QueryStatistics
from tests.adapters.vector_pack import pack_vectors

ROWS = arrays(np.float32, st.tuples(st.integers(2, 40), st.just(4)), elements=st.floats(-1e3, 1e3, width=32))


def direct(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    exact = rows.astype(np.float64)
    return exact.mean(axis=0), np.cov(exact, rowvar=False)


def same(one: QueryStatistics, mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> bool:
    return np.allclose(one.mean, mean, atol=1e-7) and np.allclose(one.covariance, covariance, rtol=1e-7, atol=1e-6)


@given(rows=ROWS, data=st.data())
def test_any_order_and_split_into_batches_gives_the_same(rows: NDArray[np.float32], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(rows))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    seen = QueryStatistics.empty(4)
    for batch in np.split(rows[order], cuts):
        seen = seen.add(batch)
    assert seen.count == len(rows)
    assert same(seen, *direct(rows))


@given(rows=ROWS, data=st.data())
def test_workers_may_be_merged_in_any_grouping(rows: NDArray[np.float32], data: st.DataObject) -> None:
    first, second = sorted(data.draw(st.tuples(st.integers(0, len(rows)), st.integers(0, len(rows)))))
    a, b, c = (QueryStatistics.empty(4).add(part) for part in np.split(rows, [first, second]))
    assert same(a.merge(b).merge(c), *direct(rows))
    assert same(c.merge(a.merge(b)), *direct(rows))


def test_a_large_common_offset_loses_no_digits() -> None:
    rows = np.random.default_rng(0).normal(size=(50_000, 3)) + 1e6
    seen = QueryStatistics.empty(3)
    for batch in np.array_split(rows, 1_000):
        seen = seen.add(batch)
    assert np.allclose(seen.covariance, np.cov(rows, rowvar=False), atol=1e-6)


def test_real_queries_one_at_a_time_have_the_mean_and_covariance_of_all_at_once() -> None:
    queries = pack_vectors("med", "queries", "e5-small")
    seen = QueryStatistics.empty(384)
    for query in queries:
        seen = seen.add(query[None])
    mean, covariance = direct(queries)
    assert np.allclose(seen.mean, mean, atol=1e-12)
    assert np.allclose(seen.covariance, covariance, atol=1e-12)


def test_snapshots_do_not_change_when_queries_are_added() -> None:
    before = QueryStatistics.empty(2).add(np.ones((3, 2), np.float32))
    before.add(np.zeros((5, 2), np.float32))
    assert before.count == 3
    assert before.mean.tolist() == [1.0, 1.0]


def test_rows_that_are_not_finite_are_left_out() -> None:
    rows = np.array([[1.0, 2.0], [np.nan, 0.0], [3.0, np.inf], [5.0, 4.0]], np.float32)
    seen = QueryStatistics.empty(2).add(rows)
    assert seen.count == 2
    assert seen.mean.tolist() == [3.0, 3.0]
    assert seen.add(rows[1:3]).count == 2


def test_decay_keeps_mean_and_covariance_and_lets_new_traffic_weigh_more() -> None:
    rows = np.random.default_rng(1).normal(size=(5_000, 2))
    old = QueryStatistics.empty(2).add(rows)
    light = old.decayed(1_000)
    assert light.count == 1_000
    assert np.array_equal(light.mean, old.mean)
    assert np.allclose(light.covariance, old.covariance, rtol=2e-3)
    assert old.decayed(10_000) is old
    moved = light.add(np.full((1_000, 2), 10.0))
    assert np.allclose(moved.mean, (old.mean + 10.0) / 2)


def test_drawn_queries_have_the_observed_mean_and_covariance_and_repeat_by_seed() -> None:
    rows = np.random.default_rng(3).normal(size=(200, 3)) @ np.diag([1.0, 2.0, 3.0]) + 5.0
    seen = QueryStatistics.empty(3).add(rows)
    drawn = seen.sample(20_000, seed=1)
    assert np.allclose(drawn.mean(axis=0), seen.mean, atol=0.1)
    assert np.allclose(np.cov(drawn, rowvar=False), seen.covariance, atol=0.3)
    assert np.array_equal(drawn, seen.sample(20_000, seed=1))


def test_arrays_restore_the_same_statistics() -> None:
    seen = QueryStatistics.empty(3).add(np.random.default_rng(2).normal(size=(9, 3)))
    again = QueryStatistics.restore(seen.arrays())
    assert again.count == 9
    assert np.array_equal(again.mean, seen.mean)
    assert np.array_equal(again.scatter, seen.scatter)


def test_what_cannot_be_statistics_is_refused() -> None:
    stored = QueryStatistics.empty(3).arrays()
    with pytest.raises(StoreError, match="scatter missing"):
        QueryStatistics.restore({"count": stored["count"], "mean": stored["mean"]})
    with pytest.raises(StoreError, match=r"mean \(3,\), scatter \(2, 2\)"):
        QueryStatistics.restore({**stored, "scatter": np.zeros((2, 2))})
    with pytest.raises(StoreError, match="finite: False"):
        QueryStatistics.restore({**stored, "mean": np.full(3, np.nan)})


def test_wrong_dimensions_and_too_few_queries_say_so() -> None:
    seen = QueryStatistics.empty(3)
    with pytest.raises(PairsError, match=r"queries of shape \(1, 2\), expected \(n, 3\)"):
        seen.add(np.ones((1, 2), np.float32))
    with pytest.raises(PairsError, match="3 and 2 dimensions"):
        seen.merge(QueryStatistics.empty(2))
    with pytest.raises(PairsError, match="1 queries seen"):
        _ = seen.add(np.ones((1, 3))).covariance


def test_where_only_the_mean_is_kept_it_is_the_mean_of_all_and_nothing_can_be_drawn() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 7)).astype(np.float32)
    means = QueryStatistics.empty(7, spread=False).add(rows[:15]).add(rows[15:])
    np.testing.assert_allclose(means.mean, rows.mean(axis=0, dtype=np.float64), atol=1e-7)
    assert (means.count, means.has_spread, means.scatter.shape) == (40, False, (0, 0))
    mixed = QueryStatistics.empty(7).add(rows[:15]).merge(QueryStatistics.empty(7, spread=False).add(rows[15:]))
    np.testing.assert_allclose(mixed.mean, means.mean)
    assert not mixed.decayed(10).has_spread
    assert QueryStatistics.restore(means.arrays()).count == 40
    with pytest.raises(PairsError, match="of 7 dimensions only the mean is kept"):
        means.sample(3)
