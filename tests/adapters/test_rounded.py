"""A linear map in bytes: close to the floats, the same alone and together, and only where something corrects it."""

from __future__ import annotations

import numpy as np
import pytest

from crossfade.adapters import experts
from crossfade.adapters.linear import fit_linear
from crossfade.adapters.lowrank import fit_low_rank
from crossfade.adapters.rounded import rounded
from crossfade.adapters.vectors import unit_rows, unnormalised

RNG = np.random.default_rng(0)
SOURCE = unit_rows(3 * RNG.normal(size=37) + RNG.normal(size=(400, 37)))
TARGET = unit_rows(SOURCE @ RNG.normal(size=(37, 50)))
MEAN = SOURCE.mean(axis=0)
LINEAR = fit_linear(SOURCE, TARGET, normalise=False)


def test_a_map_in_bytes_maps_as_the_floats_do_with_a_compiler_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    made = rounded(LINEAR, MEAN)
    assert made is not None
    exact, found = LINEAR.apply(SOURCE), made.apply(SOURCE - MEAN)
    apart = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0 < apart.max() < 0.03
    alone = np.concatenate([made.apply(row[None] - MEAN) for row in SOURCE])
    np.testing.assert_allclose(alone, found, atol=1e-6)
    monkeypatch.setattr(experts, "compiled", None)
    np.testing.assert_allclose(made.apply(SOURCE - MEAN), found, atol=1e-5)


def test_other_maps_are_left_as_they_are() -> None:
    assert rounded(fit_linear(SOURCE, TARGET), MEAN) is None
    assert rounded(unnormalised(fit_low_rank(SOURCE, TARGET, rank=4)), MEAN) is None
