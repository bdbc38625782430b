from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from crossfade.adapters.base import Float32, PairsError, StoreError
from crossfade.adapters.calibrate import Calibration, Method, Metric, Pairing, fit_calibration, sample_scores, score
from tests.adapters.vector_pack import pack_vectors

Space = tuple[Float32, Float32, Float32, Float32]


def noisy_pairs(n: int = 3_000, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    source = rng.uniform(0.1, 0.9, n)
    return source, 0.7 + 0.2 * source**2 + rng.normal(0, 0.01, n)


@pytest.fixture(scope="module")
def spaces() -> Space:
    """Queries of e5-small, its documents, the queries mapped to minilm-l6 by ridge regression, and those documents."""
    docs_new, docs_old = pack_vectors("scifact", "docs", "e5-small"), pack_vectors("scifact", "docs", "minilm-l6")
    queries = pack_vectors("scifact", "queries", "e5-small")[:600]
    x, y = docs_new[::2] - docs_new.mean(0), docs_old[::2] - docs_old.mean(0)
    weight = np.linalg.solve(x.T @ x + 5 * np.eye(384, dtype=np.float32), x.T @ y)
    adapted = (queries - docs_new.mean(0)) @ weight + docs_old.mean(0)
    return queries, docs_new, adapted / np.linalg.norm(adapted, axis=1, keepdims=True), docs_old


def hit_ratio(spaces: Space, method: Method, pairing: Pairing) -> float:
    """Hits that pass a moved threshold for each that passed the original one, on queries that were not fitted on."""
    queries, docs_new, adapted, docs_old = spaces
    fitted = fit_calibration(
        *sample_scores(queries[::2], docs_new, adapted[::2], docs_old, "cosine", pairing=pairing), method=method
    )
    new, old = queries[1::2] @ docs_new.T, adapted[1::2] @ docs_old.T
    threshold = float(np.quantile(new, 1 - 10 / new.shape[1]))
    return float((old >= fitted.apply(threshold)).sum() / (new >= threshold).sum())


def test_the_curve_follows_a_known_relation() -> None:
    fitted = fit_calibration(*noisy_pairs(), method="mean")
    at = np.linspace(0.2, 0.8, 50)
    assert np.abs(fitted.apply(at) - (0.7 + 0.2 * at**2)).max() < 0.01
    assert 2 <= len(fitted.source) <= 256


@given(
    scores=st.lists(
        st.tuples(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32)), min_size=20, max_size=200, unique=True
    ),
    probes=st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=20, unique=True),
    method=st.sampled_from(["match", "mean"]),
)
def test_order_survives_and_the_inverse_leads_back(
    scores: list[tuple[float, float]], probes: list[float], method: Method
) -> None:
    source, target = np.array(scores).T
    try:
        fitted = fit_calibration(source, target, method=method)
    except PairsError:
        return  # scores that do not rise together are refused
    moved = fitted.apply(np.sort(probes))
    far_enough = np.diff(np.sort(probes)) > 1e-6
    assert (np.diff(moved)[far_enough] > 0).all()
    assert (np.diff(moved) >= 0).all()
    assert np.allclose(fitted.invert().apply(moved), np.sort(probes), atol=1e-5)


def test_beyond_the_fitted_range_the_curve_goes_on_with_the_sample_slope() -> None:
    fitted = fit_calibration(*noisy_pairs())
    assert fitted.apply(1.5) - fitted.apply(1.0) == pytest.approx(0.5 * fitted.slope)
    assert fitted.apply(-1.0) - fitted.apply(-0.5) == pytest.approx(-0.5 * fitted.slope)


def test_a_single_score_gives_a_float_and_equals_the_array_form() -> None:
    fitted = fit_calibration(*noisy_pairs())
    assert isinstance(fitted.apply(0.4), float)
    assert fitted.apply(np.array([0.4]))[0] == fitted.apply(0.4)


def test_knots_are_bounded_also_for_many_scores() -> None:
    assert len(fit_calibration(*noisy_pairs(200_000)).source) <= 256
    assert len(fit_calibration(*noisy_pairs(200_000), knots=16).source) <= 16


def test_two_blocks_of_very_unequal_weight_still_give_a_curve() -> None:
    source = np.concatenate([np.linspace(0, 1, 999), [2.0]])
    fitted = fit_calibration(source, np.concatenate([np.linspace(0.5, 0.4999, 999), [9.0]]), method="mean")
    assert fitted.apply(2.0) > fitted.apply(0.5)


def test_arrays_restore_the_same_curve() -> None:
    fitted = fit_calibration(*noisy_pairs())
    again = Calibration.restore(fitted.arrays())
    at = np.linspace(-1, 2, 31)
    assert np.array_equal(fitted.apply(at), again.apply(at))


def test_arrays_that_are_no_rising_curve_are_refused() -> None:
    arrays = fit_calibration(*noisy_pairs()).arrays()
    with pytest.raises(StoreError, match="not a strictly rising curve"):
        Calibration.restore({**arrays, "target": arrays["target"][::-1]})
    with pytest.raises(StoreError, match="slope missing"):
        Calibration.restore({"source": arrays["source"], "target": arrays["target"]})


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (np.arange(30.0), np.arange(29.0), "30 source scores but 29 target scores"),
        (np.arange(5.0), np.arange(5.0), "5 pairs of scores, at least 20"),
        (np.r_[np.arange(29.0), np.nan], np.arange(30.0), "1 of 30 pairs of scores are not finite"),
        (np.arange(30.0), -np.arange(30.0), "do not rise"),
        (np.ones(30), np.arange(30.0), "do not rise"),
    ],
)
def test_scores_that_cannot_be_fitted_say_why(
    source: NDArray[np.float64], target: NDArray[np.float64], message: str
) -> None:
    with pytest.raises(PairsError, match=message):
        fit_calibration(source, target)


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclid", "manhattan"])
def test_scores_are_the_database_s_own(metric: Metric) -> None:
    rng = np.random.default_rng(1)
    queries, docs = rng.normal(size=(1, 8)).astype(np.float32), rng.normal(size=(5, 8)).astype(np.float32)
    query = queries[0]
    expected = {
        "cosine": [d @ query / (np.linalg.norm(d) * np.linalg.norm(query)) for d in docs],
        "dot": [d @ query for d in docs],
        "euclid": [np.sqrt(((d - query) ** 2).sum()) for d in docs],
        "manhattan": [np.abs(d - query).sum() for d in docs],
    }
    assert np.allclose(score(queries, docs, metric)[0], expected[metric], atol=1e-5)


def test_a_zero_document_has_cosine_zero() -> None:
    docs = np.zeros((1, 4), np.float32)
    assert score(np.ones((1, 4), np.float32), docs, "cosine").tolist() == [[0.0]]


@pytest.mark.parametrize(("metric", "best"), [("dot", np.max), ("euclid", np.min)])
def test_samples_hold_the_best_document_of_each_query(metric: Metric, best: Callable[..., NDArray[np.float64]]) -> None:
    rng = np.random.default_rng(2)
    queries, docs = rng.normal(size=(3, 6)).astype(np.float32), rng.normal(size=(500, 6)).astype(np.float32)
    source, target = sample_scores(queries, docs, queries, docs, metric, top=10)
    assert 3 * 10 < len(source) <= 3 * 20
    assert np.array_equal(source, target)
    assert np.allclose(best(source.reshape(3, -1), axis=1), best(score(queries, docs, metric), axis=1))


def test_rows_that_do_not_correspond_are_refused() -> None:
    docs = np.ones((4, 3), np.float32)
    with pytest.raises(PairsError, match="4 new and 3 old documents"):
        sample_scores(docs, docs, docs, docs[:3], "dot")


@pytest.mark.parametrize("metric", ["cosine", "euclid"])
def test_calibrated_scores_are_distributed_like_the_old_space_on_real_data(
    spaces: Space, metric: Literal["cosine", "euclid"]
) -> None:
    queries, docs_new, adapted, docs_old = spaces
    fitted = fit_calibration(*sample_scores(queries[::2], docs_new, adapted[::2], docs_old, metric))
    source, target = sample_scores(queries[1::2], docs_new, adapted[1::2], docs_old, metric)
    before, after = ks_2samp(source, target).statistic, ks_2samp(fitted.apply(source), target).statistic
    assert before > 0.9
    assert after < 0.05


def test_a_matched_threshold_keeps_the_number_of_hits_where_the_mean_lets_many_more_through(spaces: Space) -> None:
    assert 0.7 < hit_ratio(spaces, "match", "rank") < 1.4
    assert hit_ratio(spaces, "mean", "document") > 3
