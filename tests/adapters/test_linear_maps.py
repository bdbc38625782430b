"""Linear maps: the continuum's ends, its middle, centring, unequal dimensions, reduced rank."""

from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes

from crossfade.adapters.base import Float32, Map, PairsError
from crossfade.adapters.coherence import fit_coherence
from crossfade.adapters.factors import singular_values
from crossfade.adapters.linear import fit_linear, fit_procrustes, fit_system, scale_columns
from crossfade.adapters.lowrank import fit_low_rank
from crossfade.adapters.vectors import normalise_rows, unit_rows
from crossfade.adapters.whitened import fit_whitened, whiten_targets


def make_pairs(count: int = 300, source_dim: int = 12, target_dim: int = 12, seed: int = 0) -> tuple[Float32, Float32]:
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(count, source_dim)) + 1.0
    target = source @ rng.normal(size=(source_dim, target_dim)) + 0.3 * rng.normal(size=(count, target_dim)) - 2.0
    return source.astype(np.float32), target.astype(np.float32)


def test_infinite_ridge_is_the_scaled_procrustes_rotation() -> None:
    source, target = make_pairs()
    x, y = source - source.mean(axis=0), target - target.mean(axis=0)
    rotation, singular = orthogonal_procrustes(x, y)
    weight = fit_system(source, target).solve(inf)
    np.testing.assert_allclose(weight, rotation * singular / np.square(x).sum(), atol=1e-4)


def test_zero_ridge_is_least_squares_with_intercept() -> None:
    source, target = make_pairs()
    design = np.column_stack([source, np.ones(len(source))])
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    fitted = fit_linear(source, target, ridge=0.0, normalise=False)
    np.testing.assert_allclose(fitted.apply(source), design @ solution, atol=1e-3)


@pytest.mark.parametrize("pull", [0.0, 1.0])
def test_the_gradient_of_the_stated_objective_vanishes_at_the_solution(pull: float) -> None:
    source, target = make_pairs()
    system = fit_system(source, target)
    weight = system.solve(0.7, pull=pull)
    x, y = source - system.source_mean, target - system.target_mean
    strength = 0.7 * system.mean_value
    gradient = x.T @ (x @ weight - y) + strength * (weight - pull * system.scale * system.rotation)
    assert np.abs(gradient).max() < 1e-5 * np.abs(x.T @ y).max()


@pytest.mark.parametrize(("source_dim", "target_dim"), [(8, 20), (20, 8)])
def test_procrustes_between_unequal_dimensions_is_a_partial_isometry(source_dim: int, target_dim: int) -> None:
    source, target = make_pairs(source_dim=source_dim, target_dim=target_dim)
    weight = fit_procrustes(source, target).weight
    singular = np.linalg.svd(weight, compute_uv=False)
    np.testing.assert_allclose(singular, 1.0, atol=1e-5)
    assert fit_procrustes(target, source).apply(target).shape == (len(source), source_dim)


def test_query_side_centring_sends_the_query_mean_to_the_document_mean() -> None:
    source, target = make_pairs()
    mean = np.full(source.shape[1], 3.0)
    fitted = fit_linear(source, target, normalise=False, query_mean=mean)
    np.testing.assert_allclose(fitted.apply(mean[None].astype(np.float32))[0], target.mean(axis=0), atol=1e-4)


def test_fewer_pairs_than_dimensions_still_give_a_finite_useful_map() -> None:
    source, target = make_pairs(count=30, source_dim=64, target_dim=64)
    for ridge in (0.0, 0.1, inf):
        assert np.isfinite(fit_linear(source, target, ridge=ridge).weight).all()


def test_a_constant_column_does_not_break_any_fit() -> None:
    source, target = make_pairs()
    source[:, 3] = 0.25
    target[:, 5] = 0.0
    for fitted in (
        fit_linear(source, target, ridge=0.0),
        fit_procrustes(source, target),
        fit_low_rank(source, target, rank=4),
    ):
        assert np.isfinite(fitted.apply(source)).all()


def test_uncentred_maps_have_no_bias() -> None:
    source, target = make_pairs()
    assert not fit_linear(source, target, centred=False).bias.any()


def test_weights_count_as_repeated_pairs() -> None:
    source, target = make_pairs(count=50)
    times = np.random.default_rng(1).integers(1, 4, size=50)
    weighted = fit_system(source, target, weights=times).solve(0.5)
    repeated = fit_system(source.repeat(times, axis=0), target.repeat(times, axis=0)).solve(0.5)
    np.testing.assert_allclose(weighted, repeated, atol=1e-6)


def test_reduced_rank_at_full_rank_is_the_full_map_and_lower_ranks_lose_ever_more() -> None:
    source, target = make_pairs(source_dim=10, target_dim=10)
    full = fit_linear(source, target, normalise=False)
    np.testing.assert_allclose(
        fit_low_rank(source, target, rank=10, normalise=False).apply(source), full.apply(source), atol=1e-3
    )
    errors = [
        np.square(fit_low_rank(source, target, rank=rank, normalise=False).apply(source) - target).sum()
        for rank in (1, 3, 6, 10)
    ]
    assert errors == sorted(errors, reverse=True)


def test_a_low_rank_map_multiplied_out_is_the_same_map() -> None:
    source, target = make_pairs()
    fitted = fit_low_rank(source, target, rank=5)
    np.testing.assert_allclose(fitted.to_linear().apply(source), fitted.apply(source), atol=1e-5)
    with pytest.raises(PairsError, match="must be 1 to 12"):
        fit_low_rank(source, target, rank=13)


def test_column_scaling_never_raises_the_squared_error() -> None:
    source, target = make_pairs()
    fitted = fit_procrustes(source, target, normalise=False)
    before = np.square(fitted.apply(source) - target).sum()
    assert np.square(scale_columns(fitted, source, target).apply(source) - target).sum() < before


def test_bad_settings_are_refused_with_both_figures() -> None:
    source, target = make_pairs()
    with pytest.raises(PairsError, match="300 source and 299 target"):
        fit_linear(source, target[1:])
    with pytest.raises(PairsError, match="ridge is -1"):
        fit_linear(source, target, ridge=-1.0)


@given(st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_a_batch_is_mapped_as_its_rows_alone_and_to_unit_length(count: int, seed: int) -> None:
    source, target = make_pairs(source_dim=6, target_dim=9)
    queries = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    for fitted in (fit_linear(source, target), fit_low_rank(source, target, rank=3)):
        assert isinstance(fitted, Map)
        mapped = fitted.apply(queries)
        assert mapped.dtype == np.float32
        assert mapped.flags.c_contiguous
        assert mapped.shape == (count, fitted.target_dim)
        np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1.0, atol=1e-5)
        np.testing.assert_allclose(np.concatenate([fitted.apply(row[None]) for row in queries]), mapped, atol=1e-5)


def test_zero_rows_stay_zero_when_normalised() -> None:
    rows = np.zeros((3, 4), np.float32)
    rows[1] = [3, 0, 4, 0]
    expected = np.array([[0] * 4, [0.6, 0, 0.8, 0], [0] * 4], np.float32)
    np.testing.assert_allclose(normalise_rows(rows.copy()), expected)
    np.testing.assert_allclose(unit_rows(np.zeros((1, 4))), np.zeros((1, 4)))


def test_a_coherence_map_weighs_directions_by_how_well_both_sides_correlate() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(4_000, 3)) * (5.0, 1.0, 1.0)
    noise = rng.normal(size=(4_000, 3))
    target = np.stack([source[:, 0] / 5, 0.8 * source[:, 1] + 0.6 * noise[:, 1], noise[:, 2]], axis=1)
    first, second = source.astype(np.float32), target.astype(np.float32)
    fitted = fit_coherence(fit_system(first, second, normalise=False), second, ridge=1e-6, leaning=0.0)
    np.testing.assert_allclose(fitted.weight / fitted.weight[0, 0], np.diag([1.0, 0.8, 0.0]), atol=0.05)


def test_a_coherence_map_leans_towards_directions_in_which_both_sides_spread_little() -> None:
    source = np.random.default_rng(0).normal(size=(4_000, 2)) * (5.0, 1.0)
    pairs = source.astype(np.float32), source.astype(np.float32)
    fitted = fit_coherence(fit_system(*pairs, normalise=False), pairs[1], ridge=1e-6, leaning=0.1)
    np.testing.assert_allclose(fitted.weight / fitted.weight[0, 0], np.diag([1.0, 5**0.4]), atol=0.05)


@pytest.mark.parametrize("fit", [fit_coherence, fit_whitened])
def test_maps_that_whiten_have_the_spread_of_the_scaled_rotation_and_need_a_ridge(fit: Any) -> None:
    rng = np.random.default_rng(1)
    source = rng.normal(size=(60, 40)).astype(np.float32)
    target = (source @ rng.normal(size=(40, 50)) + rng.normal(size=(60, 50))).astype(np.float32)
    system = fit_system(source, target, normalise=False)
    fitted, rotated = fit(system, target), system.fit(inf)
    spreads = [np.square(one.apply(source) - one.apply(source).mean(axis=0)).sum() for one in (fitted, rotated)]
    assert spreads[0] == pytest.approx(spreads[1], rel=1e-3)
    with pytest.raises(PairsError, match="ridge is 0"):
        fit(system, target, ridge=0)


def test_a_whitened_map_halves_the_power_of_what_spreads_and_weighs_by_the_root_of_correlation() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(8_000, 3)) * (4.0, 1.0, 1.0)
    noise = rng.normal(size=(8_000, 3))
    target = np.stack([9 * source[:, 0] / 4, 0.8 * source[:, 1] + 0.6 * noise[:, 1], noise[:, 2]], axis=1)
    first, second = source.astype(np.float32), target.astype(np.float32)
    fitted = fit_whitened(fit_system(first, second, normalise=False), second, ridge=1e-6)
    # x^-1/2 (r (x y)^1/2)^1/2 y^-1/2 of deviations x, y and their correlation r
    expected = np.array([36**-0.25, 0.8**0.5, 0.0])
    found = np.diag(fitted.weight) / fitted.weight[0, 0]
    np.testing.assert_allclose(found[:2], expected[:2] / expected[0], rtol=0.03)
    assert abs(found[2]) < 0.2 * found[1]


def test_whitened_targets_keep_their_mean_and_sum_of_squares_and_spread_alike() -> None:
    rng = np.random.default_rng(0)
    target = (rng.normal(size=(4_000, 3)) * (5.0, 1.0, 0.2) + 7.0).astype(np.float32)
    moved = whiten_targets(target, target.mean(axis=0), ridge=1e-6)
    np.testing.assert_allclose(moved.mean(axis=0), target.mean(axis=0), atol=1e-3)
    assert moved.var(axis=0).sum() == pytest.approx(target.var(axis=0).sum(), rel=1e-3)
    assert moved.std(axis=0).max() / moved.std(axis=0).min() < 1.05


def test_a_fit_goes_on_where_the_quicker_svd_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = make_pairs(count=8)  # fewer pairs than dimensions: a cross-covariance of low rank

    def give_up(*_: Any, **__: Any) -> None:
        raise np.linalg.LinAlgError("SVD did not converge")

    expected = fit_procrustes(source, target).apply(source)
    cross = source.T @ target
    monkeypatch.setattr(np.linalg, "svd", give_up)
    left, values, right = singular_values(cross)
    np.testing.assert_allclose((left * values) @ right, cross, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(fit_procrustes(source, target).apply(source), expected, atol=1e-4)
