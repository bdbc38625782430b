"""The states of a migration, the legal moves between them, and which verbs each state takes: one table.

PLANNED -> PREPARED -> CAPTURING -> BACKFILLING -> SYNCED -> CANARY(p%) -> SWITCHED -> COMPLETED
less: SWITCHED -> CANARY(p%)    reverse: CANARY|SWITCHED -> SYNCED    cancel: before SWITCHED -> CANCELLED
fail: any that is not over -> FAILED -> resume -> where it failed

Overlays lie over a state and do not change it: paused, throttled(reason), verified(never, fresh, stale), shadow(p%).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from .errors import IllegalMove


class State(StrEnum):
    """Where a migration stands."""

    PLANNED = "PLANNED"  # described; nothing has been touched
    PREPARED = "PREPARED"  # the target collection is there
    CAPTURING = "CAPTURING"  # writes are being journalled; waiting until every worker does
    BACKFILLING = "BACKFILLING"  # every point is being brought over
    SYNCED = "SYNCED"  # the target holds everything and follows the writes
    CANARY = "CANARY"  # a share of reads goes to the target
    SWITCHED = "SWITCHED"  # all reads go to the target
    COMPLETED = "COMPLETED"  # the old index is left behind
    CANCELLED = "CANCELLED"  # the target is given up
    FAILED = "FAILED"  # a step failed in a way that does not pass by itself


Actor = Literal["operator", "controller"]


@dataclass(frozen=True, slots=True)
class Move:
    """One legal step; `target` None leads back to the state in which the migration failed."""

    name: str
    sources: frozenset[State]
    target: State | None
    by: Actor


_S = State
OVER: Final = frozenset({_S.COMPLETED, _S.CANCELLED})
ACTIVE: Final = frozenset(State) - OVER
CAPTURING: Final = frozenset({_S.CAPTURING, _S.BACKFILLING, _S.SYNCED, _S.CANARY, _S.SWITCHED})
SERVING: Final = frozenset({_S.CANARY, _S.SWITCHED})

_COPIED = frozenset({_S.SYNCED, _S.CANARY, _S.SWITCHED})
MOVES: Final = (
    Move("prepare", frozenset({_S.PLANNED}), _S.PREPARED, "controller"),
    Move("capture", frozenset({_S.PREPARED}), _S.CAPTURING, "controller"),
    Move("backfill", frozenset({_S.CAPTURING}), _S.BACKFILLING, "controller"),
    Move("sync", frozenset({_S.BACKFILLING}), _S.SYNCED, "controller"),
    Move("canary", _COPIED, _S.CANARY, "operator"),
    Move("switch", frozenset({_S.SYNCED, _S.CANARY}), _S.SWITCHED, "operator"),
    Move("reverse", SERVING, _S.SYNCED, "operator"),
    Move("complete", frozenset({_S.SWITCHED}), _S.COMPLETED, "controller"),
    Move("cancel", ACTIVE - {_S.SWITCHED}, _S.CANCELLED, "operator"),
    Move("fail", ACTIVE - {_S.FAILED}, _S.FAILED, "controller"),
    Move("resume", frozenset({_S.FAILED}), None, "operator"),
)

VERBS: Final[Mapping[str, frozenset[State]]] = {
    "start": frozenset({_S.PLANNED}),
    "pause": ACTIVE,
    "resume": ACTIVE,
    "set": ACTIVE,
    "shadow": _COPIED,
    "verify": _COPIED,
    "repair": _COPIED,
    "switch": _COPIED,
    "reverse": SERVING,
    "complete": frozenset({_S.SWITCHED}),
    "drop-old": frozenset({_S.COMPLETED}),
    "cancel": ACTIVE - {_S.SWITCHED},
}


def moves_from(state: State) -> tuple[Move, ...]:
    """The moves that a state allows."""
    return tuple(move for move in MOVES if state in move.sources)


def verbs_of(state: State) -> tuple[str, ...]:
    """The verbs that an operator may say in a state; plan and status always may be said."""
    return tuple(verb for verb, states in VERBS.items() if state in states)


def follow(collection: str, state: State, name: str, failed_in: State | None = None) -> State:
    """The state a move leads to. Raises IllegalMove naming the moves that are possible.

    `failed_in`: where a FAILED migration had stood; what was not allowed there is not allowed after the failure.
    """
    allowed = moves_from(state)
    if state is State.FAILED and failed_in is not None:
        allowed = tuple(move for move in allowed if move.name == "resume" or failed_in in move.sources)
    for move in allowed:
        if move.name == name:
            reached = failed_in if move.target is None else move.target
            assert reached is not None  # a FAILED migration knows where it failed
            return reached
    raise IllegalMove(collection=collection, step=name, state=state, allowed=[move.name for move in allowed])
