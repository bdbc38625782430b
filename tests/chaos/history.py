"""Whether what clients saw of one point can have happened one after the other: a checker of histories. Pure.

Each point is a register of its own (Herlihy and Wing 1990: a history is linearizable if each object's is). Its state is
the token of the last write, or None while the point is absent. An operation takes effect at one moment between `start`
and `end`; one whose outcome the client does not know may have taken effect there, or never. The search is that of Wing
and Gong (1993) with Lowe's memory of what was tried (2017), over one stretch of overlapping operations after another.

After the switch, reads and writes of different clients may go to different indexes, and only this is promised: a read
does not show less than every write acknowledged before it began (`check_regular`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["put", "gone", "touch", "read"]
State = str | None


@dataclass(frozen=True, slots=True)
class Op:
    """One operation on one point. `token`: what a put or touch writes, what a read saw. `sure`: it took effect."""

    start: float
    end: float
    kind: Kind
    token: State = None
    sure: bool = True


def apply(op: Op, state: State) -> tuple[bool, State]:
    """Whether the operation can have happened in a state, and the state after it."""
    match op.kind:
        case "put":
            return True, op.token
        case "gone":
            return True, None
        case "touch":  # of a point that is not there it changes nothing
            return True, op.token if state is not None else None
    return state == op.token, state


def find_violation(ops: Sequence[Op], initial: State) -> Sequence[Op] | None:
    """The first stretch of a point's history that no order explains, or None."""
    states: set[State] = {initial}
    for stretch in stretches(sorted(ops, key=lambda op: op.start)):
        after = {reached for state in states for reached in _outcomes(stretch, state)}
        if not after:
            return stretch
        states = after
    return None


def stretches(ops: Sequence[Op]) -> Iterator[Sequence[Op]]:
    """Operations in the order of their starts, cut where none is under way."""
    current: list[Op] = []
    until = float("-inf")
    for op in ops:
        if current and op.start > until:
            yield current
            current = []
        current.append(op)
        until = max(until, op.end)
    if current:
        yield current


def _outcomes(ops: Sequence[Op], state: State) -> set[State]:
    """The states that some order of these operations ends in; empty: no order explains them."""
    needed = sum(1 << at for at, op in enumerate(ops) if op.sure)
    found: set[State] = set()
    seen: set[tuple[int, State]] = set()
    waiting = [(0, state)]
    while waiting:
        done, now = waiting.pop()
        if (done, now) in seen:
            continue
        seen.add((done, now))
        if done & needed == needed:
            found.add(now)
        # What is left and surely happened has to come after nothing that began when it had ended.
        limit = min((op.end for at, op in enumerate(ops) if op.sure and not done >> at & 1), default=float("inf"))
        for at, op in enumerate(ops):
            if not done >> at & 1 and op.start <= limit:
                possible, reached = apply(op, now)
                if possible:
                    waiting.append((done | 1 << at, reached))
    return found


def check_regular(ops: Sequence[Op], initial: State) -> Op | None:
    """The first read that shows less than what was acknowledged before it began, or None.

    A read may show any write that began before it ended, unless another one that surely happened began after that
    write's end and ended before the read began.
    """
    writes = [Op(float("-inf"), float("-inf"), "put", initial), *(op for op in ops if op.kind != "read")]
    for read in ops:
        if read.kind == "read" and not any(_explains(write, read, writes) for write in writes):
            return read
    return None


def _explains(write: Op, read: Op, writes: Sequence[Op]) -> bool:
    shown = None if write.kind == "gone" else write.token
    if write.start > read.end or (shown != read.token and not (write.kind == "touch" and read.token is None)):
        return False
    return not any(
        other.sure and other.start > write.end and other.end < read.start and other.kind != "touch" for other in writes
    )
