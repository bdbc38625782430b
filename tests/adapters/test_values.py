"""Values of the rows found are added by their gates, from floats and from bytes, compiled or not."""

import numpy as np
import pytest

from crossfade.adapters import native, values
from crossfade.adapters.values import CodedValues, add_values, encode_values

from .kernels import WAYS, computed

VALUES = np.random.default_rng(0).normal(size=(5, 37)).astype(np.float32)
ROWS, SCORES = np.array([[3, 0], [2, -1]], np.int32), np.array([[0.9, 0.8], [0.5, 0.0]], np.float32)


@pytest.mark.parametrize("instructions", WAYS)
def test_the_values_of_the_rows_found_are_added_by_their_gates(
    monkeypatch: pytest.MonkeyPatch, instructions: str
) -> None:
    given = VALUES if instructions == "floats" else encode_values(VALUES)
    out = np.ones((2, 37), np.float32)
    with computed(instructions, values, monkeypatch):
        add_values(given, ROWS, SCORES, out, temperature=0.1, weight=0.5)
    gate = 1 / (1 + np.exp(-1.0))
    atol = 1e-6 if instructions == "floats" else 0.5 * np.abs(VALUES).max() / 127  # half a code, at weight .5 and more
    np.testing.assert_allclose(out[0], 1 + 0.5 * (gate * VALUES[3] + (1 - gate) * VALUES[0]), atol=atol)
    np.testing.assert_allclose(out[1], 1 + 0.5 * VALUES[2], atol=atol)


def test_coded_values_are_a_quarter_as_large_grow_and_are_read_back() -> None:
    coded = encode_values(VALUES[:3]).joined(VALUES[3:])
    assert len(coded) == 5
    assert coded.codes.nbytes * 4 == VALUES.nbytes
    np.testing.assert_allclose(coded.take(np.array([[4, 0]]))[0], VALUES[[4, 0]], atol=np.abs(VALUES).max() / 127)


def test_values_that_do_not_fit_are_refused_by_the_kernel() -> None:
    if native.compiled is None:
        pytest.skip("nothing was compiled: no C compiler at installation")
    with pytest.raises(ValueError, match="add: the sizes of its arrays do not agree"):
        add_values(encode_values(VALUES), ROWS, SCORES, np.ones((2, 36), np.float32), temperature=0.1, weight=0.5)


def test_rows_in_bytes_begin_where_a_line_of_the_cache_begins() -> None:
    made = encode_values(np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32))
    unlucky = np.empty(50 * 64 + 65, np.int8)
    start = 1 - unlucky.ctypes.data % 64 + 64
    moved = unlucky[start : start + 50 * 64].reshape(50, 64)
    moved[...] = made.codes
    back = CodedValues.restore({"codes": moved, "units": made.units})
    np.testing.assert_array_equal(back.codes, made.codes)
    assert all(one.codes.ctypes.data % 64 == 0 for one in (made, back, made.joined(made.take(np.arange(3)))))
