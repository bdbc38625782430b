"""What the configuration's goal asks for next: one step at a time, and what it waits for. Pure.

The goal waits for every gate and never skips one; it never completes, resumes or cancels. A verb that a person has said
counts until the goal is changed; so does a step back that a guardrail has made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..config_migrate import Migrate, wanted_percent
from .machine import OVER, State
from .record import Migration, Verdict, Wishes

Verb = Literal["plan", "start", "verify", "switch", "reverse"]
COPIED = frozenset({State.SYNCED, State.CANARY, State.SWITCHED})


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next; `percent` is for switch alone."""

    verb: Verb
    percent: float = 0.0


@dataclass(frozen=True, slots=True)
class Wait:
    """Why nothing is done at the moment, in words for the status; None when nothing is wanted."""

    reason: str | None


def wishes_of(migrate: Migrate) -> Wishes:
    """What the file says that may change while a migration is under way."""
    return Wishes(goal=migrate.goal, strategy=migrate.strategy, shadow=migrate.shadow, pace=migrate.pace)


def take_wishes(record: Migration, wishes: Wishes) -> Migration:
    """The record after the file has changed: what it says anew counts, what it says as before leaves verbs alone."""
    before = record.wishes or Wishes()
    update: dict[str, object] = {"wishes": wishes}
    if wishes.goal != before.goal:
        update |= {"by_hand": False, "stepped_back": None}
    if wishes.strategy != before.strategy:
        update["strategy"] = wishes.strategy
    if wishes.shadow != before.shadow:
        update["shadow"] = wishes.shadow
    if wishes.pace != before.pace:
        update["pace"] = wishes.pace
    return record.model_copy(update=update)


def next_step(
    record: Migration | None, migrate: Migrate, *, gates: Sequence[str], verdict: Verdict, now: float
) -> Step | Wait:
    """What brings a collection's newest migration nearer to its goal; `gates` are those that are closed."""
    wanted = wanted_percent(migrate.goal)
    if wanted is None:
        return Wait(None)
    if record is None or (record.state in OVER and _differs(record, migrate)):
        return Step("plan")
    if record.state in OVER:
        return Wait(None)
    if record.by_hand:
        return Wait(f"goal {migrate.goal}: a verb said by hand counts until the goal is changed")
    if record.state is State.PLANNED and not record.started:
        return Step("start")
    if record.state is State.FAILED:
        return Wait(f"goal {migrate.goal}: it has failed; say resume")
    if record.state not in COPIED:
        return Wait(f"goal {migrate.goal}: not everything is copied yet")
    return _move(record, migrate, wanted, gates=gates, verdict=verdict, now=now)


def _differs(record: Migration, migrate: Migrate) -> bool:
    """Whether the file asks for more than the migration that is over was."""
    before = record.wishes
    return before is not None and before.goal != migrate.goal and record.state is State.CANCELLED


def _move(
    record: Migration, migrate: Migrate, wanted: float, *, gates: Sequence[str], verdict: Verdict, now: float
) -> Step | Wait:
    share = record.share
    if share == wanted:
        return Wait(None)
    if share > wanted:
        return Step("switch", wanted) if wanted else Step("reverse")
    if record.stepped_back is not None:
        return Wait(f"goal {migrate.goal}: stepped back ({record.stepped_back}); change the goal, or say switch")
    if verdict != "fresh" and not record.verification.asked:
        return Step("verify")
    held = 0.0 if record.moved_at is None else now - record.moved_at
    if share and (left := hold_of(migrate, share) - held) > 0:
        return Wait(f"goal {migrate.goal}: {share:g} % holds for another {left:.0f} s")
    if gates:
        return Wait(f"goal {migrate.goal}: {'; '.join(gates)}")
    return Step("switch", min([step.percent for step in migrate.ramp if share < step.percent < wanted] + [wanted]))


def hold_of(migrate: Migrate, share: float) -> float:
    """How many seconds a share of reads is held before the next step."""
    held = [step.hold for step in migrate.ramp if step.percent <= share]
    return held[-1] if held else 0.0


def step_below(migrate: Migrate, share: float) -> float:
    """The share that a guardrail goes back to: the next smaller step, or 0."""
    return max([step.percent for step in migrate.ramp if step.percent < share], default=0.0)
