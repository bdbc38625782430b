import subprocess
import sys

import numpy as np
import pytest

from crossfade.adapters.base import Float32, Map, PairsError, StoreError
from crossfade.adapters.linear import LinearMap, fit_linear
from crossfade.adapters.mlp import MlpMap, fit_mlp
from crossfade.adapters.registry import describe_map, restore_map
from crossfade.adapters.training import Score


def need_torch() -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'crossfade[train]'")


def bent_pairs(n: int = 1_500) -> tuple[Float32, Float32]:
    """Pairs whose relation a linear map cannot follow: a fold in each direction."""
    rng = np.random.default_rng(0)
    source = rng.normal(size=(n, 6)).astype(np.float32)
    target = np.concatenate([source @ rng.normal(size=(6, 3)), np.abs(source @ rng.normal(size=(6, 3)))], axis=1)
    return source, (target / np.linalg.norm(target, axis=1, keepdims=True)).astype(np.float32)


def closeness(source: Float32, target: Float32) -> Score:
    return lambda fitted: float((fitted.apply(source) * target).sum(axis=1).mean())


def small(base: LinearMap, normalise: bool = True) -> MlpMap:
    rng = np.random.default_rng(1)
    arrays = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 5), (5,), (5, 2), (2,)))
    inner, inner_bias, outer, outer_bias = arrays
    return MlpMap(base, inner, inner_bias, outer, outer_bias, normalise)


@pytest.fixture
def base() -> LinearMap:
    rng = np.random.default_rng(2)
    return LinearMap(rng.normal(size=(3, 2)).astype(np.float32), rng.normal(size=2).astype(np.float32))


def test_applying_is_the_formula_and_leaves_the_input_alone(base: LinearMap) -> None:
    fitted = small(base, normalise=False)
    rows = np.random.default_rng(3).normal(size=(7, 3)).astype(np.float32)
    before = rows.copy()
    hidden = np.maximum(rows @ fitted.inner + fitted.inner_bias, 0)
    expected = base.apply(rows) + hidden @ fitted.outer + fitted.outer_bias
    assert np.allclose(fitted.apply(rows), expected, atol=1e-5)
    assert np.array_equal(rows, before)
    assert fitted.apply(rows).dtype == np.float32


def test_normalised_rows_have_unit_length(base: LinearMap) -> None:
    rows = np.random.default_rng(3).normal(size=(7, 3)).astype(np.float32)
    assert np.allclose(np.linalg.norm(small(base).apply(rows), axis=1), 1, atol=1e-6)


def test_a_stored_network_is_restored_with_its_base(base: LinearMap) -> None:
    fitted = small(base)
    again = restore_map(fitted.arrays(), describe_map(fitted))
    rows = np.random.default_rng(3).normal(size=(7, 3)).astype(np.float32)
    assert isinstance(again, Map)
    assert np.array_equal(again.apply(rows), fitted.apply(rows))
    assert (again.source_dim, again.target_dim) == (3, 2)


def test_settings_without_a_described_base_are_refused(base: LinearMap) -> None:
    with pytest.raises(StoreError, match="base is str"):
        MlpMap.restore(small(base).arrays(), {"normalise": True, "base": "linear"})


def test_training_follows_a_bend_that_the_linear_base_cannot_and_repeats_by_seed() -> None:
    need_torch()
    source, target = bent_pairs()
    linear = fit_linear(source[:1_000], target[:1_000])
    score = closeness(source[1_000:], target[1_000:])
    first, second = (
        fit_mlp(source[:1_000], target[:1_000], linear, score=score, hidden=48, hold=0.0, rate=1e-2, epochs=25)
        for _ in range(2)
    )
    assert 1 - score(first) < 0.5 * (1 - score(linear))
    assert np.array_equal(first.outer, second.outer)


def test_holding_keeps_the_network_near_its_base() -> None:
    need_torch()
    source, target = bent_pairs()
    linear = fit_linear(source, target)

    def strayed(hold: float) -> float:
        fitted = fit_mlp(source, target, linear, score=closeness(source, target), hidden=32, hold=hold, epochs=8)
        return float(np.square(fitted.apply(source) - linear.apply(source)).mean())

    assert 0 < strayed(10.0) < 0.5 * strayed(0.0)


def test_the_base_itself_comes_back_where_no_epoch_retrieves_better() -> None:
    need_torch()
    source, target = bent_pairs(400)
    linear = fit_linear(source, target)
    kept = fit_mlp(source, target, linear, score=lambda fitted: -float(np.abs(fitted.outer).sum()), epochs=3)  # type: ignore[attr-defined]  # the score sees only networks
    assert np.allclose(kept.apply(source), linear.apply(source), atol=1e-6)


def test_fitting_leaves_the_global_random_state_of_torch_alone() -> None:
    need_torch()
    import torch

    source, target = bent_pairs(200)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit_mlp(source, target, fit_linear(source, target), score=closeness(source, target), epochs=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (np.ones((70, 3)), np.ones((69, 2)), "70 source and 69 target vectors"),
        (np.ones((10, 3)), np.ones((10, 2)), "at least 64 pairs"),
        (np.ones((70, 3)), np.ones((70, 4)), "3 -> 4 dimensions, its base maps 3 -> 2"),
    ],
)
def test_pairs_that_do_not_fit_say_why(base: LinearMap, source: Float32, target: Float32, message: str) -> None:
    with pytest.raises(PairsError, match=message):
        fit_mlp(source, target, base, score=lambda _: 0.0)


def test_applying_and_restoring_never_import_torch() -> None:
    code = "import sys, crossfade.adapters.mlp, crossfade.adapters.distill; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
