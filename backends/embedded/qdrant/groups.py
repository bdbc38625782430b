"""Groups: the best points of each value of a payload key.

The engine has no grouping, so it is asked for ever more of the ranking until enough groups are found, and then once
for the groups that are not full. The answer is exact for queries without prefetch; with prefetches it is bounded by
what they fetch (their limits are multiplied by the size of a group, as Qdrant does).
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from qdrant_client import grpc as pb

from .errors import Unprocessable, engine_errors
from .reads import Reads, write_record, write_scored
from .shard import Collection
from .store import Store
from .values import read_payload_selector, read_vectors_selector

GROUP_LIMIT = 10
GROUP_SIZE = 3
GROWTH = 4

Key = int | str


class Groups:
    """Grouped queries on the collections of one store."""

    def __init__(self, store: Store, reads: Reads) -> None:
        self._store = store
        self._reads = reads

    def query(self, request: pb.QueryPointGroups) -> pb.GroupsResult:
        """The groups of a query, best first, each with its best points and the looked-up point of its key."""
        collection = self._store.collection(request.collection_name)
        limit = request.limit if request.HasField("limit") else GROUP_LIMIT
        size = request.group_size if request.HasField("group_size") else GROUP_SIZE
        if limit < 1 or size < 1:
            raise Unprocessable(f"[limit: {limit}, group_size: {size}] invalid, both must be 1 or larger")
        groups = self._collect(collection, request, limit, size)
        answer = pb.GroupsResult(groups=[pb.PointGroup(id=write_key(key)) for key in groups])
        self._fill_hits(collection, request, groups, answer)
        if request.HasField("with_lookup"):
            self._look_up(request.with_lookup, list(groups), answer)
        return answer

    def _collect(
        self, collection: Collection, request: pb.QueryPointGroups, limit: int, size: int
    ) -> dict[Key, list[Any]]:
        """The first `limit` groups of the ranking, each with up to `size` scored points."""
        groups = self._grow(collection, request, [], limit, size)
        chosen = dict(list(groups.items())[:limit])
        lacking = [key for key, points in chosen.items() if len(points) < size]
        if lacking:
            filled = self._grow(collection, request, lacking, len(lacking), size, full=True)
            chosen.update({key: filled[key] for key in lacking if key in filled})
        return {key: points[:size] for key, points in chosen.items()}

    def _grow(
        self,
        collection: Collection,
        request: pb.QueryPointGroups,
        only: list[Key],
        limit: int,
        size: int,
        full: bool = False,
    ) -> dict[Key, list[Any]]:
        """Read more of the ranking until `limit` groups are found (each of `size` where `full`), or it ends."""
        query = grouped_query(request, only, size)
        count = limit * size
        while True:
            query.limit = count
            points = self._reads.run(collection, query)
            groups = gather(points, request.group_by, only)
            complete = len(groups) >= limit and (not full or all(len(found) >= size for found in groups.values()))
            if complete or len(points) < count:
                return groups
            count *= GROWTH

    def _fill_hits(
        self,
        collection: Collection,
        request: pb.QueryPointGroups,
        groups: dict[Key, list[Any]],
        answer: pb.GroupsResult,
    ) -> None:
        """Write the hits with the payload and vectors that the client asked for."""
        ids = list({point.id for points in groups.values() for point in points})
        payload = read_payload_selector(request.with_payload)
        with engine_errors():
            records = collection.ask("retrieve", ids, payload, read_vectors_selector(request.with_vectors))
        found = {str(record.id): write_record(record) for record in records}
        for points, group in zip(groups.values(), answer.groups, strict=True):
            for point in points:
                hit = write_scored(point, False)
                hit.ClearField("payload")
                record = found.get(str(point.id))
                if record is not None:
                    hit.MergeFrom(pb.ScoredPoint(payload=record.payload))
                    if record.HasField("vectors"):
                        hit.vectors.CopyFrom(record.vectors)
                group.hits.append(hit)

    def _look_up(self, lookup: pb.WithLookup, keys: list[Key], answer: pb.GroupsResult) -> None:
        """Add to each group the point of another collection whose id is the group's key."""
        collection = self._store.collection(lookup.collection)
        payload = read_payload_selector(lookup.with_payload) if lookup.HasField("with_payload") else True
        vectors = read_vectors_selector(lookup.with_vectors) if lookup.HasField("with_vectors") else False
        ids = {str(point): point for key in keys if (point := as_point(key)) is not None}
        with engine_errors():
            records = collection.ask("retrieve", list(ids.values()), payload, vectors)
        found = {str(record.id): record for record in records}
        for key, group in zip(keys, answer.groups, strict=True):
            record = found.get(str(as_point(key)))
            if record is not None:
                group.lookup.CopyFrom(write_record(record))


def grouped_query(request: pb.QueryPointGroups, only: list[Key], size: int) -> pb.QueryPoints:
    """The plain query behind a grouped one: points that have the key (one of `only`, if any), with its value."""
    query = pb.QueryPoints(
        query=request.query if request.HasField("query") else None,
        using=request.using if request.HasField("using") else None,
        prefetch=request.prefetch,
        lookup_from=request.lookup_from if request.HasField("lookup_from") else None,
        params=request.params if request.HasField("params") else None,
        score_threshold=request.score_threshold if request.HasField("score_threshold") else None,
        with_payload=pb.WithPayloadSelector(include=pb.PayloadIncludeSelector(fields=[request.group_by])),
    )
    widen(query.prefetch, size)
    if request.HasField("filter"):
        query.filter.must.add().filter.CopyFrom(request.filter)
    query.filter.must_not.add().is_empty.key = request.group_by
    if only:
        _restrict(query.filter, request.group_by, only)
    return query


def widen(prefetches: Any, size: int) -> None:
    """Multiply the limits of prefetches, so that each group can be filled from them."""
    for prefetch in prefetches:
        prefetch.limit = (prefetch.limit if prefetch.HasField("limit") else GROUP_LIMIT) * size
        widen(prefetch.prefetch, size)


def _restrict(chosen: pb.Filter, key: str, only: list[Key]) -> None:
    either = chosen.must.add().filter
    words = [value for value in only if isinstance(value, str)]
    numbers = [value for value in only if isinstance(value, int) and value < 2**63]
    if words:
        either.should.add(field=pb.FieldCondition(key=key, match=pb.Match(keywords=pb.RepeatedStrings(strings=words))))
    if numbers:
        either.should.add(
            field=pb.FieldCondition(key=key, match=pb.Match(integers=pb.RepeatedIntegers(integers=numbers)))
        )


def gather(points: list[Any], group_by: str, only: list[Key]) -> dict[Key, list[Any]]:
    """Points by their keys, in order; a point with several values stands in several groups, once in each."""
    groups: dict[Key, list[Any]] = {}
    for point in points:
        for key in dict.fromkeys(values_at(point.payload, group_by.split("."))):
            if not only or key in only:
                groups.setdefault(key, []).append(point)
    return groups


def values_at(value: Any, path: list[str]) -> list[Key]:
    """The strings and whole numbers under a payload path; lists are looked into, `[]` included in a step or not."""
    if isinstance(value, list):
        return [key for item in value for key in values_at(item, path)]
    if not path:
        return [value] if isinstance(value, int | str) and not isinstance(value, bool) else []
    step = path[0].removesuffix("[]").strip('"')
    return values_at(value[step], path[1:]) if isinstance(value, dict) and step in value else []


def write_key(key: Key) -> pb.GroupId:
    """The protobuf of a group's key."""
    if isinstance(key, str):
        return pb.GroupId(string_value=key)
    return pb.GroupId(unsigned_value=key) if key >= 0 else pb.GroupId(integer_value=key)


def as_point(key: Key) -> int | str | None:
    """The point id that a key can stand for: a whole number, or the text of a UUID."""
    if isinstance(key, int):
        return key if key >= 0 else None
    try:
        return str(UUID(key))
    except ValueError:
        return None
