"""The configuration a worker serves with: loaded from the run directory at start, swapped when a newer one appears.

The supervisor writes `generation.json` ({"generation", "config"}) by rename; every worker polls it, loads the new
snapshot in a thread of its own, swaps it in one assignment, and says so in `worker-PID.json`. A generation that does
not load leaves the old one serving.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import orjson

from crossfade.adapters.base import Adapter, AdapterError
from crossfade.adapters.store import CARD, load_adapter

from .errors import AdapterUnavailable, CrossfadeError
from .loading import read_config
from .routing import AdapterKey, Snapshot, build_snapshot
from .telemetry import write_atomically

GENERATION = "generation.json"
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


class Live:
    """One process's current snapshot; reading `snapshot` is one attribute, swapping it one assignment."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._shelf = AdapterShelf()
        self._seen = -1
        self._published = self._stamp()  # before it is read: what is published meanwhile is then read again
        self.snapshot = self._load()
        self._acknowledge(None)
        threading.Thread(target=self._watch, name="crossfade-live", daemon=True).start()

    def _load(self) -> Snapshot:
        stated = orjson.loads((self._run_dir / GENERATION).read_bytes())
        self._seen = stated["generation"]
        config = read_config(Path(stated["config"]).read_text(), Path(stated["base"]))
        snapshot = build_snapshot(config, self._seen, self._shelf.load)
        self._shelf.keep_only(snapshot)
        return snapshot

    def _watch(self) -> None:
        while self._run_dir.exists():
            time.sleep(_POLL_SECONDS)
            try:
                current = self._stamp()
                if current == self._published:
                    continue
                self._published = current
                self.snapshot = self._load()
                self._acknowledge(None)
            except (CrossfadeError, OSError, ValueError) as error:
                log.error(
                    "generation %s does not load, generation %s serves on: %s", self._seen, self.generation, error
                )
                self._acknowledge(str(error))

    def _stamp(self) -> tuple[int, int]:
        """What tells one published file from the next; an inode alone is soon used again."""
        stat = (self._run_dir / GENERATION).stat()
        return stat.st_mtime_ns, stat.st_ino

    @property
    def generation(self) -> int:
        return self.snapshot.generation

    def _acknowledge(self, error: str | None) -> None:
        stated = {"pid": os.getpid(), "generation": self.snapshot.generation, "error": error}
        write_atomically(self._run_dir / f"worker-{os.getpid()}.json", orjson.dumps(stated))
