"""What tests of the migration share: an embedded Qdrant, a small collection, an encoder, writers, and a checker."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import AsyncQdrantClient, models

from crossfade.backends.dialect import Float32
from crossfade.backends.qdrant.index import QdrantIndex
from crossfade.proxy.encoders import Role
from crossfade.proxy.errors import EncoderFailed
from crossfade.proxy.migration.conduct import Bench, Tools
from crossfade.proxy.migration.errors import MigrationStorageError
from crossfade.proxy.migration.journal import Journal, Mark, Native
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.record import Migration, Spec
from crossfade.proxy.migration.runner import Controller
from crossfade.proxy.migration.store import Store
from tests.proxy.encoding_function import DIM, encode_one

OLD_DIM = 16


def connect(grpc_port: int, rest_port: int) -> AsyncQdrantClient:
    return AsyncQdrantClient(
        host="127.0.0.1", port=rest_port, grpc_port=grpc_port, prefer_grpc=True, check_compatibility=False, timeout=30
    )


@dataclass
class TestEncoder:
    """The new model: vectors that follow from the text alone; it can be down, slow, and refuse some texts."""

    __test__ = False
    batch_size: int = 64
    down: bool = False
    delay: float = 0.0
    blocked: asyncio.Event | None = None  # texts of the first collection wait until it is set
    texts: list[str] = field(default_factory=list)

    async def encode(self, texts: Sequence[str], role: Role) -> Float32:
        await asyncio.sleep(self.delay)
        if self.blocked is not None and any(text.startswith("text ") for text in texts):
            await self.blocked.wait()
        if self.down or any("unspeakable" in text for text in texts):
            raise EncoderFailed(model="new", endpoint="test", reason="no")
        self.texts += texts
        return np.stack([encode_one(text, role) for text in texts])

    async def close(self) -> None:
        """Nothing is open."""


def old_vector(text: str) -> list[float]:
    """The old model's vector (16,) of a text."""
    vector: list[float] = encode_one(text, "old")[:OLD_DIM].astype(float).tolist()
    return vector


async def make_collection(client: AsyncQdrantClient, n: int) -> str:
    """A collection of n points with texts, ids being numbers and UUIDs."""
    name = f"docs-{uuid.uuid4().hex[:8]}"
    await client.create_collection(name, models.VectorParams(size=OLD_DIM, distance=models.Distance.COSINE))
    await client.create_payload_index(name, "tag", models.PayloadSchemaType.KEYWORD, wait=True)
    for first in range(0, n, 500):
        points = [point_of(id_of(at), f"text {at}") for at in range(first, min(n, first + 500))]
        await client.upsert(name, points, wait=True)
    return name


def id_of(at: int) -> int | str:
    """The id of the n-th point: every third one is a UUID."""
    return str(uuid.UUID(int=at + 2**64)) if at % 3 == 0 else at


def point_of(point: int | str, text: str) -> models.PointStruct:
    return models.PointStruct(id=point, vector=old_vector(text), payload={"text": text, "tag": f"t{len(text) % 5}"})


def spec_of(collection: str) -> Spec:
    return Spec(
        collection=collection,
        target=f"{collection}--new",
        from_model="old",
        to_model="new",
        dim=DIM,
        text="payload.text",
    )


class ServingWorker:
    """A stand-in for the data plane's processes: it follows the journal's protocol around each write."""

    def __init__(self, client: AsyncQdrantClient, store: Store, journal: Journal, record: Migration) -> None:
        self.client, self.store, self.journal = client, store, journal
        self.collection, self.migration = record.spec.collection, record.id
        self.name = f"worker-{uuid.uuid4().hex[:6]}"
        self.view = record.view
        self.stopping = False
        self._under_way: dict[object, int] = {}

    async def follow(self) -> None:
        """Read the view again and again, as workers do."""
        while True:
            with suppress(MigrationStorageError):  # it goes on with what it knows
                self.view = (await self.store.read(self.migration)).view
            await asyncio.sleep(0.02)

    @property
    def seen(self) -> int:
        """The oldest version that anything here still acts on."""
        return min([self.view.version, *self._under_way.values()])

    async def have_seen(self, migration: str, version: int) -> bool:
        return self.seen >= version

    async def write(
        self, ids: Sequence[int | str], forward: Callable[[], object], natives: dict[int | str, Native] | None = None
    ) -> None:
        """Mark, forward to the old index, close; once the migration is completed, writes are not the old index's."""
        while self.view.holds_writes:
            await asyncio.sleep(0.01)
        if self.view.state is State.COMPLETED:
            return
        token = object()
        self._under_way[token] = self.view.version
        try:
            mark: Mark | None = None
            if self.view.captures:
                mark = await self.journal.mark(self.migration, ids, self.name, natives)
            try:
                result = forward()
                if asyncio.iscoroutine(result):
                    await result
            except BaseException:  # refused, or nobody knows: either way it will have ended in a second
                if mark is not None:
                    await self.journal.close(mark, settles_in=1.0)
                raise
            if mark is not None:
                await self.journal.close(mark)
        finally:
            del self._under_way[token]


async def write_at_random(worker: ServingWorker, chance: random.Random, keys: Sequence[int | str]) -> None:
    """One write of one of Qdrant's nine kinds on hot keys."""
    client, name = worker.client, worker.collection
    chosen: list[Any] = chance.sample(list(keys), chance.randint(1, 3))  # the client asks for lists of wider types
    text = f"text {chance.randrange(10**9)}"
    points = [point_of(key, f"{text} {key}") for key in chosen]
    payload = {"text": text, "n": chance.randrange(100)}
    some = models.PointIdsList(points=chosen)
    kinds: list[Callable[[], object]] = [
        lambda: client.upsert(name, points, wait=True),
        lambda: client.delete(name, some, wait=True),
        lambda: client.update_vectors(
            name, [models.PointVectors(id=key, vector=old_vector(text)) for key in chosen], wait=True
        ),
        lambda: client.delete_vectors(name, [""], some, wait=True),
        lambda: client.set_payload(name, payload, chosen, wait=True),
        lambda: client.overwrite_payload(name, payload, chosen, wait=True),
        lambda: client.delete_payload(name, ["tag"], chosen, wait=True),
        lambda: client.clear_payload(name, some, wait=True),
        lambda: client.batch_update_points(
            name,
            [
                models.UpsertOperation(upsert=models.PointsList(points=points)),
                models.SetPayloadOperation(set_payload=models.SetPayload(payload=payload, points=chosen)),
            ],
            wait=True,
        ),
    ]
    forward = chance.choice([*kinds, kinds[0], kinds[0]])
    try:
        await worker.write(chosen, forward)
    except Exception as error:
        if "Not found" not in str(error) and "No point with id" not in str(error):  # a point that another has deleted
            raise


@dataclass(frozen=True)
class Differences:
    """What the target lacks, has too much, and has otherwise than the old index says."""

    lost: list[int | str]
    resurrected: list[int | str]
    stale: list[int | str]

    @property
    def none(self) -> bool:
        return not (self.lost or self.resurrected or self.stale)


async def find_differences(client: AsyncQdrantClient, spec: Spec) -> Differences:
    """Compare all of both collections: ids, payloads, and vectors with what the model gives for each text."""
    old, new = [await read_everything(client, name) for name in (spec.collection, spec.target)]
    stale = [point for point in old.keys() & new.keys() if not _is_current(old[point], new[point])]
    return Differences([*(old.keys() - new.keys())], [*(new.keys() - old.keys())], stale)


async def read_everything(client: AsyncQdrantClient, name: str) -> dict[int | str, models.Record]:
    records: dict[int | str, models.Record] = {}
    offset = None
    while True:
        page, offset = await client.scroll(name, limit=2000, offset=offset, with_vectors=True)
        records |= {record.id: record for record in page}  # type: ignore[misc] # ids are numbers or text
        if offset is None:
            return records


def _is_current(old: models.Record, new: models.Record) -> bool:
    if old.payload != new.payload:
        return False
    text = (old.payload or {}).get("text")
    if not old.vector or not text:
        return not new.vector
    wanted = encode_one(text, "passage")
    return bool(np.allclose(new.vector, wanted / np.linalg.norm(wanted), atol=1e-5))  # type: ignore[arg-type] # dense


@dataclass
class Scene:
    """One migration under way, with everything that takes part in it."""

    client: AsyncQdrantClient
    index: QdrantIndex
    store: Store
    journal: Journal
    encoder: TestEncoder
    worker: ServingWorker
    record: Migration
    samples: Path | None = None  # where the controller keeps a sample of what it brings over

    @property
    def id(self) -> str:
        return self.record.id

    async def now(self) -> Migration:
        return await self.store.read(self.id)

    async def until(self, holds: Callable[[Migration], bool], seconds: float = 60.0) -> Migration:
        """Wait for the record to be so; fails with the record when it takes too long."""
        deadline = time.monotonic() + seconds
        while not holds(record := await self.now()):
            assert time.monotonic() < deadline, f"still {record}"
            await asyncio.sleep(0.05)
        return record

    async def until_quiet(self, seconds: float = 60.0) -> None:
        """Wait until nothing is left to bring over."""
        deadline = time.monotonic() + seconds
        while (await self.journal.backlog(self.id)).count or not (await self.now()).checkpoint.done:
            assert time.monotonic() < deadline, f"still {await self.now()}"
            await asyncio.sleep(0.05)

    async def change(self, **update: object) -> None:
        await self.store.change(self.id, lambda one: one.model_copy(update=update))

    def tools(self) -> Tools:
        @asynccontextmanager
        async def open_bench(_: Migration) -> AsyncIterator[Bench]:
            yield Bench(self.index, self.encoder)

        return Tools(self.store, self.journal, self.worker, open_bench, samples=self.samples)

    @asynccontextmanager
    async def led(self, *, ttl: float = 30.0) -> AsyncIterator[None]:
        """A controller and a worker at work."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(one) for one in (Controller(self.tools(), ttl=ttl).run(), self.worker.follow())]
        try:
            yield
            for task in tasks:
                assert not task.done(), task.exception()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def journal_of(url: str) -> str:
    """SQLite: a file of the journal's own, so that controller and writers do not wait for each other's locks."""
    return f"{url}.journal" if url.startswith("sqlite") else url


@asynccontextmanager
async def set_up(grpc_port: int, rest_port: int, url: str, n: int) -> AsyncIterator[Scene]:
    """A planned and started migration of a new collection of n points."""
    client = connect(grpc_port, rest_port)
    store, journal = Store(url), Journal(journal_of(url))
    try:
        name = await make_collection(client, n)
        record = await store.plan(spec_of(name), "test", "")
        record = await store.change(record.id, lambda one: one.model_copy(update={"started": True}))
        worker = ServingWorker(client, store, journal, record)
        yield Scene(client, QdrantIndex(client), store, journal, TestEncoder(), worker, record)
    finally:
        await client.close()
        journal.shut()
        store.shut()
