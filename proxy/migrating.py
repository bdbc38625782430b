"""The migrations of one `crossfade serve`: their databases, what workers are told, the controller, and the goal.

Databases are opened when the configuration describes a migration, or when there may be one from before. The controller
runs in the supervisor; every replica may run one, and the one with the lease works.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from crossfade.backends.payload_text import compile_text

from .background import Background
from .cli_index import open_index
from .config import Config
from .config_fields import collection_upstream, resolve_field
from .config_migrate import Migrate
from .encoders import build_encoder
from .journals import name_writer
from .leads import Leads
from .migration.board import Board
from .migration.conduct import Bench, Tools
from .migration.errors import MigrationStorageError, NotConfigured
from .migration.journal import Journal
from .migration.moving import LocalMover
from .migration.places import FOLDER, journal_url, store_url
from .migration.plan import Plan
from .migration.popular import Ordering
from .migration.process_mover import ProcessMover
from .migration.ray_mover import RayMovers
from .migration.record import Migration, Spec
from .migration.refit import Refitting
from .migration.replicas import Replicas
from .migration.runner import Controller
from .migration.sample import sample_folder
from .migration.steer import Steer
from .migration.steering import Wait, next_step, wishes_of
from .migration.store import Store
from .migration.verbs import Say, Serving, Status, Verbs
from .migration.wanted import check_unmoved, plan_from
from .old_clients import OldClients
from .serving_watch import ServingWatch

_LOOK_BACK_SECONDS = 600.0

_FOR_GOOD: Final = AsyncExitStack()  # one that nobody holds would close what it has entered

log = logging.getLogger("crossfade.migrating")


@dataclass(frozen=True, slots=True)
class _Opened:
    store: Store
    journal: Journal
    board: Board
    verbs: Verbs
    background: Background


class Migrations:
    """See the module; `serving` gives the process ids of the workers that run at this moment."""

    def __init__(self, run_dir: Path, serving: Callable[[], Sequence[int]], leads: Leads) -> None:
        self._run_dir, self._serving, self._leads = run_dir, serving, leads
        self._watch = ServingWatch(run_dir)
        self._config: Config | None = None
        self._opened: _Opened | None = None
        self._controller: Background | None = None
        self._frozen = 0  # how many wait to take over

    async def prepare(self, config: Config) -> None:
        """Get ready for a configuration that is about to serve, and tell the workers how things stand.

        Raises ConfigError when it takes away what a migration under way rests on, MigrationStorageError.
        """
        if self._opened is None and _may_have_any(config):
            self._opened = await self._open(config)
        if self._opened is not None:
            check_unmoved(config, await self._opened.store.read_all())
            await self._opened.board.look()

    async def take(self, config: Config) -> None:
        """Work by a configuration that serves now."""
        before, self._config = self._config, config
        if self._opened is None or self._frozen:
            return
        if self._controller is not None and before is not None and _works_with(before) == _works_with(config):
            return
        await self._stop_controller()
        self._controller = Background()
        self._controller.start(Controller(self._tools(self._opened)).run(), "migration controller")

    @property
    def frozen(self) -> bool:
        """Whether somebody waits to take over."""
        return self._frozen > 0

    async def freeze(self) -> None:
        """Move no migration on; clients are served as before, and their writes captured."""
        self._frozen += 1
        await self._stop_controller()

    async def thaw(self) -> None:
        """Go on, unless it was never begun or has come to an end meanwhile."""
        self._frozen -= 1
        if self._config is not None:
            await self.take(self._config)

    async def _open(self, config: Config) -> _Opened:
        if config.migrations.store is None or config.migrations.journal is None:
            (config.state / FOLDER).mkdir(parents=True, exist_ok=True)
        store = await asyncio.to_thread(Store, store_url(config))
        journal = await asyncio.to_thread(Journal, journal_url(config))
        current = partial(self._current, config)
        shared = not store.url.startswith("sqlite")
        replicas = Replicas(store, name_writer(os.getpid())) if shared else None
        board = Board(self._run_dir, store, self._serving, self._leads, journal, current, replicas)
        if replicas is not None:
            await board.renew()  # first: whoever begins a migration from here on waits for this replica
        verbs = Verbs(store, journal, self._waiting, self._serve_counts, self._watch.old_clients)
        self._watch.remember(OldClients(config.state / FOLDER / "old-clients.json"))
        opened = _Opened(store, journal, board, verbs, Background())
        opened.background.start(board.run(), "migration board")
        opened.background.start(self._watch.run(), "serving watch")
        return opened

    def _tools(self, opened: _Opened) -> Tools:
        steer = Steer(opened.verbs, lambda: self._now, self.begin, self._watch)
        return Tools(
            opened.store,
            opened.journal,
            opened.board,
            self._open_bench,
            self._watch.latency_ms,
            beside=steer.run,
            samples=sample_folder(self._now),
            refitting=self._refitting,
            ordering=self._ordering,
        )

    def _refitting(self, spec: Spec) -> Refitting | None:
        """How a migration's adapter is to learn, where the configuration has one for it."""
        config, (migrate, adapter) = self._now, self._find_adapter(spec)
        if migrate is None or adapter is None or not migrate.refit:
            return None
        return Refitting(adapter, migrate.refit, config.state, config.detect.observe)

    def _ordering(self, spec: Spec) -> Ordering | None:
        """How a migration finds what it re-encodes first, where the configuration asks for that.

        What the adapter is fitted again on has to be drawn without regard to queries, so that much goes first by id.
        """
        migrate, adapter = self._find_adapter(spec)
        if migrate is None or adapter is None or migrate.order == "id":
            return None
        return Ordering(adapter, self._now.state, migrate.refit)

    def _find_adapter(self, spec: Spec) -> tuple[Migrate | None, Path | None]:
        """What the configuration says of a migration now, and its adapter into the old space."""
        settings = self._now.collections.get(spec.collection)
        if settings is None:
            return None, None
        return settings.migrate, resolve_field(settings, spec.field).adapters.get(spec.to_model)

    def _current(self, opened_with: Config) -> Config:
        return self._config or opened_with

    @property
    def _now(self) -> Config:
        assert self._config is not None  # nothing works before a configuration was taken up
        return self._config

    @asynccontextmanager
    async def _open_bench(self, record: Migration) -> AsyncIterator[Bench]:
        config = self._now
        settings = config.collections.get(record.spec.collection)
        upstream = collection_upstream(config, settings) if settings is not None else None
        model = config.models.get(record.spec.to_model)
        if upstream is None or model is None:
            raise NotConfigured(collection=record.spec.collection, having=[])
        # Every text is encoded once, and what is encoded again is to be compared: nothing is to be kept.
        encoder = build_encoder(record.spec.to_model, model.model_copy(update={"cache": 0}), background=True)
        opening = partial(open_mover, config, record.spec)
        movers, process = RayMovers(config.migrations.ray, record.spec.collection, opening), ProcessMover(opening)
        try:
            async with open_index(config, upstream) as index:
                yield Bench(index, encoder, movers, process)
        finally:
            process.close()
            movers.close()
            await encoder.close()

    @property
    def verbs(self) -> Verbs:
        """The verbs. Raises NotConfigured while there are no migrations at all."""
        if self._opened is None:
            raise NotConfigured(collection="(any)", having=[])
        return self._opened.verbs

    async def statuses(self) -> Sequence[Status]:
        """The newest migration of each collection. Raises MigrationStorageError."""
        if self._opened is None:
            return []
        newest = {record.spec.collection: record for record in await self._opened.store.read_all()}
        return [await self._opened.verbs.status_of(newest[name]) for name in sorted(newest)]

    async def plan(self, collection: str, price_per_million: float | None) -> Plan:
        """What the configured migration would mean. Raises NotConfigured, BadPlan, IndexRefusedError."""
        return await plan_from(self._now, collection, price_per_million)

    async def begin(self, say: Say) -> Migration:
        """Plan and start the configured migration. Raises NotConfigured, BadPlan, IndexRefusedError."""
        await self.verbs.check_free(say.collection)
        plan = await self.plan(say.collection, None)
        plan.check_startable()
        settings = self._now.collections[say.collection].migrate
        assert settings is not None  # plan refuses a collection without
        wishes = wishes_of(settings)
        update = {"strategy": wishes.strategy, "shadow": wishes.shadow, "pace": wishes.pace}
        return await self.verbs.begin(say, plan.spec, {**update, "wishes": wishes})

    def _serve_counts(self, collection: str) -> Serving:
        seen = self._watch.seen(collection, _LOOK_BACK_SECONDS)
        ways = self._watch.ways(collection, _LOOK_BACK_SECONDS)
        return Serving(_LOOK_BACK_SECONDS, ways, seen.failed, seen.shadowed, seen.overlap)

    def _waiting(self, record: Migration, gates: Sequence[str]) -> str | None:
        """What the goal waits for, in words."""
        settings = self._now.collections.get(record.spec.collection)
        if settings is None or settings.migrate is None or self._opened is None:
            return None
        verbs = self._opened.verbs
        step = next_step(record, settings.migrate, gates=gates, verdict=verbs.verdict(record), now=verbs.store.clock())
        return step.reason if isinstance(step, Wait) else f"goal {settings.migrate.goal}: {step.verb} comes next"

    async def _stop_controller(self) -> None:
        if self._controller is not None:
            await self._controller.stop()
            self._controller = None

    async def stop(self) -> None:
        """End the work, giving back the lease, and close the databases."""
        await self._stop_controller()
        if self._opened is not None:
            await self._opened.background.stop()
            with suppress(MigrationStorageError):  # the others stop waiting for it all the same, later
                if self._opened.board.replicas is not None:
                    await self._opened.board.replicas.leave()
            self._opened.journal.shut()
            self._opened.store.shut()
            self._opened = None


async def open_mover(config: Config, spec: Spec) -> LocalMover:
    """What another process works with, on this machine or elsewhere; it stays open for as long as that lives."""
    upstream = collection_upstream(config, config.collections[spec.collection])
    assert upstream is not None  # the bench was opened with it
    index = await _FOR_GOOD.enter_async_context(open_index(config, upstream))
    model = config.models[spec.to_model].model_copy(update={"cache": 0})
    encoder = build_encoder(spec.to_model, model, background=True)
    return LocalMover(spec, index, encoder, compile_text(spec.text))


def _may_have_any(config: Config) -> bool:
    described = any(one.migrate is not None for one in config.collections.values())
    return described or config.migrations.store is not None or (config.state / FOLDER).exists()


def _works_with(config: Config) -> object:
    """What an open bench rests on."""
    migrating = {name: one.upstream for name, one in config.collections.items() if one.migrate is not None}
    return config.upstreams, config.models, migrating
