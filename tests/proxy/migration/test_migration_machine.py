"""The table of states, and the limits of the pace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.proxy.migration.errors import IllegalMove
from crossfade.proxy.migration.machine import MOVES, OVER, VERBS, State, follow, moves_from, verbs_of
from crossfade.proxy.migration.pace import (
    LARGEST,
    SMALLEST,
    Allowance,
    Pace,
    Situation,
    find_throttle,
    first_batch,
    next_batch,
    spend,
    within_hours,
)
from crossfade.proxy.migration.record import Migration, Spec

SPEC = Spec(collection="docs", target="docs--new", from_model="old", to_model="new", dim=8, text="payload.text")
STRAIGHT = ["prepare", "capture", "backfill", "sync", "canary", "switch", "complete"]


def test_the_straight_way_leads_from_planned_to_completed() -> None:
    state = State.PLANNED
    for step in STRAIGHT:
        state = follow("docs", state, step)
    assert state is State.COMPLETED


def test_every_state_is_reached_and_only_the_ends_have_no_way_on() -> None:
    reached, waiting = {State.PLANNED}, [State.PLANNED]
    while waiting:
        for move in moves_from(waiting.pop()):
            if move.target is not None and move.target not in reached:
                reached.add(move.target)
                waiting.append(move.target)
    assert reached == set(State)
    assert {state for state in State if not moves_from(state)} == set(OVER)
    assert {state for state in State if not verbs_of(state)} == {State.CANCELLED}
    assert verbs_of(State.COMPLETED) == ("drop-old",)


def test_only_complete_and_cancel_end_a_migration() -> None:
    assert {move.name for move in MOVES if move.target in OVER} == {"complete", "cancel"}


def test_a_switched_migration_is_not_cancelled_also_after_it_failed() -> None:
    with pytest.raises(
        IllegalMove, match="'cancel' is not possible while the migration is SWITCHED; possible now: can"
    ):
        follow("docs", State.SWITCHED, "cancel")
    with pytest.raises(IllegalMove):
        follow("docs", State.FAILED, "cancel", failed_in=State.SWITCHED)
    assert follow("docs", State.FAILED, "cancel", failed_in=State.BACKFILLING) is State.CANCELLED


def test_verbs_that_move_are_allowed_where_their_moves_are() -> None:
    moves = {"switch": ("canary", "switch"), "reverse": ("reverse",), "complete": ("complete",)}
    for verb, names in moves.items():
        assert VERBS[verb] == {state for state in State if any(move.name in names for move in moves_from(state))}


@given(st.lists(st.sampled_from([move.name for move in MOVES]), max_size=30))
def test_a_failure_keeps_capturing_and_resume_leads_back(steps: list[str]) -> None:
    record = Migration(id="m", spec=SPEC)
    for step in steps:
        before = record
        try:
            record = record.failed("it broke", retryable=True) if step == "fail" else record.moved(step)
        except IllegalMove:
            continue
        if record.state is State.FAILED:
            assert record.captures == before.captures
            assert record.moved("resume").state is before.state
            assert record.view.percent == before.view.percent


@given(st.integers(0, 1439))
def test_hours_over_midnight_are_the_rest_of_the_day(minute: int) -> None:
    assert within_hours("22:00-06:00", minute) != within_hours("06:00-22:00", minute)


@pytest.mark.parametrize("text", ["22-06", "25:00-06:00", "22:00", "06:00-06:00", "a:b-c:d"])
def test_unreadable_hours_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"hours|begins where it ends"):
        Pace(hours=text)


def test_a_throttle_names_metric_and_threshold() -> None:
    calm = Situation(minute=600, flagged=False, latency_ms=5.0, tokens=10)
    assert find_throttle(Pace(hours="09:00-11:00", latency_ms=20, max_tokens=11), calm) is None
    assert find_throttle(Pace(latency_ms=4), calm) == "latency: p99 5.0 ms is above latency_ms 4"
    assert find_throttle(Pace(hours="11:00-12:00"), calm) == "hours: it is 10:00 UTC, outside of 11:00-12:00"
    assert (find_throttle(Pace(max_tokens=10), calm) or "").startswith("spend: 10 tokens of max_tokens 10")


@given(st.integers(SMALLEST, LARGEST), st.floats(0, 100), st.floats(0.01, 10))
def test_batches_stay_within_bounds_and_follow_the_time_they_take(size: int, seconds: float, wanted: float) -> None:
    following = next_batch(size, seconds, wanted)
    assert SMALLEST <= following <= LARGEST
    if seconds > 2 * wanted:
        assert following <= size
    if seconds < wanted / 2:
        assert following >= size


@given(st.integers(1, 600), st.lists(st.sampled_from([0.1, 1.0, 5.0]), max_size=12))
def test_batches_are_whole_calls_of_the_encoder_where_they_are_larger_than_one(call: int, took: list[float]) -> None:
    size, call_size = first_batch(call), min(call, LARGEST)
    for seconds in took:
        assert SMALLEST <= size <= LARGEST
        assert size < call_size or size % call_size == 0
        size = next_batch(size, seconds, 1.0, call)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=50), st.floats(1, 1000))
def test_a_rate_is_kept_over_any_batches(batches: list[int], rate: float) -> None:
    allowance, now = Allowance(0.0, 0.0), 0.0
    for points in batches:
        allowance, wait = spend(allowance, rate, points, now)
        now += wait
    assert sum(batches) <= rate * now + 1e-6 * sum(batches)


def test_reads_are_led_over_only_once_the_target_has_settled() -> None:
    spec = Spec(collection="a", target="b", from_model="old", to_model="new", dim=2, text="payload.text")
    synced = Migration(id="m", spec=spec, state=State.SYNCED)
    canary = synced.moved("canary").model_copy(update={"percent": 10.0})
    assert (canary.settling, canary.share, canary.view.percent) == (True, 10.0, 0.0)
    settled = canary.model_copy(update={"settling": False})
    assert settled.view.percent == 10.0
    assert not settled.moved("switch").settling  # it serves already: writes have been waiting for it
    assert not canary.moved("reverse").settling
