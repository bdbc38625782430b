from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.adapters.base import Float32, PairsError, StoreError
from crossfade.adapters.fingerprint import Fingerprint, classify, fit_fingerprint, mismatched
from tests.adapters.vector_pack import pack_vectors


def cloud(seed: int, n: int = 600, dim: int = 24) -> Float32:
    """Vectors of one made-up model: its own mean and widths, whatever the seed of the draw."""
    model = np.random.default_rng(seed)
    mean, widths = model.normal(size=dim), model.uniform(0.05, 1.0, dim)
    turn = np.linalg.qr(model.normal(size=(dim, dim)))[0]
    rows: Float32 = (mean + (model.normal(size=(n, dim)) * widths) @ turn).astype(np.float32)
    return rows


@cache
def real_fingerprint(corpus: str, model: str) -> Fingerprint:
    return fit_fingerprint(pack_vectors(corpus, "docs", model)[:2_000])


@pytest.fixture(scope="session")
def fitted() -> Fingerprint:
    return fit_fingerprint(cloud(0))


@pytest.mark.parametrize("other", ["wordnet", "banking77"])
@pytest.mark.parametrize("corpus", ["med", "banking77"])
def test_single_queries_of_two_real_models_are_told_apart_whatever_corpus_was_fitted(corpus: str, other: str) -> None:
    models = ("minilm-l6", "e5-small")
    prints = {model: real_fingerprint(corpus, model) for model in models}
    for model in models:
        queries = pack_vectors(other, "queries", model)
        assert classify(queries, prints) == [model] * len(queries)
        assert not mismatched(queries, model, prints).any()
        wrong = next(name for name in models if name != model)
        assert mismatched(queries, wrong, prints).all()


def test_one_model_alone_refuses_few_of_its_own_queries_and_finds_most_of_another_s() -> None:
    own, foreign = pack_vectors("scifact", "queries", "minilm-l6"), pack_vectors("scifact", "queries", "e5-small")
    alone = fit_fingerprint(pack_vectors("scifact", "docs", "minilm-l6"), queries=own[::2])
    assert alone.is_foreign(own[1::2]).mean() <= 0.005
    assert alone.is_foreign(foreign).mean() >= 0.99


def test_a_single_vector_has_the_distance_it_has_in_a_batch(fitted: Fingerprint) -> None:
    rows = cloud(1, n=50)
    alone = [float(fitted.distance(row[None])[0]) for row in rows]
    assert np.allclose(fitted.distance(rows), alone, atol=1e-5)


@settings(deadline=None)  # the machine that runs this may be busy
@given(factor=st.floats(1e-3, 1e3), row=st.integers(0, 99))
def test_length_does_not_matter(fitted: Fingerprint, factor: float, row: int) -> None:
    vector = cloud(0, n=100)[row : row + 1]
    assert fitted.distance(vector * np.float32(factor)) == pytest.approx(fitted.distance(vector), abs=1e-4)


def test_distance_is_the_dense_formula() -> None:
    rows = cloud(3, n=400, dim=12)
    full = fit_fingerprint(rows, directions=11)
    inverse = (full.directions.T * full.excess) @ full.directions + full.rest * np.eye(12)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True) - full.mean
    squares = np.einsum("ij,jk,ik->i", unit, inverse, unit)
    expected = np.log(squares / 12) - np.linalg.slogdet(inverse)[1] / 12
    assert np.allclose(full.distance(rows), expected, atol=1e-4)


def test_vectors_that_are_not_finite_are_foreign(fitted: Fingerprint) -> None:
    rows = cloud(0, n=3)
    rows[1, 4] = np.nan
    assert fitted.is_foreign(rows).tolist()[1]
    assert fitted.is_foreign(rows[1:2]).tolist() == [True]
    assert mismatched(rows[1:2], "a", {"a": fitted, "b": fit_fingerprint(cloud(5))}).tolist() == [True]


def test_a_zero_vector_has_a_finite_distance(fitted: Fingerprint) -> None:
    assert np.isfinite(fitted.distance(np.zeros((1, 24), np.float32))).all()
    assert np.isfinite(fitted.distance(np.zeros((2, 24), np.float32))).all()


def test_a_model_known_alone_is_judged_by_its_threshold(fitted: Fingerprint) -> None:
    rows = np.concatenate([cloud(0, n=20), cloud(9, n=20)])
    assert mismatched(rows, "a", {"a": fitted}).tolist() == fitted.is_foreign(rows).tolist()
    assert mismatched(rows, "a", {"a": fitted})[20:].all()


def test_models_of_other_dimensions_do_not_take_part(fitted: Fingerprint) -> None:
    small = fit_fingerprint(cloud(4, dim=16))
    assert classify(cloud(0, n=5), {"small": small, "a": fitted}) == ["a"] * 5
    with pytest.raises(PairsError, match=r"no known model has 7 dimensions, known are \{'small': 16, 'a': 24\}"):
        classify(np.ones((1, 7), np.float32), {"small": small, "a": fitted})
    with pytest.raises(PairsError, match="none of dimension 24 for 'small'"):
        mismatched(cloud(0, n=5), "small", {"small": small, "a": fitted})
    with pytest.raises(PairsError, match=r"shape \(5, 24\), it was fitted on \(n, 16\)"):
        small.distance(cloud(0, n=5))


def test_arrays_restore_the_same_fingerprint(fitted: Fingerprint) -> None:
    again = Fingerprint.restore(fitted.arrays())
    rows = cloud(2)
    assert np.array_equal(fitted.distance(rows), again.distance(rows))
    assert again.threshold == fitted.threshold


def test_arrays_that_do_not_fit_together_are_refused(fitted: Fingerprint) -> None:
    arrays = fitted.arrays()
    with pytest.raises(StoreError, match="do not fit mean"):
        Fingerprint.restore({**arrays, "mean": arrays["mean"][:-1]})
    with pytest.raises(StoreError, match="excess missing"):
        Fingerprint.restore({name: array for name, array in arrays.items() if name != "excess"})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (cloud(0, n=20), r"documents of shape \(20, 24\), at least 50"),
        (np.full((60, 8), np.nan, np.float32), "60 of 60 documents are not finite"),
        (np.ones((60, 8), np.float32), "60 vectors that are all the same|48 vectors that are all the same"),
    ],
)
def test_vectors_that_cannot_be_fitted_say_why(rows: Float32, message: str) -> None:
    with pytest.raises(PairsError, match=message):
        fit_fingerprint(rows)


def test_fewer_vectors_than_dimensions_still_give_a_usable_fingerprint() -> None:
    rows = cloud(6, n=260, dim=200)
    few = fit_fingerprint(rows[:120])
    assert np.isfinite(few.distance(rows)).all()
    assert few.is_foreign(rows[120:]).mean() < 0.05
    assert few.is_foreign(cloud(7, n=50, dim=200)).all()
