"""A residual in bytes is applied by one compiled call, which gives what its steps give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from crossfade.adapters import native, residual
from crossfade.adapters.base import Float32, Map
from crossfade.adapters.linear import fit_linear
from crossfade.adapters.local import LocalMap, fit_local
from crossfade.adapters.lowrank import fit_low_rank
from crossfade.adapters.residual import ResidualMap, fit_residual
from crossfade.adapters.vectors import unit_rows

from .kernels import computed

RNG = np.random.default_rng(0)
MIDDLES = RNG.normal(size=(20, 37))
SOURCE = unit_rows(MIDDLES[RNG.integers(0, 20, 3_600)] + RNG.normal(size=(3_600, 37)))
TARGET = unit_rows(np.tanh(2 * SOURCE @ RNG.normal(size=(37, 53))))
PAIRS, ASKED = 3_500, SOURCE[3_500:]


def fit_experts(base: Map) -> LocalMap:
    return fit_local(base, SOURCE[:PAIRS], TARGET[:PAIRS], clusters=6, prior=20, active=3, normalise=False)


def fit_base() -> Map:
    return fit_linear(SOURCE[:PAIRS], TARGET[:PAIRS])


BASES: dict[str, Callable[[], Map]] = {
    "linear": fit_base,
    "low rank": lambda: fit_low_rank(SOURCE[:PAIRS], TARGET[:PAIRS], rank=20),
    "experts in floats": lambda: fit_experts(fit_base()),
    "experts": lambda: fit_experts(fit_base()).encoded(),
    "experts in more bits": lambda: in_more_bits(fit_experts(fit_base()).encoded()),
    "experts around another centre": lambda: fit_experts(fit_base()).encoded().recentred(fit_base(), SOURCE[7]),
    "experts over a low rank": lambda: fit_experts(fit_low_rank(SOURCE[:PAIRS], TARGET[:PAIRS], rank=20)).encoded(),
}


def in_more_bits(local: LocalMap) -> LocalMap:
    assert local.coded is not None
    return replace(local, coded=replace(local.coded, nibbles=False))


def fitted(base: Map, *, ordered: bool, normalise: bool = True) -> ResidualMap:
    made = fit_residual(base, SOURCE[:PAIRS], TARGET[:PAIRS], neighbours=16, normalise=normalise)
    return (made.ordered(SOURCE[:PAIRS], TARGET[:PAIRS]) if ordered else made).indexed()


def by_steps(map_: ResidualMap, monkeypatch: pytest.MonkeyPatch) -> Float32:
    with monkeypatch.context() as patched:
        patched.setattr(residual, "compiled", None)
        return map_.apply(ASKED)


@pytest.mark.parametrize("way", ["plain", "avx2", "vnni"])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("family", sorted(BASES))
def test_one_call_gives_what_the_steps_give(
    monkeypatch: pytest.MonkeyPatch, way: str, ordered: bool, family: str
) -> None:
    base = BASES[family]()
    with computed(way, residual, monkeypatch):
        for normalise in (True, False):
            map_ = fitted(base, ordered=ordered, normalise=normalise)
            together = map_.apply(ASKED)
            np.testing.assert_allclose(together, by_steps(map_, monkeypatch), atol=1e-5)
            np.testing.assert_allclose(
                np.concatenate([map_.apply(row[None]) for row in ASKED[:20]]), together[:20], atol=1e-5
            )
    assert np.abs(together - base.apply(ASKED)).max() > 0.02  # the pairs do correct


def test_nothing_to_map_gives_nothing() -> None:
    map_ = fitted(fit_linear(SOURCE[:PAIRS], TARGET[:PAIRS]), ordered=True)
    assert map_.apply(ASKED[:0]).shape == (0, 53)


def test_a_map_whose_parts_do_not_belong_together_is_refused_by_the_kernel() -> None:
    if native.compiled is None:
        pytest.skip("nothing was compiled: no C compiler at installation")
    map_ = fitted(fit_linear(SOURCE[:PAIRS], TARGET[:PAIRS]), ordered=True)
    assert map_.coded is not None
    torn = replace(map_, coded=replace(map_.coded, codes=map_.coded.codes[:-1]))
    with pytest.raises(ValueError, match="do not agree"):
        torn.apply(ASKED)
    local = fit_experts(fit_base()).encoded()
    assert local.coded is not None
    for part in (
        replace(local, routes=local.routes[:-1]),
        replace(local, active=0),
        replace(local, coded=replace(local.coded, offsets=local.coded.offsets[:-1])),
    ):
        with pytest.raises(ValueError, match="serve: the sizes of its arrays do not agree"):
            replace(map_, base=part).apply(ASKED)
    with pytest.raises(ValueError, match="do not agree"):
        map_.apply(ASKED[:, :-1])


def test_arrays_that_are_not_there_are_refused_where_they_are_needed() -> None:
    if native.compiled is None:
        pytest.skip("nothing was compiled: no C compiler at installation")
    given = fitted(fit_base(), ordered=True)._given
    assert given is not None
    out = np.empty((1, 53), np.float32)
    for place in (*range(8), 10):  # the index, values and their units, the centre
        torn = (*given[:place], None, *given[place + 1 :])
        with pytest.raises(ValueError, match="do not agree"):
            native.compiled.serve(*torn, 1, ASKED[:1], out)
