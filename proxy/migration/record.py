"""What is kept of a migration: what was asked, how far it is, and what the data plane has to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from crossfade.backends.index import PointId

from .machine import CAPTURING, SERVING, State, follow
from .pace import Pace

Strategy = Literal["auto", "adapt", "crossfade", "legacy-encode", "native"]
Verdict = Literal["never", "fresh", "stale"]


class Kept(BaseModel):
    """A part of the record: frozen, and refused when it has keys that this version does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Spec(Kept):
    """What was asked; it never changes after the plan."""

    collection: str
    target: str  # the collection that takes the new vectors
    field: str = ""  # the vector field that is re-encoded, the same in both
    from_model: str
    to_model: str
    dim: int = Field(ge=1)  # of the new model
    text: str  # a payload path or template


class Checkpoint(Kept):
    """How far the pages of a walk over all ids are: `open` ones were begun and not finished."""

    next: PointId | None = None  # where the part that was never listed begins
    listed: bool = False  # nothing is left to list
    open: tuple[
        tuple[PointId | None, PointId | None], ...
    ] = ()  # first id and the one after it; None: from or to the end
    points: int = 0  # points of finished pages
    ahead: int = 0  # so many of the popular points were handed out, before the rest by id
    ahead_open: tuple[tuple[int, int], ...] = ()  # parts of them that were begun and not finished

    @property
    def done(self) -> bool:
        """Every page is finished."""
        return self.listed and not self.open and not self.ahead_open


class Tally(Kept):
    """What the re-encode has done since it began, over every restart."""

    written: int = 0
    deleted: int = 0
    encoded: int = 0  # texts
    tokens: int = 0  # estimated: a token is four bytes of UTF-8


class Retrieval(Kept):
    """What searches say of the target, over `queries` stored vectors; None where it could not be asked."""

    queries: int
    recall: float | None  # of the true nearest 10, how many the target's index finds
    agreement: float | None  # of the old index's nearest 10, how many are the target's: two models never agree in all
    points: int
    indexed: int | None
    building: str | None  # what the database had not indexed yet
    broken: str | None  # what the database says against its index


class Verification(Kept):
    """The last verification, or the one under way."""

    id: int = 0  # counts them
    asked: bool = False
    checkpoint: Checkpoint = Checkpoint()
    compared: int = 0
    sampled: int = 0
    found: dict[str, int] = {}  # by kind
    retrieval: Retrieval | None = None
    finished_at: float | None = None


class Wishes(Kept):
    """What the configuration file said when it was last taken up: only a change of it counts against verbs."""

    goal: str = "none"
    strategy: Strategy = "auto"
    shadow: float = 0.0
    pace: Pace = Pace()


class Migration(Kept):
    """One migration, as it stands in the store."""

    id: str
    spec: Spec
    state: State = State.PLANNED
    failed_in: State | None = None
    error: str | None = None
    retryable: bool = False
    started: bool = False
    paused: bool = False
    throttled: str | None = None
    percent: float = Field(default=0.0, ge=0, le=100)
    settling: bool = False  # reads stay where they are until the target shows every write acknowledged so far
    strategy: Strategy = "auto"
    shadow: float = Field(default=0.0, ge=0, le=100)
    pace: Pace = Pace()
    made_target: bool = False  # this migration made the target collection, so that cancelling may destroy it
    aliases: tuple[str, ...] | None = None  # the collection's other names; None: not asked for yet
    total: int = 0  # points of the old index when the copying began
    checkpoint: Checkpoint = Checkpoint()
    tally: Tally = Tally()
    verification: Verification = Verification()
    wishes: Wishes | None = None  # None: planned from no file
    by_hand: bool = False  # a verb has moved it since the goal was last changed: the goal waits for its next change
    refitted: int = 0  # pairs of documents that the adapter was last fitted again on; 0: never
    moved_at: float | None = None  # when the share of reads was last changed
    stepped_back: str | None = None  # why a guardrail has lowered the share; it does not rise by itself any more
    drop_old: bool = False  # after the end the old collection is destroyed, and its name becomes an alias
    completing: bool = False  # writes are held until the journal is empty, then the target stands alone
    cleaned: bool = False  # what had to go after the end is gone
    version: int = 0  # counts changes

    @property
    def standing(self) -> State:
        """The state that its duties follow: where a failed one stood when it failed."""
        return self.failed_in if self.state is State.FAILED and self.failed_in is not None else self.state

    @property
    def captures(self) -> bool:
        """Whether writes have to be journalled; a failure does not end that."""
        return self.standing in CAPTURING

    def moved(self, step: str) -> Migration:
        """The record after a step. Raises IllegalMove."""
        reached = follow(self.spec.collection, self.state, step, self.failed_in)
        update = {"state": reached, "failed_in": None, "error": None, "retryable": False}
        if reached not in SERVING:
            update["settling"] = False
        elif self.standing not in SERVING:
            update["settling"] = True
        return self.model_copy(update=update)

    def failed(self, error: str, *, retryable: bool) -> Migration:
        """The record after a step went wrong."""
        reached = follow(self.spec.collection, self.state, "fail")
        return self.model_copy(
            update={"state": reached, "failed_in": self.state, "error": error, "retryable": retryable}
        )

    @property
    def share(self) -> float:
        """The share of reads that the target is to answer, in percent; workers are told of it once it has settled."""
        return self.percent if self.standing in SERVING else 0.0

    @property
    def view(self) -> MigrationView:
        """What the data plane has to know."""
        return MigrationView(
            id=self.id,
            collection=self.spec.collection,
            target=self.spec.target,
            field=self.spec.field,
            from_model=self.spec.from_model,
            to_model=self.spec.to_model,
            state=self.state,
            percent=0.0 if self.settling else self.share,
            strategy=self.strategy,
            shadow=self.shadow,
            migrated=self.migrated,
            captures=self.captures,
            holds_writes=self.completing and self.captures,
            version=self.version,
            aliases=self.aliases or (),
        )

    @property
    def migrated(self) -> float:
        """The share of points that is in the target, 0 to 1."""
        if self.checkpoint.done:
            return 1.0
        return min(1.0, self.checkpoint.points / self.total) if self.total else 0.0


class MigrationView(Kept):
    """What a worker has to know of a migration that is not over.

    `percent`: how many of a hundred sticky hashes read the target. `captures`: writes follow the journal's protocol.
    `holds_writes`: new writes wait until this is false again; it lasts as long as the journal takes to run empty.
    """

    id: str
    collection: str
    target: str
    field: str
    from_model: str
    to_model: str
    state: State
    percent: float
    strategy: Strategy
    shadow: float
    migrated: float
    captures: bool
    holds_writes: bool
    version: int
    aliases: tuple[str, ...] = ()  # the collection's other names


def views_of(migrations: Sequence[Migration]) -> Sequence[MigrationView]:
    """The views of those that are not over, and of completed ones, whose reads belong to the target from then on."""
    return [migration.view for migration in migrations if migration.state is not State.CANCELLED]
