"""Local experts and the residual: held to the global map, equal in batches and alone, growing with pairs."""

from dataclasses import replace

import numpy as np
import pytest

from crossfade.adapters.base import Float32, Map, PairsError, StoreError
from crossfade.adapters.linear import fit_linear
from crossfade.adapters.local import fit_clusters, fit_local
from crossfade.adapters.residual import ResidualMap, fit_residual
from crossfade.adapters.vectors import unit_rows


def mixed_pairs(count: int = 1_200, dim: int = 16) -> tuple[Float32, Float32]:
    """Pairs of three domains, each with a rotation of its own."""
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(3, dim))
    domain = rng.integers(0, 3, size=count)
    source = centres[domain] + rng.normal(size=(count, dim))
    turns = np.stack([np.linalg.qr(rng.normal(size=(dim, dim)))[0] for _ in range(3)])
    return unit_rows(source), unit_rows(np.einsum("nd,nde->ne", source, turns[domain]))


SOURCE, TARGET = mixed_pairs()
HELD = slice(1_000, None)
BASE = fit_linear(SOURCE[:1_000], TARGET[:1_000])


def loss(fitted: Map, rows: slice = HELD) -> float:
    return float(np.square(fitted.apply(SOURCE[rows]) - TARGET[rows]).sum(axis=1).mean())


def test_experts_follow_domains_that_one_map_cannot() -> None:
    local = fit_local(BASE, SOURCE[:1_000], TARGET[:1_000], clusters=3, prior=10, active=1)
    assert loss(local) < 0.5 * loss(BASE)


def test_experts_come_to_the_global_map_as_the_prior_grows() -> None:
    fitted = [fit_local(BASE, SOURCE[:1_000], TARGET[:1_000], clusters=3, prior=prior) for prior in (1.0, 1e3, 1e8)]
    apart = [np.abs(one.apply(SOURCE) - BASE.apply(SOURCE)).max() for one in fitted]
    assert apart[0] > apart[1] > apart[2]
    assert apart[2] < 1e-3


def test_clusters_with_few_pairs_are_solved_as_those_with_many() -> None:
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(40, 30)).astype(np.float32), rng.normal(size=(40, 30)).astype(np.float32)
    base = fit_linear(source, target, normalise=False)
    few = fit_local(base, source, target, clusters=1, prior=5.0, normalise=False)
    centred = source - source.mean(axis=0)
    left = target - base.apply(source)
    strength = 5.0 * float(np.square(centred).mean())
    delta = np.linalg.solve(centred.T @ centred + strength * np.eye(30), centred.T @ (left - left.mean(axis=0)))
    wide = fit_local(base, np.tile(source, (10, 1)), np.tile(target, (10, 1)), clusters=1, prior=50.0, normalise=False)
    np.testing.assert_allclose(few.deltas[0], delta, atol=1e-3)
    np.testing.assert_allclose(wide.deltas[0], delta, atol=1e-3)


def test_gates_sum_to_one_and_one_active_expert_takes_all() -> None:
    local = fit_local(BASE, SOURCE, TARGET, clusters=6, active=4)
    experts, gates = local.gate(SOURCE[:50] - local.centre)
    assert experts.shape == (50, 4)
    np.testing.assert_allclose(gates.sum(axis=1), 1.0, atol=1e-5)
    assert (np.diff(gates, axis=1) <= 0).all()
    np.testing.assert_allclose(replace(local, active=1).gate(SOURCE[:5])[1], 1.0)


def test_clusters_are_the_same_for_the_same_seed_and_never_empty() -> None:
    first, second = fit_clusters(SOURCE, 8, seed=3), fit_clusters(SOURCE, 8, seed=3)
    np.testing.assert_array_equal(first.member, second.member)
    assert set(first.member.tolist()) == set(range(len(first.routes)))


def test_a_residual_puts_its_own_pairs_nearly_right() -> None:
    fitted = fit_residual(BASE, SOURCE, TARGET, neighbours=4, temperature=0.005, weight=1.0)
    assert loss(fitted) < 0.05 * loss(BASE)
    assert loss(replace(fitted, weight=0.0)) == pytest.approx(loss(BASE), abs=1e-5)


def test_a_residual_follows_domains_on_pairs_it_has_not_seen_and_improves_as_it_grows() -> None:
    mean = SOURCE[:1_000].mean(axis=0)
    small = fit_residual(BASE, SOURCE[:200], TARGET[:200], weight=1.0)
    grown = small.grown(SOURCE[200:1_000], TARGET[200:1_000], mean)
    assert len(grown) == 1_000
    assert loss(grown) < loss(small) < loss(BASE)


def test_more_neighbours_than_pairs_use_all_pairs() -> None:
    fitted = fit_residual(BASE, SOURCE[:8], TARGET[:8], neighbours=32)
    assert np.isfinite(fitted.apply(SOURCE)).all()


@pytest.mark.parametrize("on_experts", [False, True])
def test_batches_map_like_single_queries_and_to_unit_length(on_experts: bool) -> None:
    base: Map = fit_local(BASE, SOURCE, TARGET, clusters=5) if on_experts else BASE
    for fitted in (base, fit_residual(base, SOURCE, TARGET)):
        together = fitted.apply(SOURCE[:64])
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
        alone = np.concatenate([fitted.apply(row[None]) for row in SOURCE[:64]])
        np.testing.assert_allclose(alone, together, atol=2e-5)


def test_the_given_vectors_are_left_as_they_were() -> None:
    given = SOURCE[:10].copy()
    fit_residual(fit_local(BASE, SOURCE, TARGET, clusters=5), SOURCE, TARGET).apply(given)
    np.testing.assert_array_equal(given, SOURCE[:10])


def test_settings_out_of_range_are_refused_with_their_values() -> None:
    with pytest.raises(PairsError, match="neighbours is 0"):
        fit_residual(BASE, SOURCE, TARGET, neighbours=0)
    with pytest.raises(PairsError, match="prior is -1"):
        fit_local(BASE, SOURCE, TARGET, prior=-1)
    with pytest.raises(PairsError, match="900 clusters from 1200 pairs: use 1 to 600"):
        fit_clusters(SOURCE, 900)


def test_experts_leave_the_middle_of_their_cluster_where_the_global_map_puts_it() -> None:
    local = fit_local(BASE, SOURCE, TARGET, clusters=3, prior=10, active=1, normalise=False)
    clusters = fit_clusters(SOURCE, 3)
    middles = np.stack([SOURCE[clusters.member == one].mean(axis=0) for one in range(3)])
    np.testing.assert_allclose(local.apply(middles), replace(BASE, normalise=False).apply(middles), atol=1e-4)


def many_pairs() -> tuple[Float32, Float32]:
    source, target = mixed_pairs(2_600)
    return source, target


def test_an_index_finds_what_the_exact_search_finds_and_grows_without_its_keys() -> None:
    source, target = many_pairs()
    exact = fit_residual(BASE, source[:2_100], target[:2_100], weight=1.0)
    indexed = exact.indexed()
    assert (len(indexed), len(indexed.keys), exact.index) == (2_100, 0, None)
    cosines = np.einsum("nd,nd->n", indexed.apply(source[2_100:]), exact.apply(source[2_100:]))
    assert np.quantile(cosines, 0.02) > 0.995  # keys are rounded to 8 bits
    grown = indexed.grown(source[2_100:], target[2_100:], source[:2_100].mean(axis=0))
    assert len(grown) == 2_600
    apart = [float(np.square(one.apply(source[2_100:]) - target[2_100:]).sum()) for one in (grown, indexed)]
    assert apart[0] < 0.5 * apart[1]


def test_few_pairs_need_no_index_and_what_cannot_be_one_is_refused() -> None:
    source, target = many_pairs()
    assert fit_residual(BASE, source[:256], target[:256]).indexed().index is None
    indexed = fit_residual(BASE, source, target).indexed()
    arrays, settings = indexed.arrays(), indexed.settings()
    torn = {"coded.codes": arrays["coded.codes"][:99], "coded.units": arrays["coded.units"][:99]}
    with pytest.raises(StoreError, match="99 values for 2600 keys; fit the adapter again"):
        ResidualMap.restore({**arrays, **torn}, settings)
    with pytest.raises(StoreError, match="an earlier version kept its pairs in a graph"):
        ResidualMap.restore({**arrays, "graph": np.zeros(9, np.uint8)}, settings)
