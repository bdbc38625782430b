"""Turned queries: their scores of the nearest pairs come nearer to the new model's, by every way of computing it."""

import numpy as np
import pytest

from crossfade.adapters import ordering
from crossfade.adapters.base import Float32
from crossfade.adapters.linear import fit_linear
from crossfade.adapters.ordering import Ordering, fit_ordering
from crossfade.adapters.residual import ResidualMap, fit_residual
from crossfade.adapters.vectors import normalise_rows, unit_rows

from .kernels import WAYS, computed

RNG = np.random.default_rng(0)
TARGETS = unit_rows(RNG.normal(size=(40, 37)))
MAPPED = RNG.normal(size=(3, 37)).astype(np.float32)
ROWS = np.stack([RNG.permutation(40)[:6] for _ in range(3)]).astype(np.int32)
SCORES = np.sort(RNG.uniform(0.2, 0.9, size=(3, 6)).astype(np.float32), axis=1)[:, ::-1].copy()
ROWS[2, 4:] = -1


def ridge_regression(one: int, spread: float, ridge: float) -> Float32:
    """The formula of the module's docstring as a least-squares problem in the primal, for query `one`."""
    real = ROWS[one] >= 0
    near, scores = TARGETS[ROWS[one][real]].astype(np.float64), SCORES[one][real].astype(np.float64)
    length = float(np.linalg.norm(MAPPED[one]))
    start = MAPPED[one].astype(np.float64) / length
    wanted = (near @ start).mean() + spread * (scores - scores.mean())
    held = ridge * np.square(near).sum() / len(near)
    design = np.concatenate([near, held**0.5 * np.eye(37)])
    solved = np.linalg.lstsq(design, np.concatenate([wanted, held**0.5 * start]), rcond=None)[0]
    turned: Float32 = (solved * length).astype(np.float32)
    return turned


@pytest.mark.parametrize("instructions", WAYS)
def test_turning_is_the_ridge_regression_of_scores(monkeypatch: pytest.MonkeyPatch, instructions: str) -> None:
    plain = Ordering(TARGETS, np.zeros(37, np.float32), 0.7, 0.5)
    given = plain if instructions == "floats" else plain.encoded(np.arange(40))
    out = MAPPED.copy()
    with computed(instructions, ordering, monkeypatch):
        given.turn(ROWS, SCORES, out)
    expected = np.stack([ridge_regression(one, 0.7, 0.5) for one in range(3)])
    np.testing.assert_allclose(out, expected, atol=1e-5 if instructions == "floats" else 0.05)
    assert np.abs(out - MAPPED).max() > 0.2  # turning did something that the tolerance does not hide


def test_nothing_found_a_single_pair_or_a_zero_vector_turns_nothing() -> None:
    given = Ordering(TARGETS, np.zeros(37, np.float32), 0.7)
    rows = np.array([[-1, -1], [3, -1], [4, 5]], np.int32)
    start = np.stack([MAPPED[0], MAPPED[1], np.zeros(37, np.float32)])
    for one in (given, given.encoded(np.arange(40))):
        out = start.copy()
        one.turn(rows, np.full((3, 2), 0.5, np.float32), out)
        np.testing.assert_allclose(out, start, atol=1e-6)


def make_documents(count: int) -> tuple[Float32, Float32]:
    """Pairs whose neighbours differ between the spaces: the old one keeps half of what the new one knows."""
    new = unit_rows(RNG.normal(size=(count, 48)) * np.linspace(1.5, 0.3, 48))
    return new, unit_rows(new @ RNG.normal(size=(48, 24)))


def test_a_turned_query_ranks_its_nearest_pairs_more_as_the_new_model_does() -> None:
    new, old = make_documents(1_200)
    queries, new, old = new[:200], new[200:], old[200:]
    base = fit_linear(new, old)
    flat = fit_residual(base, new, old, neighbours=16, weight=0.0)
    turned = flat.ordered(new, old)

    def agreement(fitted: ResidualMap) -> float:
        true = queries @ new.T
        near = np.argsort(-true, axis=1)[:, :16]
        seen = np.take_along_axis(fitted.apply(queries) @ (old - old.mean(axis=0)).T, near, axis=1)
        return float(
            np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(seen, np.take_along_axis(true, near, 1), strict=True)])
        )

    assert agreement(turned) > agreement(flat) + 0.1
    assert agreement(turned.indexed()) > agreement(flat) + 0.1


def test_the_spread_puts_new_scores_on_the_scale_of_old_ones() -> None:
    new, _ = make_documents(600)
    base = fit_linear(new, new, ridge=0.0)
    same = fit_ordering(base, new, new, new)
    assert same.spread == pytest.approx(1.0, abs=0.05)  # the same space, but for the mean that targets are less


def test_a_space_whose_documents_are_all_alike_turns_little_and_stays_finite() -> None:
    new, old = make_documents(100)
    alike = np.tile(new[:1], (100, 1)) + 1e-7 * new
    assert fit_ordering(fit_linear(alike, old), np.zeros_like(alike), alike, old).spread <= 4.0
    fitted = fit_residual(fit_linear(alike, old), alike, old).ordered(alike, old)
    assert np.isfinite(fitted.apply(new)).all()
    assert fit_ordering(fit_linear(new, old), new[:2], new[:2], old[:2]).spread == 0.0


def test_an_ordering_grows_and_is_read_back() -> None:
    new, old = make_documents(700)
    fitted = fit_residual(fit_linear(new, old), new[:300], old[:300]).ordered(new[:300], old[:300])
    for one in (fitted, fitted.indexed()):
        grown = one.grown(new[300:], old[300:], new[:300].mean(axis=0))
        back = ResidualMap.restore(grown.arrays(), grown.settings())
        assert len(back) == 700
        asked = normalise_rows(new[:20] + 0.01)
        np.testing.assert_array_equal(back.apply(asked), grown.apply(asked))
        assert grown.ordering is not None
        assert len(grown.ordering.targets) == 700
