"""What an operator can say to a migration: each verb a function over the store, told in its history.

A verb only changes the record; the controller does what follows from it. `dry_run` decides everything and changes
nothing. Every verb raises IllegalMove when the state does not allow it, GateClosed when a condition does not hold yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from .errors import GateClosed, IllegalMove
from .journal import Backlog, Journal
from .ledger import Ledger
from .machine import OVER, VERBS, State, verbs_of
from .pace import Pace
from .record import Migration, Retrieval, Spec, Strategy, Tally, Verdict
from .retrieval import find_problems
from .store import Change, Event, Store, check_free
from .verifying import ask_again

FRESH_SECONDS: Final = 24 * 3600.0
BY_FILE: Final = "configuration"  # the actor of what follows from the file
BY_GUARDRAIL: Final = "guardrail"
FILE_ACTORS: Final = frozenset({BY_FILE, BY_GUARDRAIL})
_BACKLOG_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Say:
    """Who says a verb, to which collection's migration, and why."""

    collection: str
    actor: str
    reason: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Serving:
    """Reads of the last `seconds` by strategy, how many of them the new index could not answer, and how well shadow
    queries agreed with what was answered (mean overlap@10)."""

    seconds: float = 0.0
    reads: Mapping[str, int] = field(default_factory=dict)
    fallbacks: int = 0
    shadowed: int = 0
    overlap: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Everything an operator wants to know."""

    id: str
    collection: str
    state: State
    verbs: tuple[str, ...]
    paused: bool
    throttled: str | None
    error: str | None
    copied: int
    total: int
    rate: float | None  # points a second since the copying began
    eta: float | None  # seconds
    backlog: Backlog
    dead_letters: int
    tally: Tally
    percent: float
    strategy: Strategy
    shadow: float
    verified: Verdict
    verified_at: float | None
    findings: Mapping[str, int]
    retrieval: Retrieval | None
    gates: tuple[str, ...]  # what a switch waits for
    spec: Spec
    pace: Pace
    goal: str  # what the configuration wants
    by_hand: bool  # a verb has moved it since: the goal waits until it is changed
    stepped_back: str | None
    moved_at: float | None
    refitted: int
    completing: bool
    settling: bool
    verifying: bool
    migrated: float
    started: bool
    drop_old: bool
    cleaned: bool
    compared: int  # points that the verification has compared
    waits: str | None  # what the configuration's goal waits for
    serving: Serving  # how it was read in the last minutes


@dataclass(frozen=True, slots=True)
class Verbs:
    """The verbs, over one store."""

    store: Store
    journal: Journal
    waiting: Callable[[Migration, Sequence[str]], str | None] = lambda record, gates: None
    """What the configuration's goal waits for, told its closed gates."""
    serving: Callable[[str], Serving] = lambda collection: Serving()
    """How a collection was read in the last minutes."""
    old_clients: Callable[[Migration], str | None] = lambda _: None
    """What old-model clients have lately asked, where that is counted; they stand against completing."""

    async def status(self, collection: str) -> Status:
        """How the migration stands. Raises UnknownMigration."""
        return await self.status_of(await self.store.find(collection))

    async def status_of(self, record: Migration) -> Status:
        """How a migration stands."""
        backlog = await self.journal.backlog(record.id)
        gates = tuple(await self.closed_gates(record, backlog)) if record.state not in OVER else ()
        rate = self._rate(record, await self.store.events(record.id))
        left = max(0, record.total - record.checkpoint.points)
        return Status(
            id=record.id,
            collection=record.spec.collection,
            state=record.state,
            verbs=verbs_of(record.state),
            paused=record.paused,
            throttled=record.throttled,
            error=record.error,
            copied=record.checkpoint.points,
            total=record.total,
            rate=rate,
            eta=left / rate if rate and not record.checkpoint.done else None,
            backlog=backlog,
            dead_letters=(await Ledger(self.store).dead(record.id, 0))[0],
            tally=record.tally,
            percent=record.share,
            strategy=record.strategy,
            shadow=record.shadow,
            verified=self.verdict(record),
            verified_at=record.verification.finished_at,
            findings=record.verification.found,
            retrieval=record.verification.retrieval,
            gates=gates,
            spec=record.spec,
            pace=record.pace,
            goal=record.wishes.goal if record.wishes is not None else "none",
            by_hand=record.by_hand,
            stepped_back=record.stepped_back,
            moved_at=record.moved_at,
            refitted=record.refitted,
            completing=record.completing,
            settling=record.settling,
            verifying=record.verification.asked,
            migrated=record.migrated,
            started=record.started,
            drop_old=record.drop_old,
            cleaned=record.cleaned,
            compared=record.verification.compared,
            waits=self.waiting(record, gates),
            serving=self.serving(record.spec.collection),
        )

    async def begin(self, say: Say, spec: Spec, update: Mapping[str, Any]) -> Migration:
        """Plan a migration unless one is planned already, and start it. Raises BadPlan."""
        if await self.check_free(say.collection):
            return await self.start(say)
        if say.dry_run:
            return Migration(id="dry run", spec=spec, started=True, **update)
        await self.store.plan(spec, say.actor, say.reason, **update)
        return await self.start(say)

    async def check_free(self, collection: str) -> bool:
        """Whether a migration of the collection is planned and only has to be started. Raises BadPlan when it has one
        that stands against another."""
        planned = [one for one in await self.store.read_all() if one.spec.collection == collection]
        if planned and planned[-1].state is State.PLANNED and not planned[-1].started:
            return True
        check_free(planned)
        return False

    async def start(self, say: Say) -> Migration:
        """Let the controller prepare, capture and copy."""
        return await self._apply(say, "start", lambda one: one.model_copy(update={"started": True}))

    async def pause(self, say: Say) -> Migration:
        """Stop the copying; writes go on being captured and brought over."""
        return await self._apply(say, "pause", lambda one: one.model_copy(update={"paused": True}))

    async def resume(self, say: Say) -> Migration:
        """Go on after a pause, or where a failure has stopped it."""

        def go_on(one: Migration) -> Migration:
            back = one.moved("resume") if one.state is State.FAILED else one
            return back.model_copy(update={"paused": False})

        return await self._apply(say, "resume", go_on)

    async def set(
        self, say: Say, *, pace: Mapping[str, Any] | None = None, strategy: Strategy | None = None
    ) -> Migration:
        """Change limits or the strategy of reads. Raises pydantic's ValidationError for limits that make no sense."""

        def adjust(one: Migration) -> Migration:
            limits = Pace.model_validate({**one.pace.model_dump(), **(pace or {})})
            return one.model_copy(update={"pace": limits, "strategy": strategy or one.strategy})

        return await self._apply(say, "set", adjust)

    async def shadow(self, say: Say, percent: float) -> Migration:
        """Send a share of queries to the target as well, off the client's path."""
        _check_percent(percent)
        return await self._apply(say, "shadow", lambda one: one.model_copy(update={"shadow": percent}))

    async def verify(self, say: Say) -> Migration:
        """Have everything compared from the beginning."""
        return await self._apply(say, "verify", ask_again)

    async def repair(self, say: Say) -> int:
        """Bring over again what the last verification found; how many points that are."""
        record = await self.store.find(say.collection)
        _allow(record, "repair")
        found = await Ledger(self.store).found(record.id, None)
        if found and not say.dry_run:
            mark = await self.journal.mark(record.id, list(found), f"repair by {say.actor}")
            await self.journal.close(mark)
        await self._apply(say, "repair", lambda one: one)
        return len(found)

    async def switch(self, say: Say, percent: float, *, force: bool = False) -> Migration:
        """Have a share of reads answered by the target; 100 is all, 0 is `reverse`.

        `force` passes closed gates, and is told; to a smaller share there is none.
        """
        _check_percent(percent)
        if percent == 0:
            return await self.reverse(say)
        record = await self.store.find(say.collection)
        _allow(record, "switch")
        rises = percent > record.share
        closed = await self.closed_gates(record, await self.journal.backlog(record.id)) if rises else ()
        if closed and not force:
            raise GateClosed(collection=say.collection, step="switch", reasons=closed)
        step = "switch" if percent == 100 else "canary"

        def move(one: Migration) -> Migration:
            return one.moved(step).model_copy(update={"percent": percent, **self._moved(say)})

        forced = f" (forced past: {'; '.join(closed)})" if closed else ""
        return await self._apply(say, f"switch to {percent:g} %{forced}", move, verb="switch")

    async def reverse(self, say: Say) -> Migration:
        """Have all reads answered by the old index again."""
        back = {"percent": 0.0, "completing": False, **self._moved(say)}
        return await self._apply(say, "reverse", lambda one: one.moved("reverse").model_copy(update=back))

    async def complete(self, say: Say, *, drop_old: bool = False, force: bool = False) -> Migration:
        """Leave the old index behind, as soon as no write waits any more.

        `drop_old` destroys it then, and puts an alias under its name. `force` passes clients of the old model, who are
        answered less well from then on.
        """
        record = await self.store.find(say.collection)
        _allow(record, "complete")
        if (asking := self.old_clients(record)) is not None and not force:
            raise GateClosed(collection=say.collection, step="complete", reasons=[asking])
        update = {"completing": True, "drop_old": drop_old, "by_hand": True}
        return await self._apply(say, "complete", lambda one: one.model_copy(update=update))

    async def drop_old(self, say: Say) -> Migration:
        """Destroy the collection that a completed migration has left, and make its name an alias of the new one."""
        update = {"drop_old": True, "cleaned": False}
        return await self._apply(say, "drop-old", lambda one: one.model_copy(update=update))

    async def cancel(self, say: Say) -> Migration:
        """Give up: the controller destroys the target that it has made."""
        update = {"percent": 0.0, "by_hand": True}
        return await self._apply(say, "cancel", lambda one: one.moved("cancel").model_copy(update=update))

    def _moved(self, say: Say) -> dict[str, Any]:
        """What a change of the share leaves behind: a person's word counts until the goal is changed."""
        by_hand = {} if say.actor in FILE_ACTORS else {"by_hand": True, "stepped_back": None}
        return {"moved_at": self.store.clock(), **by_hand}

    async def _apply(self, say: Say, step: str, change: Change, verb: str | None = None) -> Migration:
        record = await self.store.find(say.collection)
        checked = partial(_checked, verb or step, change)
        if say.dry_run:
            return checked(record)
        return await self.store.change(record.id, checked, actor=say.actor, step=step, reason=say.reason)

    async def closed_gates(self, record: Migration, backlog: Backlog) -> list[str]:
        """What stands against sending reads to the target."""
        reasons = []
        if not record.checkpoint.done:
            reasons.append(f"{record.checkpoint.points:,} of {record.total:,} points are copied")
        if backlog.age > _BACKLOG_SECONDS:
            reasons.append(f"{backlog.count:,} written points wait, the oldest for {backlog.age:.0f} s")
        verdict = self.verdict(record)
        if verdict != "fresh":
            reasons.append(f"the last verification is {verdict}; say verify")
        elif record.verification.found:
            counts = ", ".join(f"{count} {kind}" for kind, count in sorted(record.verification.found.items()))
            reasons.append(f"the last verification found {counts}; say repair, then verify")
        if verdict == "fresh":
            reasons += find_problems(record.verification.retrieval)
        return reasons

    def verdict(self, record: Migration) -> Verdict:
        """Whether the last verification may still be relied on."""
        if record.verification.finished_at is None:
            return "never"
        return "fresh" if self.store.clock() - record.verification.finished_at <= FRESH_SECONDS else "stale"

    def _rate(self, record: Migration, events: Sequence[Event]) -> float | None:
        began = [event.at for event in events if event.step in ("backfill", "walk again")]
        ended = [event.at for event in events if event.step == "sync"]
        if not began or not record.checkpoint.points:
            return None
        until = ended[-1] if ended and ended[-1] > began[-1] else self.store.clock()
        return record.checkpoint.points / max(until - began[-1], 1e-3)


def _checked(verb: str, change: Change, record: Migration) -> Migration:
    _allow(record, verb)
    return change(record)


def _allow(record: Migration, verb: str) -> None:
    if record.state not in VERBS[verb]:
        raise IllegalMove(
            collection=record.spec.collection, step=verb, state=record.state, allowed=verbs_of(record.state)
        )


def _check_percent(percent: float) -> None:
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent:g} is no percentage; give 0 to 100")
