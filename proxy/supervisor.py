"""The supervisor: publishes the configuration, keeps the workers alive, reloads, and drains at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import orjson

from crossfade.backends.dialect import Dialect
from crossfade.backends.milvus import MilvusDialect
from crossfade.backends.qdrant import QdrantDialect

from .admin_client import admin_url
from .background import Background
from .certificates import read_certificates, watch_certificates
from .config import Config
from .embedded_upstreams import EmbeddedUpstreams
from .envoy import build_bootstrap, listeners_of
from .errors import ConfigError, CrossfadeError, Problem
from .handover import Handover, stand_in
from .leading import read_led
from .leads import Leads
from .live import AdapterShelf
from .loading import read_config
from .migrating import Migrations
from .migration.errors import MigrationStorageError
from .migration.verbs import Status
from .native import filter_module, why_full
from .observing import count_observed
from .ports import check_ports, check_replaceable
from .processes import StartError, WorkerProcess, pyvoy_module, worker_environment
from .prometheus import EnvoyCollector, SupervisorCollector, TallyCollector, render
from .prometheus_migrations import MigrationsCollector
from .routing import build_snapshot
from .rundir import ENVOY, publish_clusters, publish_config, publish_routes, publish_secrets, read_workers
from .verdicts import load_verdicts

DIALECTS: dict[str, Dialect] = {"qdrant": QdrantDialect(), "milvus": MilvusDialect()}
_SWITCH_SECONDS = 10.0

log = logging.getLogger("crossfade.supervisor")


class Supervisor:
    """Everything that `crossfade serve` runs beside the workers."""

    def __init__(self, path: Path, workers: int | None, *, replaces: bool = False) -> None:
        self.path = path
        self._replaces = replaces
        self._asked_workers = workers
        self.run_dir = Path(tempfile.mkdtemp(prefix="crossfade-"))
        self.generation = 0
        self.draining = False
        self.last_problem: str | None = None
        self.seen = ""  # the file's text when it was last read, usable or not
        self._failed_reloads = 0
        self._shelf = AdapterShelf()
        self._embedded = EmbeddedUpstreams()
        self._workers: list[WorkerProcess] = []
        self._background = Background()
        self._reloading = asyncio.Lock()
        leads = Leads(self.run_dir, lambda: self.config, DIALECTS, self._pids)
        self.migrations = Migrations(self.run_dir, self._pids, leads)
        self.config: Config

    async def start(self) -> None:
        """Bring everything up; raises ConfigError, AdapterUnavailable and StartError, each saying what to do."""
        text, self.config = self._read()
        if not self._replaces:
            await self._start(text, None)
            return
        check_replaceable(self.config)
        async with stand_in(admin_url(self.config)) as handover:
            await self._start(text, handover)

    async def _start(self, text: str, handover: Handover | None) -> None:
        if handover is None:
            check_ports(self.config)
        publish_secrets(self.run_dir, read_certificates(self.config), 1)
        await self._embedded.start(self.config)
        self.config = self._embedded.resolve(self.config)
        build_snapshot(self.config, 1, self._shelf.load)
        load_verdicts(self.config)
        await self.migrations.prepare(self.config)
        self.generation = 1
        publish_config(self.run_dir, text, self.path.resolve().parent, 1)
        publish_clusters(self.run_dir, self.config, 1)
        publish_routes(self.run_dir, self.config, DIALECTS, 1)
        bootstrap = self.run_dir / "bootstrap.json"
        built = build_bootstrap(self.config, str(self.run_dir / ENVOY), pyvoy_module(), filter_module())
        bootstrap.write_bytes(orjson.dumps(built))
        if (reason := why_full()) is not None:
            log.warning("there is no fast path, requests cost about twice as much: %s", reason)
        environment = worker_environment(self.run_dir)
        count = self._asked_workers or self.config.workers or os.cpu_count() or 1
        drain = self.config.limits.drain
        self._workers = [WorkerProcess(i, self.run_dir, bootstrap, environment, drain) for i in range(count)]
        for worker in self._workers:
            self._background.start(worker.run(), f"worker {worker.index}")
        self._background.start(watch_certificates(self.config, self.run_dir), "certificates")
        await asyncio.gather(*(worker.wait_ready() for worker in self._workers))
        if refused := await self._wait_routes(1):
            raise StartError(refused)
        if handover is not None:
            await handover.finish(self.config.limits.drain)
        await self.migrations.take(self.config)

    def _pids(self) -> list[int]:
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def _read(self) -> tuple[str, Config]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            problem = Problem("", None, f"is not UTF-8: byte {error.start} cannot be read")
            raise ConfigError([problem], str(self.path)) from error
        except OSError as error:
            raise ConfigError([Problem("", None, f"cannot be read: {error.strerror}")], str(self.path)) from error
        self.seen = text
        return text, read_config(text, self.path.resolve().parent, source=str(self.path))

    async def reload(self) -> str | None:
        """Read the configuration again and switch every worker to it; an unusable one changes nothing.

        Returns what is wrong with it, or None.
        """
        async with self._reloading:
            try:
                self.last_problem = await self._reload()
            except CrossfadeError as error:
                self.last_problem = str(error)
                log.error("the configuration was not reloaded, generation %d serves on: %s", self.generation, error)
            if self.last_problem is not None:
                self._failed_reloads += 1
            return self.last_problem

    async def _reload(self) -> str | None:
        text, config = self._read()
        self._embedded.check_unmoved(config)
        config = self._embedded.resolve(config)
        if config.listen != self.config.listen:
            raise ConfigError([Problem("listen", None, "ports are opened at start; restart serve for this change")])
        following = self.generation + 1
        snapshot = await asyncio.to_thread(build_snapshot, config, following, self._shelf.load)
        await self.migrations.prepare(config)
        self._shelf.keep_only(snapshot)
        publish_clusters(self.run_dir, config, following)
        publish_config(self.run_dir, text, self.path.resolve().parent, following)
        self.generation, self.config = following, config
        await self._wait_switched(following)
        # Routes last: a method goes through Python only once Python knows what to do with it.
        publish_routes(self.run_dir, config, DIALECTS, following)
        refused = await self._wait_routes(following)
        await self.migrations.take(config)
        if refused is None:
            log.info("generation %d serves", following)
        else:
            log.error("generation %d serves with older routes: %s", following, refused)
        return refused

    async def _wait_switched(self, generation: int) -> None:
        deadline = time.monotonic() + _SWITCH_SECONDS
        while time.monotonic() < deadline:
            stated = read_workers(self.run_dir)
            if all(
                stated.get(worker.pid or 0, {}).get("generation") == generation
                for worker in self._workers
                if worker.pid is not None
            ):
                return
            await asyncio.sleep(0.02)
        log.warning("not every worker has switched to generation %d within %g s", generation, _SWITCH_SECONDS)

    async def _wait_routes(self, generation: int) -> str | None:
        """Wait until every worker's Envoy has taken a generation's routes; what it refuses, or None."""
        names = [listener.name for listener in listeners_of(self.config)]
        deadline = time.monotonic() + _SWITCH_SECONDS
        while True:
            refused = None
            for worker in self._workers:
                try:
                    refused = refused or await worker.routes_refused(names, read_led(self.run_dir).version(generation))
                except httpx.HTTPError:
                    continue  # it has ended, and starts again with what is published
            if refused is None or time.monotonic() > deadline:
                return refused
            await asyncio.sleep(0.02)

    async def readiness(self) -> tuple[bool, str]:
        """Ready when no drain has begun and every worker serves."""
        if self.draining:
            return False, "draining"
        ready = await asyncio.gather(*(worker.is_ready() for worker in self._workers))
        waiting = [str(worker.index) for worker, one in zip(self._workers, ready, strict=True) if not one]
        # One worker starting again is no reason to send the others' traffic away.
        if len(waiting) == len(self._workers):
            return False, f"workers not ready: {', '.join(waiting)}"
        return True, "ready"

    def status(self) -> dict[str, object]:
        """Generation, last problem and workers."""
        stated = read_workers(self.run_dir)
        workers = [
            {"worker": one.index, "pid": one.pid, "restarts": max(one.restarts, 0), **stated.get(one.pid or 0, {})}
            for one in self._workers
        ]
        return {
            "generation": self.generation,
            "draining": self.draining,
            "last_problem": self.last_problem,
            "workers": workers,
            "collections": [
                {
                    "name": name,
                    "index_model": one.index_model,
                    "query_model": one.query_model,
                    "upstream": one.upstream,
                    "migrate_to": one.migrate.to if one.migrate is not None else None,
                }
                for name, one in self.config.collections.items()
            ],
            "observed": [
                {**key._asdict(), "queries": count} for key, count in count_observed(self.config.state).items()
            ],
        }

    async def metrics(self) -> bytes:
        """The exposition text of the whole process tree."""
        stated = read_workers(self.run_dir)
        texts: dict[str, str] = {}
        for worker in self._workers:
            try:
                texts[str(worker.index)] = (await worker.ask("GET", "/stats/prometheus")).text
            except httpx.HTTPError as error:
                log.warning("worker %d gives no statistics: %s", worker.index, error)
        gauges = {
            "crossfade_config_generation": ("Configurations taken since start.", float(self.generation)),
            "crossfade_config_reload_failures": ("Reloads refused since start.", float(self._failed_reloads)),
            "crossfade_config_valid": ("1 when the file on disk is the one serving.", float(self.last_problem is None)),
            "crossfade_draining": ("1 from SIGTERM on.", float(self.draining)),
        }
        workers = {
            str(one.index): (int(str(stated.get(one.pid or 0, {}).get("generation", 0))), max(one.restarts, 0))
            for one in self._workers
        }
        return render(
            [
                TallyCollector(self.run_dir),
                SupervisorCollector(gauges, workers),
                MigrationsCollector(await self._statuses()),
                EnvoyCollector(texts),
            ]
        )

    async def _statuses(self) -> Sequence[Status]:
        try:
            return await self.migrations.statuses()
        except MigrationStorageError as error:  # the other figures are wanted all the more
            log.error("%s", error)
            return []

    async def drain(self) -> None:
        """Turn readiness false, let calls in flight finish within limits.drain, and end the workers."""
        self.draining = True
        replaced = self.migrations.frozen
        if replaced:
            await self.migrations.freeze()  # for good: whoever takes over moves them on
        await asyncio.gather(*(worker.stop(replaced=replaced) for worker in self._workers))

    async def close(self) -> None:
        """End what still runs, at once, and remove the run directory."""
        self.draining = True
        await asyncio.gather(*(worker.end() for worker in self._workers))
        await self.migrations.stop()
        await self._background.stop()
        await self._embedded.stop()
        shutil.rmtree(self.run_dir, ignore_errors=True)
