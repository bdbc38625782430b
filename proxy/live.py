"""The configuration a worker serves with: loaded from the run directory at start, swapped when a newer one appears.

The supervisor writes `generation.json` ({"generation", "config"}) and `migrations.json` (views) by rename; every
worker polls them, loads the new snapshot in a thread of its own, swaps it in one assignment, and says so in
`worker-PID.json`. A generation that does not load leaves the old one serving. Of each migration a worker states the
oldest version that anything in it still acts on: a write keeps the version it began with (`Flights`).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import orjson

from crossfade.adapters.base import Adapter, AdapterError
from crossfade.adapters.store import CARD, load_adapter

from .errors import AdapterUnavailable, CrossfadeError
from .grown import GrownShelf
from .journals import Journals
from .leading import LED, read_led
from .loading import read_config
from .migration.flights import Flights
from .migration.record import MigrationView
from .migration.sample import sample_folder
from .routing import AdapterKey, Snapshot, build_snapshot, move_migrations
from .samples import SampleShelf
from .telemetry import write_atomically
from .term import read_term
from .verdicts import load_verdicts

GENERATION = "generation.json"
MIGRATIONS = "migrations.json"
RUN_DIR = "CROSSFADE_RUN_DIR"  # the environment variable that tells a worker where it is
_POLL_SECONDS = 0.05

log = logging.getLogger("crossfade.live")


class AdapterShelf:
    """Loaded adapters by path and version, so that a reload reads only what changed."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, str, str, int, int], Adapter] = {}

    def load(self, key: AdapterKey) -> Adapter:
        """Load one adapter; raises AdapterUnavailable."""
        try:
            identity = (key.path, key.model, key.index_model, *_version(key.path))
            if identity not in self._kept:
                self._kept[identity] = load_adapter(key.path, source_model=key.model, target_model=key.index_model)
            return self._kept[identity]
        except (OSError, AdapterError) as error:
            raise AdapterUnavailable(
                collection=key.collection, field=key.field, model=key.model, path=key.path, reason=str(error)
            ) from error

    def keep_only(self, snapshot: Snapshot) -> None:
        """Let go of what a snapshot does not use."""
        used = {id(adapter) for adapter in snapshot.adapters.values()}
        self._kept = {identity: adapter for identity, adapter in self._kept.items() if id(adapter) in used}


def _version(path: Path) -> tuple[int, int]:
    """What changes when an adapter is replaced; nothing where there is none, which loading explains better."""
    try:
        stat = (path / CARD).stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_ino


def _ids(views: Mapping[str, MigrationView]) -> list[str]:
    return [view.id for view in views.values()]


class Live:
    """One process's current snapshot; reading `snapshot` is one attribute, swapping it one assignment."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._shelf = AdapterShelf()
        self._samples = SampleShelf()
        self._grown = GrownShelf()
        self.flights = Flights()
        self.journals = Journals()
        self._seen = -1
        self._problem: str | None = None
        self._stated: object = None
        # Before they are read: what is published meanwhile is then read again.
        self._published, self._moved = self._stamp(GENERATION), self._stamp(MIGRATIONS)
        self._led = self._stamp(LED)
        self.term = read_term(run_dir)
        self.snapshot = self._load()
        self._acknowledge()
        threading.Thread(target=self._watch, name="crossfade-live", daemon=True).start()

    def _load(self) -> Snapshot:
        stated = orjson.loads((self.run_dir / GENERATION).read_bytes())
        self._seen = stated["generation"]
        config = read_config(Path(stated["config"]).read_text(), Path(stated["base"]))
        self.journals.prepare(config)
        views = self._read_migrations()
        folder = sample_folder(config)
        samples, grown = self._samples.load(folder, _ids(views)), self._grown.load(folder, views.values())
        snapshot = build_snapshot(config, self._seen, self._shelf.load, views, samples, grown)
        self._shelf.keep_only(snapshot)
        return replace(snapshot, verdicts=load_verdicts(config), epoch=read_led(self.run_dir).epoch)

    def _watch(self) -> None:
        while self.run_dir.exists():
            time.sleep(_POLL_SECONDS)
            try:
                self._look()
            except (CrossfadeError, OSError, ValueError) as error:
                log.error(
                    "generation %s does not load, generation %s serves on: %s", self._seen, self.generation, error
                )
                self._problem = str(error)
            try:
                self._acknowledge()
            except OSError as error:
                log.warning("cannot write into %s: %s", self.run_dir, error)

    def _look(self) -> None:
        """Take up what was published since the last look."""
        moved, folder = self._stamp(MIGRATIONS), sample_folder(self.snapshot.config)
        known = _ids(self.snapshot.migrations)
        if moved != self._moved or self._samples.is_stale(folder, known) or self._grown.is_stale(folder, known):
            self._moved = moved
            views = self._read_migrations()
            samples, grown = self._samples.load(folder, _ids(views)), self._grown.load(folder, views.values())
            self.snapshot = move_migrations(self.snapshot, views, samples, grown)
        self.term = read_term(self.run_dir)
        led = self._stamp(LED)
        if led != self._led:
            self._led = led
            self.snapshot = replace(self.snapshot, epoch=read_led(self.run_dir).epoch)
        published = self._stamp(GENERATION)
        if published != self._published:
            self._published = published
            self.snapshot = self._load()
            self._problem = None

    def _stamp(self, name: str) -> tuple[int, int]:
        """What tells one published file from the next; an inode alone is soon used again."""
        try:
            stat = (self.run_dir / name).stat()
        except FileNotFoundError:
            return 0, 0
        return stat.st_mtime_ns, stat.st_ino

    def _read_migrations(self) -> dict[str, MigrationView]:
        path = self.run_dir / MIGRATIONS
        views = orjson.loads(path.read_bytes()) if path.exists() else []
        return {view["collection"]: MigrationView.model_validate(view) for view in views}

    @property
    def generation(self) -> int:
        return self.snapshot.generation

    def _acknowledge(self) -> None:
        """Tell the supervisor what this process serves with, whenever that has changed."""
        snapshot = self.snapshot
        versions = {view.id: view.version for view in snapshot.migrations.values()}
        epoch, strange = self.flights.oldest_strange(snapshot.epoch, versions)
        stated = {
            "pid": os.getpid(),
            "generation": snapshot.generation,
            "error": self._problem,
            "epoch": epoch,
            "migrations": self.flights.oldest(versions),
            "strange": strange,
        }
        if stated != self._stated:
            write_atomically(self.run_dir / f"worker-{os.getpid()}.json", orjson.dumps(stated))
            self._stated = stated
