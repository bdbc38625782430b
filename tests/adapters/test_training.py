import sys
from dataclasses import replace

import numpy as np
import pytest

from crossfade.adapters.base import Float32, Map
from crossfade.adapters.linear import LinearMap
from crossfade.adapters.training import TrainingError, best_of, load_torch, neighbour_overlap


def shifted(amount: float) -> LinearMap:
    return LinearMap(np.eye(2, dtype=np.float32), np.full(2, amount, np.float32))


def shift_of(fitted: Map) -> float:
    assert isinstance(fitted, LinearMap)
    return float(fitted.bias[0])


def test_the_best_round_is_kept_not_the_last() -> None:
    kept = best_of(shifted(1), map(shifted, [2, 5, 3, 4]), shift_of, patience=10)
    assert shift_of(kept) == 5


def test_a_start_that_no_round_betters_is_kept() -> None:
    start = shifted(7)
    assert best_of(start, map(shifted, [7, 6, 1]), shift_of, patience=10) is start


def test_rounds_stop_after_patience_without_a_better_one() -> None:
    asked = []

    def score(fitted: Map) -> float:
        asked.append(shift_of(fitted))
        return asked[-1]

    best_of(shifted(1), map(shifted, [2, 0, 0, 9]), score, patience=2)
    assert asked == [1, 2, 0, 0]


def test_overlap_is_one_for_a_map_that_keeps_every_neighbour_and_falls_for_a_wrong_one() -> None:
    rng = np.random.default_rng(0)
    docs: Float32 = rng.normal(size=(300, 8)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
    score = neighbour_overlap(rng.normal(size=(20, 8)).astype(np.float32), docs, docs @ turn)
    right = LinearMap(turn, np.zeros(8, np.float32))
    assert score(right) == 1.0
    assert score(replace(right, weight=np.eye(8, dtype=np.float32))) < 0.5


def test_missing_torch_is_said_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(TrainingError, match=r"pip install 'crossfade\[train\]'"):
        load_torch()
