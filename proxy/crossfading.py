"""The strategy crossfade: both indexes are asked at once, and what they know is put into one answer.

1. At the same time: the old index for its best by the adapted query, the new one for its best by the true query.
2. The new index for the true scores of the old one's candidates, so far as it holds them.
3. What the client wants to see of the hits that are left, from the old index, which every write reaches first: so a
   payload is the newest, and a point that no longer passes the filter, or is gone, is left out. Where vectors are
   wanted, those of points in the new index come from there, as the new model made them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossfade.backends.dialect import MalformedError
from crossfade.backends.index import PointId
from crossfade.backends.reading import Asking, Hit, ReadCodec, Search

from .asking import Answer, Refused, ask
from .driver import Incoming, Outgoing, Read, map_answer
from .errors import UpstreamDown
from .exchange import Float32, Plan
from .framing import pack
from .merging import MARGIN, Found, Scale, count_candidates, cut, find_line, merge_search
from .migration.record import MigrationView
from .patience import Patience, TargetFailed
from .routing import Snapshot
from .upstream import Target
from .worker import Worker


class OldFailed(Exception):
    """The old index refused or did not answer; it will say so to the request as it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One search, with its vector (dim,) for either index."""

    search: Search
    new: Float32
    old: Float32


@dataclass(slots=True, eq=False)
class Crossfade:
    """One request on its way; `seconds` is how long each question to the new index may take.

    `trust` is how much the new index's score counts of a point that both hold (adapters/weights.py).
    """

    worker: Worker
    incoming: Incoming
    read: Read
    plan: Plan
    snapshot: Snapshot
    view: MigrationView
    target: Target
    patience: Patience
    seconds: float
    trust: float

    @property
    def _codec(self) -> ReadCodec:
        assert self.worker.dialect.reading is not None  # a dialect without one has no migrations
        return self.worker.dialect.reading

    async def answer(self, asked: Sequence[Asked]) -> tuple[Outgoing, Sequence[Sequence[Hit]]]:
        """The answer without its mark, and the new index's own hits; raises TargetFailed and OldFailed."""
        old, new = await self._ask_both(asked)
        old_hits, new_hits = self._hits(old.body, len(asked)), self._hits(new.body, len(asked))
        among = await self._rescore(asked, old_hits, new_hits)
        found = [Found(*hits) for hits in zip(new_hits, among, old_hits, strict=True)]
        final = self._merge(asked, found, await self._find_lines(asked, found))
        shown = await self._show(asked, found, final)
        try:
            body = self._codec.form_hits(self.incoming.operation, self.read.message, old.body, shown)
        except MalformedError as error:
            raise TargetFailed("unreadable") from error
        body = pack(body, self.incoming.operation.transport)
        return Outgoing(self.target, old.response, body, True, None, "crossfade"), new_hits

    async def _ask_both(self, asked: Sequence[Asked]) -> tuple[Answer, Answer]:
        self.patience.check()
        depths = [_depth(one.search) for one in asked]
        old_side = [
            (one.search, Asking(one.old, count_candidates(depth))) for one, depth in zip(asked, depths, strict=True)
        ]
        new_side = [(one.search, Asking(one.new, _depth(one.search) + MARGIN)) for one in asked]
        old, new = await asyncio.gather(self._ask_old(old_side), self._ask_new(new_side), return_exceptions=True)
        for outcome in (old, new):
            if isinstance(outcome, BaseException):
                raise outcome
        assert isinstance(old, Answer)
        assert isinstance(new, Answer)
        return old, new

    async def _ask_old(self, asked: Sequence[tuple[Search, Asking]]) -> Answer:
        message = self._codec.form_searches(self.incoming.operation, self.read.message, asked)
        try:
            return await ask(self.worker, self.incoming, self.target, message, None, self.snapshot.config.limits.body)
        except (Refused, UpstreamDown) as error:
            raise OldFailed(str(error)) from error

    async def _ask_new(self, asked: Sequence[tuple[Search, Asking]]) -> Answer:
        message = self._codec.form_searches(self.incoming.operation, self.read.message, asked)
        names = {self.view.collection: self.view.target}
        limit = self.snapshot.config.limits.body
        asking = ask(self.worker, self.incoming, self.target, message, names, limit)
        try:
            return await self.patience.wait(asking, self.seconds)
        except Refused as error:
            self.worker.warn(f"the new index {self.view.target!r} refused: {error}; the old one answers alone")
            raise TargetFailed("refused") from error

    def _hits(self, body: bytes, count: int) -> Sequence[Sequence[Hit]]:
        """The hits of an answer to so many searches; raises TargetFailed for one that is none."""
        try:
            lists = self._codec.read_hits(self.incoming.operation, self.read.message, body)
        except MalformedError as error:
            raise TargetFailed("unreadable") from error
        if len(lists) != count:
            raise TargetFailed("unreadable")
        return lists

    async def _rescore(
        self, asked: Sequence[Asked], old: Sequence[Sequence[Hit]], new: Sequence[Sequence[Hit]]
    ) -> list[Sequence[Hit]]:
        """What the new index knows of the old one's candidates that are not among its own best."""
        among: list[list[PointId]] = []
        for candidates, known in zip(old, new, strict=True):
            best = {hit.id for hit in known}
            among.append([hit.id for hit in candidates if hit.id not in best])
        wanted = [
            (one.search, Asking(one.new, len(points), points))
            for one, points in zip(asked, among, strict=True)
            if points
        ]
        groups = self._codec.split_searches(wanted)
        answers = await asyncio.gather(*map(self._ask_new, groups))
        scored = iter(
            hits for group, answer in zip(groups, answers, strict=True) for hits in self._hits(answer.body, len(group))
        )
        return [next(scored) if points else () for points in among]

    async def _find_lines(self, asked: Sequence[Asked], found: Sequence[Found]) -> list[tuple[float, float] | None]:
        """Scale and shift of each query's old scores; None without a sample. It is asked where hits do not tell."""
        sample = self.snapshot.samples.get(self.view.id)
        if sample is None:
            return [None] * len(asked)
        lines = [find_line(hits, self._scale) for hits in found]
        untold = [at for at, line in enumerate(lines) if line is None]
        if untold:
            new, old = np.stack([asked[at].new for at in untold]), np.stack([asked[at].old for at in untold])
            match = await self.worker.off_loop(len(untold) * sample.size, sample.match, new, old)
            for at, scale, shift in zip(untold, match.scale.tolist(), match.shift.tolist(), strict=True):
                lines[at] = scale, shift
        return lines

    @property
    def _scale(self) -> Scale:
        """What scores are, where a sample says that they compare."""
        sample = self.snapshot.samples.get(self.view.id)
        if sample is None or sample.distance != "euclid":
            return "similarity"
        return "squared" if self._codec.squares else "distance"

    def _merge(
        self, asked: Sequence[Asked], found: Sequence[Found], lines: Sequence[tuple[float, float] | None]
    ) -> list[list[Hit]]:
        final = []
        for one, hits, pair in zip(asked, found, lines, strict=True):
            depth = _depth(one.search)
            ranked = merge_search(hits, depth, pair, self.view.migrated, self._scale, self.trust)
            final.append(cut(ranked, one.search.offset, one.search.limit, one.search.threshold, hits.falls))
        return final

    async def _show(self, asked: Sequence[Asked], found: Sequence[Found], final: list[list[Hit]]) -> list[list[Hit]]:
        """The final hits with what the client wants to see of them."""
        old_side: list[tuple[Search, Asking]] = []
        new_side: list[tuple[Search, Asking]] = []
        for one, hits, chosen in zip(asked, found, final, strict=True):
            search = one.search
            if not search.wants_payload and not search.wants_vectors:
                continue
            true = hits.true.keys() if search.wants_vectors else ()
            here = [hit.id for hit in chosen if hit.id not in true]
            there = [hit.id for hit in chosen if hit.id in true]
            if here:
                old_side.append((search, Asking(one.old, len(here), here, narrow=True, bare=False)))
            if there:
                new_side.append((search, Asking(one.new, len(there), there, narrow=True, bare=False)))
        seen = await asyncio.gather(self._see_old(old_side), self._see_new(new_side))
        shown = []
        for one, chosen in zip(asked, final, strict=True):
            if one.search.wants_payload or one.search.wants_vectors:
                raws = {**seen[0].get(one.search.place, {}), **seen[1].get(one.search.place, {})}
                shown.append([hit._replace(raw=raws[hit.id]) for hit in chosen if hit.id in raws])
            else:
                shown.append(chosen)
        return shown

    async def _see_old(self, asked: Sequence[tuple[Search, Asking]]) -> dict[object, dict[PointId, bytes]]:
        async def see(group: Sequence[tuple[Search, Asking]]) -> bytes:
            body = (await self._ask_old(group)).body
            if not self.plan.reads_answer:
                return body
            operation = self.incoming.operation
            mapped, _ = await map_answer(self.worker, operation, self.read, self.plan, self.snapshot, body)
            return body if mapped is None else mapped

        groups = self._codec.split_searches(asked)
        return self._raws(groups, await asyncio.gather(*map(see, groups)))

    async def _see_new(self, asked: Sequence[tuple[Search, Asking]]) -> dict[object, dict[PointId, bytes]]:
        groups = self._codec.split_searches(asked)
        answers = await asyncio.gather(*map(self._ask_new, groups))
        return self._raws(groups, [answer.body for answer in answers])

    def _raws(
        self, groups: Sequence[Sequence[tuple[Search, Asking]]], bodies: Sequence[bytes]
    ) -> dict[object, dict[PointId, bytes]]:
        """What each search's hits look like."""
        return {
            search.place: {hit.id: hit.raw for hit in hits}
            for group, body in zip(groups, bodies, strict=True)
            for (search, _), hits in zip(group, self._hits(body, len(group)), strict=True)
        }


def _depth(search: Search) -> int:
    return search.offset + search.limit
