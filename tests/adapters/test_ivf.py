"""The index of short codes: it finds what exact search finds, alike by every set of instructions and by numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from crossfade.adapters import ivf, native
from crossfade.adapters.base import Float32
from crossfade.adapters.ivf import ONE_LIST_UP_TO, build_ivf
from crossfade.adapters.search import best
from crossfade.adapters.vectors import normalise_rows, unit_rows

MANY = ONE_LIST_UP_TO + 1_900


def crowd(count: int, dim: int, seed: int = 0) -> Float32:
    """Unit rows around some hundred centres, in directions that matter less and less: like embeddings."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(150, dim))
    fade = np.linspace(1.0, 0.2, dim)
    return unit_rows((centres[rng.integers(0, 150, count)] + 0.7 * rng.normal(size=(count, dim))) * fade)


@pytest.fixture
def kernel() -> Iterator[Any]:
    """The compiled search, left as it was found."""
    if native.compiled is None:
        pytest.skip("the search was not compiled: no C compiler at installation")
    before = native.compiled.instructions()
    yield native.compiled
    native.compiled.instructions(before)


@pytest.mark.parametrize(("count", "dim"), [(1_000, 384), (MANY, 200), (MANY, 20)])
def test_nearly_all_of_the_nearest_are_found_with_their_cosines(count: int, dim: int) -> None:
    rows, probes = crowd(count, dim), crowd(60, dim, seed=1)
    index, order = build_ivf(rows)
    found, scores = index.search(probes, 8)
    exact = probes @ rows[order].T
    wanted, _ = best(exact, 8)
    # whole rows are rounded to 8 bits, which shows in few dimensions
    shared = [len(set(a) & set(b)) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]
    assert np.mean(shared) / 8 > 0.93
    np.testing.assert_allclose(scores, np.take_along_axis(exact, found.astype(np.int64), axis=1), atol=0.01)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert sorted(order.tolist()) == list(range(count))


@pytest.mark.parametrize("instructions", ["plain", "avx2", "vnni"])
@pytest.mark.parametrize(("count", "dim"), [(300, 24), (1_000, 383), (MANY, 50)])
def test_every_set_of_instructions_finds_what_numpy_finds(
    kernel: Any, monkeypatch: pytest.MonkeyPatch, instructions: str, count: int, dim: int
) -> None:
    try:
        kernel.instructions(instructions)
    except ValueError as error:
        pytest.skip(str(error))
    index, _ = build_ivf(crowd(count, dim))
    probes = crowd(70, dim, seed=2)
    rows, scores = index.search(probes, 8)
    alone = np.concatenate([index.search(probe[None], 8)[0] for probe in probes])
    monkeypatch.setattr(ivf, "compiled", None)
    expected, wanted = index.search(probes, 8)
    np.testing.assert_allclose(scores, wanted, atol=1e-6)
    assert np.mean(rows == expected) > 0.995  # equal scores by code at the border of KEPT may be kept otherwise
    np.testing.assert_array_equal(alone, rows)


def test_fewer_rows_than_asked_for_leave_places_empty() -> None:
    index, _ = build_ivf(crowd(5, 16))
    rows, scores = index.search(crowd(3, 16, seed=1), 8)
    assert (np.sort(rows, axis=1)[:, 3:] == np.arange(5)).all()
    assert (rows[:, 5:] == -1).all()
    assert (scores[:, 5:] == 0).all()


def test_rows_that_are_added_later_are_found() -> None:
    rows = crowd(MANY, 32)
    index, order = build_ivf(rows[:-500])
    more = index.extended(rows[-500:])
    assert len(more) == MANY
    found, scores = more.search(rows[-500:], 1)
    assert np.mean(found[:, 0] == np.arange(MANY - 500, MANY)) > 0.97
    assert scores.min() > 0.9
    assert len(order) == len(index) == MANY - 500


def test_an_index_is_the_same_for_the_same_rows_and_comes_back_from_its_arrays() -> None:
    rows, probes = crowd(MANY, 32), crowd(20, 32, seed=3)
    (first, order), (second, again) = build_ivf(rows), build_ivf(rows)
    np.testing.assert_array_equal(order, again)
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, second.arrays()[name])
    restored = ivf.IvfIndex.restore(first.arrays())
    for one, other in zip(restored.search(probes, 8), first.search(probes, 8), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_index_of_an_earlier_version_is_brought_up_to_date() -> None:
    rows, probes = crowd(MANY, 64), crowd(20, 64, seed=3)
    index, _ = build_ivf(rows)
    earlier = {name: array for name, array in index.arrays().items() if name != "format"}
    earlier["basis"] = earlier["basis"][:, :40]
    earlier["centroids"] = earlier["centroids"][:, :40]
    for one, other in zip(ivf.IvfIndex.restore(earlier).search(probes, 8), index.search(probes, 8), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_rows_all_alike_and_probes_of_nought_or_nan_are_answered() -> None:
    alike, _ = build_ivf(np.tile(crowd(1, 40), (700, 1)))
    rows, _ = alike.search(crowd(2, 40), 4)
    assert ((rows >= 0) & (rows < 700)).all()
    index, _ = build_ivf(crowd(MANY, 40))
    odd = np.zeros((3, 40), np.float32)
    odd[1] = np.nan
    odd[2] = np.inf
    with np.errstate(invalid="ignore"):
        rows, _ = index.search(odd, 4)
    assert ((rows >= -1) & (rows < MANY)).all()


def test_an_index_whose_parts_do_not_belong_together_is_refused_by_the_kernel(kernel: Any) -> None:
    index, _ = build_ivf(crowd(300, 16))
    torn = replace(index, basis=index.basis[:, :8])
    with pytest.raises(ValueError, match=r"do not agree|matmul"):
        torn.search(normalise_rows(crowd(2, 16)), 4)
    assert kernel.instructions() in ("plain", "avx2", "vnni")


def test_a_query_close_to_what_it_finds_scans_and_scores_less_and_finds_the_same() -> None:
    rows = crowd(MANY, 200)
    index, order = build_ivf(rows)
    near, far = unit_rows(rows[:80] + 0.01), unit_rows(np.random.default_rng(5).normal(size=(80, 200)))
    counts = []
    for probes in (near, far):
        whole = np.rint(probes * (127 / np.abs(probes).max(axis=1, keepdims=True))).astype(np.float32)
        _, reached, scanned = index.candidates(whole, 8)
        counts.append((scanned.mean(), np.isfinite(reached).sum(axis=1).mean()))
    assert counts[0][0] < 0.7 * counts[1][0]
    assert counts[0][1] < 0.8 * counts[1][1] <= 0.8 * ivf.KEPT
    found, _ = index.search(near, 8)
    wanted, _ = best(near @ rows[order].T, 8)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]) / 8 > 0.93
