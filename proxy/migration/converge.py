"""The one routine that moves points: read each from the old index as it is now, and make the target agree.

It does not care what happened to a point, in which order, or whether it was run before: a write of any kind, a page of
the first copy and a repair all come down to it. Run it again after a kill, and the outcome is the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from crossfade.backends.index import Index, PointId
from crossfade.backends.payload_text import PayloadText

from ..encoders import Encoder
from .claims import Claims
from .journal import Journal
from .ledger import Ledger
from .moving import LocalMover, Mover, Natives, Outcome
from .record import Spec
from .sample import Sampler
from .store import Lease
from .texts import TextMemory

log = logging.getLogger("crossfade.migration.converge")


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """Where points come from and go to, and what has to be known on the way.

    `hold` gives the lease that every write carries; it raises LeaseLost when it may have run out.
    """

    migration: str
    spec: Spec
    index: Index
    encoder: Encoder
    text: PayloadText
    journal: Journal
    ledger: Ledger
    claims: Claims
    hold: Callable[[], Lease]
    memory: TextMemory = field(default_factory=TextMemory)
    sampler: Sampler | None = None  # keeps some points for the workers, which merge hits of both indexes by them
    learnt: Sampler | None = None  # keeps more of them, for the adapter to learn from

    @property
    def mover(self) -> Mover:
        """This process's own."""
        return LocalMover(self.spec, self.index, self.encoder, self.text, self.memory)


@dataclass(frozen=True, slots=True)
class Moved:
    """What was done: points written and deleted, texts encoded, tokens (estimated), and points left without vector."""

    written: int = 0
    deleted: int = 0
    encoded: int = 0
    tokens: int = 0
    dead: int = 0

    def __add__(self, other: Moved) -> Moved:
        """Both together."""
        return Moved(
            self.written + other.written,
            self.deleted + other.deleted,
            self.encoded + other.encoded,
            self.tokens + other.tokens,
            self.dead + other.dead,
        )


async def bring_over(lane: Lane, points: Sequence[PointId], mover: Mover | None = None) -> Moved:
    """Make the target agree with the old index in these points, by this process or another mover.

    Raises IndexRefusedError, EncoderFailed and LeaseLost; nothing is recorded as done then.
    """
    wanted = list(dict.fromkeys(points))
    async with lane.claims.hold(wanted):
        # Before the points are read: a vector sent after that is of a write whose mark is there, and stays.
        natives = await lane.journal.natives(lane.migration, wanted)
        lane.hold()
        done = await (mover or lane.mover).move(wanted, natives, lane.hold)
        await _note(lane, done)
        _keep(lane, done)
        await _forget_past(lane, natives, done)
    written = len(wanted) - len(done.gone)
    return Moved(written, len(done.gone), done.encoded, done.tokens, len(done.dead))


async def converge(lane: Lane, limit: int) -> Moved | None:
    """Bring over up to `limit` points that finished writes have touched; None when there is none.

    A mark for the whole collection is left to the backfill.
    """
    seen = await lane.journal.dirty(lane.migration, limit)
    held = lane.claims.held
    ready = [one for one in seen if one.ended and one.point is not None and one.point not in held]
    if not ready:
        return None
    await lane.index.settle(lane.spec.collection)  # an answer does not always mean that its write can be read
    moved = await bring_over(lane, [one.point for one in ready if one.point is not None])
    await lane.journal.clear(lane.migration, ready)
    return moved


async def _note(lane: Lane, done: Outcome) -> None:
    lease = lane.hold()
    sound = [point for point in [*done.signed, *done.bare] if point not in done.dead]
    await lane.ledger.note_moved(
        lane.migration,
        signed=done.signed,
        unsigned=[*done.bare, *done.gone],
        dead=done.dead,
        healed=[*sound, *done.gone],
        lease=lease,
    )


def _keep(lane: Lane, done: Outcome) -> None:
    """Keep samples of what was brought over; without them hits are merged by rank, so a full disk stops nothing.

    Where a client has sent the new vector the old one is what the adapter made of it: that teaches it nothing.
    """
    true = {point: pair for point, pair in done.pairs.items() if point not in done.sent}
    for sampler, pairs, gone in (
        (lane.sampler, done.pairs, done.gone),
        (lane.learnt, true, [*done.gone, *done.sent]),
    ):
        if sampler is None:
            continue
        sampler.note(pairs, gone)
        if sampler.due:
            try:
                sampler.write()
            except OSError as error:
                log.warning("%s: a sample of points is not written: %s", lane.migration, error)


async def _forget_past(lane: Lane, natives: Natives, done: Outcome) -> None:
    """Vectors of clients whose write had ended before the point was read, and which the point does not show."""
    used = {point: sent[done.sent[point]].seq for point, sent in natives.items() if point in done.sent}
    past = {
        point: [native.seq for native in sent if native.ended and native.seq != used.get(point)]
        for point, sent in natives.items()
    }
    await lane.journal.forget_natives(lane.migration, past)
