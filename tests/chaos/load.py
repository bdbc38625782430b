"""Clients of the proxy: writers of every kind on hot keys, and writers and readers that keep a history.

Half of them speak gRPC, half REST. A failed request is remembered with its reason; what it did is then unknown.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from qdrant_client import AsyncQdrantClient, models

from crossfade.adapters.base import Float32
from tests.chaos.history import Kind, Op
from tests.chaos.stage import COLLECTION, PointId, native_vector
from tests.proxy.migration.scenery import old_vector

_ABSENT: Final = ("Not found", "No point with id")  # a point that another writer has deleted
_SETTLES: Final = 3.0  # seconds that a request whose connection broke may still be on its way
_TIMEOUT: Final = 60
_WIDE: Final = 50  # points of one request of a historian


@dataclass
class Told:
    """What a load has done. `natives`: vectors that clients of the new model sent, by point, with when; those sent
    before `captured` may have come before the migration kept them, and are then nothing but texts to it."""

    requests: int = 0
    operations: int = 0
    failures: list[str] = field(default_factory=list)
    captured: float = float("inf")
    steps: list[tuple[float, str]] = field(default_factory=list)  # what the operator has said, and when
    natives: dict[PointId, list[tuple[float, Float32]]] = field(default_factory=lambda: defaultdict(list))
    history: dict[PointId, list[Op]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class Ports:
    """Where Crossfade listens."""

    grpc: int
    rest: int


class Client:
    """One client of the proxy."""

    def __init__(self, ports: Ports, told: Told, number: int, *, settles: float = _SETTLES) -> None:
        self.told, self.number, self.settles = told, number, settles
        self.chance = random.Random(number)
        grpc, name = number % 2 == 0, {"x-client-id": f"client-{number}"}
        self._opened = [_open(ports, grpc, name), _open(ports, grpc, {**name, "x-embedding-model": "new"})]
        self.old, self.new = self._opened

    async def close(self) -> None:
        """Let go of the connections."""
        for client in self._opened:
            await client.close()

    async def ask(self, request: Callable[[], Awaitable[Any]]) -> tuple[float, float, Any, str | None]:
        """Start, end, answer, and what went wrong; that a point is absent is an answer."""
        self.told.requests += 1
        start = time.monotonic()
        try:
            answer, wrong = await request(), None
        except Exception as error:  # whatever the client library makes of a broken connection
            answer, wrong = None, f"{type(error).__name__}: {error}"
        end = time.monotonic()
        if wrong is not None and any(text in wrong for text in _ABSENT):
            return start, end, None, None
        if wrong is not None:
            self.told.failures.append(wrong)
        return start, end, answer, wrong


def _open(ports: Ports, grpc: bool, headers: dict[str, str]) -> AsyncQdrantClient:
    return AsyncQdrantClient(
        host="127.0.0.1",
        port=ports.rest,
        grpc_port=ports.grpc,
        prefer_grpc=grpc,
        check_compatibility=False,
        timeout=_TIMEOUT,
        metadata=headers,
    )


def _point(key: PointId, token: str, vector: list[float], **more: object) -> models.PointStruct:
    payload = {"text": f"text of {token}", "token": token, "tag": f"t{hash(token) % 6}", **more}
    return models.PointStruct(id=key, vector=vector, payload=payload)


class Writer(Client):
    """Writes of all kinds, by ids and by filter, on hot keys."""

    async def write(self, keys: Sequence[PointId]) -> None:
        """One of them."""
        chosen = self.chance.sample(list(keys), self.chance.randint(1, 3))
        await self.ask(self.chance.choice(self._kinds(chosen, f"{self.number}-{uuid.uuid4().hex[:12]}")))

    def _kinds(self, chosen: list[Any], token: str) -> list[Callable[[], Awaitable[Any]]]:
        client, name = self.old, COLLECTION
        some = models.PointIdsList(points=chosen)
        tag = models.FieldCondition(key="tag", match=models.MatchValue(value=f"t{self.chance.randrange(6)}"))
        # Only hot keys: a filter must not sweep the whole collection away.
        matching = models.Filter(must=[tag, models.HasIdCondition(has_id=chosen)])
        payload = {"text": f"text of {token}", "token": token, "n": self.chance.randrange(100)}
        points = [_point(key, f"{token} {key}", old_vector(f"{token} {key}")) for key in chosen]
        vectors = [models.PointVectors(id=key, vector=old_vector(token)) for key in chosen]
        batch: list[Any] = [
            models.UpsertOperation(upsert=models.PointsList(points=points)),
            models.SetPayloadOperation(set_payload=models.SetPayload(payload=payload, points=chosen)),
        ]
        upsert = [lambda: client.upsert(name, points, wait=True), lambda: self._upsert_native(chosen, token)]
        by_ids: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.delete(name, some, wait=True),
            lambda: client.update_vectors(name, vectors, wait=True),
            lambda: client.delete_vectors(name, [""], some, wait=True),
            lambda: client.set_payload(name, payload, chosen, wait=True),
            lambda: client.overwrite_payload(name, payload, chosen, wait=True),
            lambda: client.delete_payload(name, ["tag"], chosen, wait=True),
            lambda: client.clear_payload(name, some, wait=True),
            lambda: client.batch_update_points(name, batch, wait=True),
        ]
        by_filter: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.delete(name, models.FilterSelector(filter=matching), wait=True),
            lambda: client.set_payload(name, payload, matching, wait=True),
            lambda: client.delete_payload(name, ["n"], matching, wait=True),
            lambda: client.delete_vectors(name, [""], models.FilterSelector(filter=matching), wait=True),
        ]
        return [*upsert, *upsert, *upsert, *by_ids, *by_filter]

    async def _upsert_native(self, chosen: Sequence[PointId], token: str) -> None:
        points = []
        for key in chosen:
            vector = native_vector(f"{token} {key}")
            self.told.natives[key].append((time.monotonic(), vector))  # also of one that fails: who knows what it did
            points.append(_point(key, f"{token} {key}", vector.astype(float).tolist()))
        await self.new.upsert(COLLECTION, points, wait=True)


class Historian(Client):
    """Writes and reads of many points at once, each remembered as an operation on each of its points."""

    async def act(self, keys: Sequence[PointId]) -> None:
        """One request."""
        chosen: list[Any] = self.chance.sample(list(keys), _WIDE)
        token = f"{self.number}-{uuid.uuid4().hex[:12]}"
        drawn = self.chance.random()
        if drawn < 0.45:
            await self._read(chosen)
        elif drawn < 0.75:
            points = [_point(key, token, old_vector(f"{token} {key}")) for key in chosen]
            await self._write("put", chosen, token, lambda: self.old.upsert(COLLECTION, points, wait=True))
        elif drawn < 0.85:
            points = [_point(key, token, native_vector(f"{token} {key}").astype(float).tolist()) for key in chosen]
            for key in chosen:
                self.told.natives[key].append((time.monotonic(), native_vector(f"{token} {key}")))
            await self._write("put", chosen, token, lambda: self.new.upsert(COLLECTION, points, wait=True))
        else:
            some = models.PointIdsList(points=chosen)
            await self._write("gone", chosen, None, lambda: self.old.delete(COLLECTION, some, wait=True))

    async def _read(self, chosen: list[Any]) -> None:
        """Clients of the old model stay on the old index to the end; those of the new one are led over."""
        client = self.chance.choice([self.old, self.new])
        start, end, answer, wrong = await self.ask(lambda: client.retrieve(COLLECTION, chosen, with_payload=True))
        if wrong is not None:
            return
        found = {record.id: str((record.payload or {}).get("token")) for record in answer}
        for key in chosen:
            self._note(key, Op(start, end, "read", found.get(key)))

    async def _write(
        self, kind: Kind, chosen: Sequence[PointId], token: str | None, request: Callable[[], Awaitable[Any]]
    ) -> None:
        start, end, _, wrong = await self.ask(request)
        for key in chosen:
            self._note(key, Op(start, end if wrong is None else end + self.settles, kind, token, wrong is None))

    def _note(self, key: PointId, op: Op) -> None:
        self.told.operations += 1
        self.told.history[key].append(op)


@asynccontextmanager
async def at_work(
    clients: Sequence[Client], act: Callable[[Any], Awaitable[None]], pause: float
) -> AsyncIterator[asyncio.Event]:
    """Clients that act again and again, until the end or until the event is set."""
    stop = asyncio.Event()

    async def keep_acting(client: Client) -> None:
        while not stop.is_set():
            await act(client)
            await asyncio.sleep(client.chance.uniform(0, 2 * pause))

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(keep_acting(client)) for client in clients]
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.gather(*tasks)
        for client in clients:
            await client.close()
