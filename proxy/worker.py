"""What one event loop of a worker has at hand: the live snapshot, the batcher, encoders, targets and its tally."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from pyvoy.asgi.httpclient import HTTPTransport

from crossfade.adapters.base import Map
from crossfade.backends.dialect import Dialect, Role, Transport

from .batching import Batcher, Float32
from .config_fields import serving_upstream
from .encoders import Encoder, build_encoder
from .envoy_clusters import cluster_name
from .exchange import Plan, TextJob
from .live import Live
from .observing import ROWS, Observer
from .patience import Patience
from .routing import Snapshot
from .schemas import Schemas
from .shadowing import Shadows
from .telemetry import Tally, write_atomically
from .upstream import Target

if TYPE_CHECKING:
    from .fastpath import FastPath

_FLUSH_SECONDS = 1.0
_WARN_SECONDS = 1.0
# Reading or changing this much takes about as long as a small query takes altogether.
LOOP_BYTES = 128 * 1024
# pyvoy cuts calls after 60 s unless told; how long a call may take is the client's deadline to say.
_NO_TIMEOUT = 30 * 86400.0

Result = TypeVar("Result")

log = logging.getLogger("crossfade.worker")


class Worker:
    """The state of one event loop; nothing in it outlives the process."""

    def __init__(self, live: Live, dialect: Dialect, run_dir: Path) -> None:
        self.live = live
        self.dialect = dialect
        self.operations = frozenset(dialect.operations)
        self.schemas = Schemas(dialect.schemas)
        self.tally = Tally()
        self.batcher = Batcher(asyncio.get_running_loop())
        self.fastpath: FastPath | None = None
        self.shadows = Shadows(self.tally)
        self.patience: dict[str, Patience] = {}  # with the targets of migrations, by id
        self._requests = 0
        self._warned = -_WARN_SECONDS
        self._encoders: dict[str, tuple[object, Encoder]] = {}
        self._targets: dict[tuple[int, int, Transport], Target] = {}
        self._tally_path = run_dir / f"tally-{os.getpid()}-{id(self):x}.json"
        self.observer = Observer(live.snapshot.config.state)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._flush_forever()), loop.create_task(self._observe_forever())]

    def target(self, snapshot: Snapshot, transport: Transport) -> Target:
        """Where requests of this listener go."""
        key = (snapshot.generation, snapshot.epoch, transport)
        found = self._targets.get(key)
        if found is None:
            self._targets.clear()
            found = self._targets[key] = self._build_target(snapshot, transport)
        return found

    def _build_target(self, snapshot: Snapshot, transport: Transport) -> Target:
        config = snapshot.config
        name = serving_upstream(config, self.dialect.kind, config.listen.kinds[self.dialect.kind])
        assert name is not None  # the configuration's check refuses a listener without an upstream
        upstream = config.upstreams[name]
        address = str(upstream.grpc if transport == "grpc" else upstream.rest)
        cluster = cluster_name(name, transport, snapshot.epoch)
        return Target(name, address, HTTPTransport(cluster, timeout=_NO_TIMEOUT))

    def samples(self) -> bool:
        """Whether the fingerprint looks at this request where it only counts: at one in 17.

        A prime, so that requests that come in a regular pattern are all looked at in their turn.
        """
        self._requests += 1
        return self._requests % 17 == 1

    def warn(self, message: str) -> None:
        """Log a warning that any request can cause, at most once a second."""
        now = time.monotonic()
        if now - self._warned >= _WARN_SECONDS:
            self._warned = now
            log.warning("%s", message)

    async def encode(self, job: TextJob, snapshot: Snapshot) -> Float32:
        """One text as a row (1, dim) of its model, before any map; raises EncoderFailed."""
        role: Literal["query", "passage"] = "passage" if job.slot.role is Role.DOCUMENT else "query"
        return await self._encoder(job.model, snapshot).encode([job.slot.text], role)

    def _encoder(self, model: str, snapshot: Snapshot) -> Encoder:
        settings = snapshot.config.models[model]
        kept = self._encoders.get(model)
        if kept is None or kept[0] != settings:
            kept = self._encoders[model] = (settings, build_encoder(model, settings))
        return kept[1]

    async def apply(self, through: Map, rows: Float32) -> Float32:
        """Map rows, together with those of other requests that wait at this moment."""
        most = self.live.snapshot.config.limits.inline_rows
        return await self.batcher.apply(through, rows, most)

    async def off_loop(self, size: int, work: Callable[..., Result], *given: Any) -> Result:
        """Do work on a message of `size` bytes: at once, or in a thread when it would keep the other requests."""
        if size <= LOOP_BYTES:
            return work(*given)
        return await self.batcher.off_loop(work, *given)

    def observe(self, plan: Plan) -> None:
        """Add the query vectors of a request that was answered to what is known of their model's queries."""
        for job in plan.jobs:
            if job.slots[0].role is Role.QUERY:
                slots = job.slots[:ROWS]
                rows = slots[0].rows if len(slots) == 1 else np.concatenate([slot.rows[:ROWS] for slot in slots])
                self.observer.see(job.space, job.model, rows)
        for text in plan.texts:
            if text.row is not None and text.slot.role is Role.QUERY:
                self.observer.see(text.space, text.model, text.row)

    async def _observe_forever(self) -> None:
        """Add up what was seen once a second, in a thread, and for the last time when the worker stops."""
        try:
            while True:
                await asyncio.sleep(_FLUSH_SECONDS)
                await asyncio.to_thread(self.observer.settle, self.observer.take())
        finally:
            self.observer.close()

    async def _flush_forever(self) -> None:
        """Write the tally once a second, and when the worker stops."""
        try:
            while True:
                await asyncio.sleep(_FLUSH_SECONDS)
                self.flush()
        finally:
            self.flush()

    def flush(self) -> None:
        """Write the tally where the supervisor reads it."""
        if self.fastpath is not None:
            self.fastpath.settle()
        try:
            write_atomically(self._tally_path, self.tally.dump())
        except OSError as error:
            log.warning("cannot write %s: %s", self._tally_path, error)

    def stop(self) -> None:
        """End what runs in the background."""
        if self.fastpath is not None:
            self.fastpath.stop()
        for task in self._tasks:
            task.cancel()
