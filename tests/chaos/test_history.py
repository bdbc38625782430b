"""The checker of histories: what it must accept, and what it must not overlook."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.history import Op, apply, check_regular, find_violation, stretches


def put(start: float, end: float, token: str, *, sure: bool = True) -> Op:
    return Op(start, end, "put", token, sure)


def read(start: float, end: float, token: str | None) -> Op:
    return Op(start, end, "read", token)


@pytest.mark.parametrize(
    "ops",
    [
        [put(0, 1, "a"), read(2, 3, "a")],
        [put(0, 4, "a"), put(1, 5, "b"), read(6, 7, "a"), read(8, 9, "a")],
        [put(0, 4, "a"), read(1, 2, "a"), read(3, 5, "a")],
        [put(0, 1, "a"), put(2, 3, "b", sure=False), read(4, 5, "a")],
        [put(0, 1, "a"), put(2, 3, "b", sure=False), read(4, 5, "b")],
        [put(0, 1, "a"), Op(2, 3, "gone"), read(4, 5, None), Op(6, 7, "touch", "t"), read(8, 9, None)],
        [put(0, 1, "a"), Op(2, 3, "touch", "t"), read(4, 5, "t")],
        [read(0, 1, None)],
    ],
)
def test_what_can_have_happened_is_accepted(ops: list[Op]) -> None:
    assert find_violation(ops, None) is None
    assert check_regular(ops, None) is None


@pytest.mark.parametrize(
    "ops",
    [
        pytest.param([put(0, 1, "a"), put(2, 3, "b"), read(4, 5, "a")], id="stale"),
        pytest.param([put(0, 1, "a"), read(2, 3, None)], id="lost"),
        pytest.param([put(0, 1, "a"), Op(2, 3, "gone"), read(4, 5, "a")], id="resurrected"),
        pytest.param([read(0, 1, "a"), put(2, 3, "a")], id="from the future"),
        pytest.param([put(0, 1, "a"), read(2, 3, "never written")], id="invented"),
    ],
)
def test_what_cannot_have_happened_is_found(ops: list[Op]) -> None:
    assert find_violation(ops, None) is not None
    assert check_regular(ops, None) is not None


def test_going_back_while_a_write_is_under_way_is_no_order_but_no_loss() -> None:
    ops = [put(0, 1, "a"), put(2, 9, "b"), read(3, 4, "b"), read(5, 6, "a")]
    assert find_violation(ops, None) is not None
    assert check_regular(ops, None) is None


def test_stretches_are_cut_where_nothing_is_under_way() -> None:
    ops = [put(0, 2, "a"), put(1, 3, "b"), read(4, 5, "b")]
    assert [len(one) for one in stretches(ops)] == [2, 1]


@st.composite
def histories(draw: st.DrawFn) -> list[Op]:
    """A history made by running operations one after the other, each inside of an interval of its own."""
    chance = random.Random(draw(st.integers(0, 10**9)))
    state: str | None = None
    ops: list[Op] = []
    for number in range(draw(st.integers(1, 25))):
        kind = chance.choice(["put", "gone", "touch", "read"])
        start, end = number - chance.random() * 2, number + chance.random() * 2
        lost = kind != "read" and chance.random() < 0.2
        op = Op(start, end, kind, state if kind == "read" else f"t{number}", not lost)  # type: ignore[arg-type] # a Kind
        if not (lost and chance.random() < 0.5):
            state = apply(op, state)[1]
        ops.append(op)
    return ops


@given(histories())
def test_every_history_that_has_happened_is_accepted(ops: list[Op]) -> None:
    assert find_violation(ops, None) is None


@given(histories(), st.integers(0, 24))
def test_a_read_of_something_that_was_never_written_is_always_found(ops: list[Op], at: int) -> None:
    moment = ops[at % len(ops)].end
    assert find_violation([*ops, read(moment, moment, "invented")], None) is not None
