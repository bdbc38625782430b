"""Experts in a byte a number: close to what they were made from, alike by every set of instructions and by numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crossfade.adapters import experts, native
from crossfade.adapters.base import Float32
from crossfade.adapters.linear import fit_linear
from crossfade.adapters.local import LocalMap, fit_local
from crossfade.adapters.vectors import unit_rows


def fitted(source_dim: int = 37, target_dim: int = 53, active: int = 3) -> tuple[LocalMap, Float32]:
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(6, source_dim))
    source = unit_rows(middles[rng.integers(0, 6, 900)] + rng.normal(size=(900, source_dim)))
    target = unit_rows(np.tanh(2 * source @ rng.normal(size=(source_dim, target_dim))))
    base = fit_linear(source[:800], target[:800])
    return fit_local(base, source[:800], target[:800], clusters=6, prior=20, active=active), source[800:]


@pytest.mark.parametrize("active", [1, 3, 9])
def test_coded_experts_map_as_those_they_were_made_from_and_are_a_quarter_as_large(active: int) -> None:
    plain, held = fitted(active=active)
    coded = plain.encoded()
    cosines = np.einsum("nd,nd->n", coded.apply(held), plain.apply(held))
    assert cosines.min() > 0.999
    assert np.abs(plain.apply(held) - unit_rows(plain.base.apply(held))).max() > 0.01  # and they do something
    assert coded.coded is not None
    assert coded.coded.codes.nbytes * 4 == plain.deltas.nbytes
    assert len(coded.deltas) == len(coded.offsets) == 0
    assert coded.encoded() is coded


@pytest.mark.parametrize("instructions", ["plain", "avx2", "vnni"])
@pytest.mark.parametrize("dims", [(37, 53), (64, 16), (5, 3)])
def test_every_set_of_instructions_maps_as_numpy_does(
    monkeypatch: pytest.MonkeyPatch, instructions: str, dims: tuple[int, int]
) -> None:
    if native.compiled is None:
        pytest.skip("nothing was compiled: no C compiler at installation")
    before = native.compiled.instructions()
    try:
        native.compiled.instructions(instructions)
    except ValueError as error:
        pytest.skip(str(error))
    plain, held = fitted(*dims)
    coded = plain.encoded()
    try:
        together = coded.apply(held)
        alone = np.concatenate([coded.apply(row[None]) for row in held])
    finally:
        native.compiled.instructions(before)
    monkeypatch.setattr(experts, "compiled", None)
    np.testing.assert_allclose(together, coded.apply(held), atol=1e-5)
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_coded_experts_come_back_from_their_arrays() -> None:
    plain, held = fitted()
    coded = plain.encoded()
    restored = LocalMap.restore(coded.arrays(), coded.settings())
    np.testing.assert_array_equal(restored.apply(held), coded.apply(held))
    assert set(coded.arrays()) >= {"coded.codes", "coded.scales", "coded.offsets"}


def test_a_vector_at_the_centre_is_only_offset_and_nan_stays_in_its_row() -> None:
    plain, held = fitted()
    coded = replace(plain.encoded(), normalise=False)
    given = np.stack([plain.centre, held[0], held[1]])
    given[1] = np.nan
    with np.errstate(invalid="ignore"):
        mapped = coded.apply(given)
    assert np.isfinite(mapped[[0, 2]]).all()
    np.testing.assert_allclose(mapped[2], coded.apply(held[1:2])[0], atol=1e-6)


def test_experts_whose_parts_do_not_belong_together_are_refused_by_the_kernel() -> None:
    if native.compiled is None:
        pytest.skip("nothing was compiled: no C compiler at installation")
    plain, held = fitted()
    coded = plain.encoded().coded
    assert coded is not None
    torn = replace(coded, offsets=coded.offsets[:-1])
    with pytest.raises(ValueError, match="the sizes of its arrays do not agree"):
        torn.add(held, held @ plain.routes.T, 2, 0.1, np.zeros((len(held), plain.target_dim), np.float32))
