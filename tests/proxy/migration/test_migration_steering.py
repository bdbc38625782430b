"""Goals and guardrails, without a database: what follows from the file, and what it waits for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.proxy.config_migrate import Guardrails, Migrate, wanted_percent
from crossfade.proxy.migration.guardrails import LEAST, Seen, find_breach
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.pace import Pace
from crossfade.proxy.migration.record import Checkpoint, Migration, Spec, Verdict, Verification, Wishes
from crossfade.proxy.migration.steering import Step, Wait, next_step, step_below, take_wishes, wishes_of

SPEC = Spec(collection="docs", target="docs--new", from_model="old", to_model="new", dim=8, text="payload.text")
RAMP = [{"percent": 1, "hold": "10m"}, {"percent": 10, "hold": "1h"}]
NOW = 1e9


def migrate(goal: str = "switched", **more: Any) -> Migrate:
    return Migrate.model_validate({"to": "new", "goal": goal, **more})


def record(state: State, percent: float = 0.0, **more: Any) -> Migration:
    whole = Checkpoint(listed=True, points=10)
    return Migration(id="m", spec=SPEC, started=True, state=state, percent=percent, checkpoint=whole, **more)


def step(
    one: Migration | None, asked: Migrate, *, gates: tuple[str, ...] = (), verdict: Verdict = "fresh"
) -> Step | Wait:
    return next_step(one, asked, gates=gates, verdict=verdict, now=NOW)


def test_without_a_goal_nothing_is_done_in_any_state() -> None:
    assert {step(one, migrate("none")) for one in (None, *map(record, State))} == {Wait(None)}


def test_a_goal_plans_starts_verifies_and_switches_step_by_step() -> None:
    asked = migrate("switched", ramp=RAMP)
    assert step(None, asked) == Step("plan")
    assert step(Migration(id="m", spec=SPEC), asked) == Step("start")
    assert step(record(State.BACKFILLING), asked) == Wait("goal switched: not everything is copied yet")
    assert step(record(State.SYNCED), asked, verdict="never") == Step("verify")
    assert step(record(State.SYNCED), asked) == Step("switch", 1)
    assert step(record(State.CANARY, 1, moved_at=NOW - 600), asked) == Step("switch", 10)
    assert step(record(State.CANARY, 10, moved_at=NOW - 3600), asked) == Step("switch", 100)
    assert step(record(State.SWITCHED, 100), asked) == Wait(None)


def test_a_step_is_held_as_long_as_the_ramp_says() -> None:
    held = step(record(State.CANARY, 10, moved_at=NOW - 600), migrate("switched", ramp=RAMP))
    assert held == Wait("goal switched: 10 % holds for another 3000 s")


def test_a_goal_waits_for_gates_and_names_them() -> None:
    waits = step(record(State.SYNCED), migrate("10%"), gates=("5 written points wait",))
    assert waits == Wait("goal 10%: 5 written points wait")


def test_a_verification_under_way_is_not_asked_for_again() -> None:
    verifying = record(State.SYNCED, verification=Verification(asked=True))
    waits = step(verifying, migrate(), gates=("the last verification is never",), verdict="never")
    assert waits == Wait("goal switched: the last verification is never")


def test_a_lower_goal_goes_back_without_gates() -> None:
    gates = ("the last verification is stale",)
    assert step(record(State.SWITCHED, 100), migrate("10%"), gates=gates, verdict="stale") == Step("switch", 10)
    assert step(record(State.CANARY, 10), migrate("copied"), gates=gates, verdict="stale") == Step("reverse")


@pytest.mark.parametrize("state", [State.SYNCED, State.CANARY, State.SWITCHED])
def test_a_verb_said_by_hand_counts_until_the_goal_is_changed(state: State) -> None:
    by_hand = record(state, by_hand=True, wishes=wishes_of(migrate("10%")))
    assert isinstance(step(by_hand, migrate("10%")), Wait)
    changed = take_wishes(by_hand, wishes_of(migrate("20%")))
    assert isinstance(step(changed, migrate("20%")), Step)


def test_a_goal_does_not_climb_again_after_a_guardrail_has_stepped_back() -> None:
    back = record(State.CANARY, 1, stepped_back="p99", moved_at=0.0, wishes=wishes_of(migrate(ramp=RAMP)))
    assert step(back, migrate(ramp=RAMP)) == Wait("goal switched: stepped back (p99); change the goal, or say switch")
    assert step(take_wishes(back, wishes_of(migrate("50%", ramp=RAMP))), migrate("50%", ramp=RAMP)) == Step(
        "switch", 10
    )


def test_a_goal_neither_resumes_nor_completes_nor_begins_anew_after_the_end() -> None:
    assert step(record(State.FAILED, failed_in=State.BACKFILLING), migrate()) == Wait(
        "goal switched: it has failed; say resume"
    )
    for state in (State.COMPLETED, State.CANCELLED):
        assert step(record(state, wishes=wishes_of(migrate())), migrate()) == Wait(None)
    assert step(record(State.CANCELLED, wishes=wishes_of(migrate("none"))), migrate()) == Step("plan")
    assert step(record(State.COMPLETED, wishes=wishes_of(migrate("none"))), migrate()) == Wait(None)


def test_only_what_the_file_says_anew_changes_the_record() -> None:
    by_hand = record(State.SYNCED, strategy="adapt", shadow=5.0, pace=Pace(rate=1), by_hand=True, wishes=Wishes())
    taken = take_wishes(by_hand, wishes_of(migrate("none", shadow=2)))
    assert (taken.strategy, taken.shadow, taken.pace, taken.by_hand) == ("adapt", 2.0, Pace(rate=1), True)
    taken = take_wishes(taken, wishes_of(migrate("none", shadow=2, pace={"rate": 7})))
    assert (taken.strategy, taken.shadow, taken.pace.rate) == ("adapt", 2.0, 7)


@given(st.sampled_from(["copied", "3%", "50%", "switched"]), st.lists(st.floats(0.5, 99), max_size=6, unique=True))
def test_a_goal_is_reached_in_rising_steps_of_the_ramp(goal: str, shares: list[float]) -> None:
    asked = migrate(goal, ramp=[{"percent": share, "hold": "0"} for share in sorted(shares)])
    share, seen = 0.0, []
    while isinstance(found := step(record(State.CANARY if share else State.SYNCED, share, moved_at=0.0), asked), Step):
        seen.append(share := found.percent)
    wanted = wanted_percent(goal) or 0.0
    assert seen == [*sorted(one for one in shares if one < wanted), *([wanted] if wanted else [])]
    assert step_below(asked, share) == max([one for one in shares if one < share], default=0.0)


RAILS = Guardrails.model_validate({"error_rate": 0.01, "p99": "200ms", "overlap": 0.5})


@pytest.mark.parametrize(
    ("seen", "breach"),
    [
        (Seen(requests=1000, failed=10, p99=0.1, shadowed=50, overlap=0.5), None),
        (Seen(requests=1000, failed=11), "error_rate: 11 of 1000 reads failed, 0.011 > 0.01"),
        (Seen(requests=100, p99=0.3), "p99: 300 ms > 200 ms over 100 reads"),
        (Seen(shadowed=50, overlap=0.42), "overlap: 0.42 < 0.5 over 50 shadowed queries"),
        (Seen(requests=LEAST - 1, failed=LEAST - 1, p99=9.0, shadowed=LEAST - 1, overlap=0.0), None),
    ],
)
def test_a_guardrail_that_does_not_hold_is_told_with_both_figures(seen: Seen, breach: str | None) -> None:
    assert find_breach(RAILS, seen) == breach
    assert find_breach(Guardrails(), seen) is None
