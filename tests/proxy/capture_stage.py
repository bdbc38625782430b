"""A running Crossfade whose collection `docs` is under migration, in front of an upstream that looks into the journal
whenever it is called. Nothing is copied: the test itself holds the lock of the controllers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossfade.backends.index import PointId
from crossfade.proxy.config import Config
from crossfade.proxy.leads import Leads
from crossfade.proxy.loading import read_config
from crossfade.proxy.migration.keys import read_key
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.presence import presence_of
from crossfade.proxy.migration.record import Migration, Spec
from crossfade.proxy.migration.store import Store
from crossfade.proxy.rundir import read_workers
from crossfade.proxy.supervisor import DIALECTS
from tests.proxy.serving import Serving, start_serving, wait_until
from tests.proxy.toy_adapters import save_toy

SETTINGS = """
models:
  old: {dim: 16}
  new: {dim: 24, encoder: {python: "tests.proxy.encoding_function:encode"}}
collections:
  docs:
    index_model: old
    query_model: new
    adapters: {new: adapters/new}
    text: payload.text
    migrate: {to: new, writes: WRITES}
  others: {index_model: old}
state: STATE
"""
SPEC = Spec(collection="docs", target="docs--new", from_model="old", to_model="new", dim=24, text="payload.text")
ALL = "*"
Marked = tuple[frozenset[PointId | str], frozenset[PointId | str]]


def run_dir_of(serving: Serving) -> Path:
    """The run directory of a running Crossfade, as its workers were told."""
    environment = Path(f"/proc/{serving.worker_pids()[0]}/environ").read_bytes().split(b"\0")
    (found,) = (one for one in environment if one.startswith(b"CROSSFADE_RUN_DIR="))
    return Path(found.partition(b"=")[2].decode())


@dataclass
class Looked:
    """What the journal held when the upstream was called: points with open writes, and the others with marks."""

    method: str
    open: frozenset[PointId | str]
    closed: frozenset[PointId | str]


@dataclass
class Stage:
    """See the module. `looks` has one entry for each call of the upstream."""

    serving: Serving
    run_dir: Path
    config: Config
    store: Store
    looks: list[Looked] = field(default_factory=list)
    record: Migration | None = None

    @property
    def journal(self) -> Path:
        return self.config.state / "migrations" / "journal.sqlite"

    def migrate(self, spec: Spec = SPEC) -> None:
        """Begin a migration that captures, in place of the one before."""
        if self.record is not None:
            self.change(state=State.CANCELLED)
        self.record = asyncio.run(self.store.plan(spec, "test", ""))
        self.change(state=State.CAPTURING)
        self.change(state=State.BACKFILLING)

    def change(self, **changes: Any) -> None:
        """Change the migration, and wait until every worker acts on it and nothing of before is under way."""
        assert self.record is not None  # `migrate` comes first
        record = asyncio.run(self.store.change(self.record.id, lambda one: one.model_copy(update=changes)))
        leads = Leads(self.run_dir, lambda: self.config, DIALECTS, self.serving.worker_pids)
        wait_until(lambda: self._acts(record), 20, f"every worker acts on {record.state} of version {record.version}")
        if record.state is not State.CANCELLED:
            wait_until(lambda: asyncio.run(leads.have_drained()), 20, "every worker leads the collection")
        self.record = record

    def _acts(self, record: Migration) -> bool:
        stated: Any = read_workers(self.run_dir)
        gone = record.state is State.CANCELLED
        return all(
            stated.get(pid, {}).get("migrations", {}).get(record.id) == (None if gone else record.version)
            for pid in self.serving.worker_pids()
        )

    def look(self, method: str) -> None:
        """Remember what the journal holds at this moment."""
        self.looks.append(Looked(method, *self.marked()))

    def marked(self) -> Marked:
        """Points with open writes, and points of which every write has ended; "*" is every point."""
        query = (
            "SELECT m.key, MAX(o.seq IS NOT NULL AND o.settles IS NULL) FROM crossfade_marks m "
            "LEFT JOIN crossfade_open_writes o ON o.seq = m.seq GROUP BY m.key"
        )
        with sqlite3.connect(self.journal) as connection:
            rows = connection.execute(query).fetchall()
        named = [(key if key == ALL else read_key(key), is_open) for key, is_open in rows]
        return frozenset(key for key, yes in named if yes), frozenset(key for key, yes in named if not yes)

    def settles(self) -> list[float]:
        """When writes of unknown end count as ended."""
        with sqlite3.connect(self.journal) as connection:
            rows = connection.execute("SELECT settles FROM crossfade_open_writes WHERE settles IS NOT NULL").fetchall()
        return [settles for (settles,) in rows]

    def forget(self) -> None:
        """Empty the journal, and what was looked at."""
        self.looks.clear()
        with sqlite3.connect(self.journal, timeout=30) as connection:
            for table in ("marks", "natives", "open_writes"):
                connection.execute(f"DELETE FROM crossfade_{table}")

    def natives(self) -> list[tuple[PointId, bytes, bytes]]:
        """New-model vectors that were journalled: point, what was stored, the vector."""
        with sqlite3.connect(self.journal) as connection:
            rows = connection.execute("SELECT key, stored, vector FROM crossfade_natives ORDER BY seq, key").fetchall()
        return [(read_key(key), stored, vector) for key, stored, vector in rows]


def wait_closed(stage: Stage, ids: Sequence[PointId | str]) -> None:
    """Wait until these points, and no others, have marks, all of writes that have ended."""
    wait_until(lambda: stage.marked() == (frozenset(), frozenset(ids)), 5, f"marks of {ids} are closed")


@contextmanager
def open_stage(
    directory: Path, upstream: str, writes: str = "closed", state: Path | None = None, workers: int = 1
) -> Iterator[Stage]:
    """Start Crossfade with a migration that captures."""
    save_toy(directory / "adapters" / "new")
    state = state or directory / "state"
    (state / "migrations").mkdir(parents=True, exist_ok=True)
    store = Store(f"sqlite:///{state / 'migrations' / 'store.sqlite'}")
    presence = presence_of(store.url)
    assert presence.take()
    settings = SETTINGS.replace("WRITES", writes).replace("STATE", str(state))
    with start_serving(directory, upstream, settings, workers) as serving:
        config = read_config(serving.config.read_text(), serving.config.parent)
        stage = Stage(serving, run_dir_of(serving), config, store)
        stage.migrate()
        yield stage
    presence.leave()
    store.shut()
