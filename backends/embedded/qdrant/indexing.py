"""Building HNSW indexes beside the running server.

The engine's `optimize()` holds the interpreter while it works, many seconds for 10,000 vectors, so it never runs in
the serving process. A collection that has grown past its indexing threshold and has not been written to for a moment
is copied; a child process indexes the copy; writes that arrive meanwhile are repeated on it; then the catalog is
switched to the copy. A crash at any point leaves the catalog naming one whole shard.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from time import monotonic
from typing import Any

from google.protobuf import json_format
from qdrant_client import grpc as pb

from .config import engine_config
from .engine import edge
from .shard import Collection
from .store import Store

log = logging.getLogger(__name__)

QUIET_SECONDS = 2.0
PR_SET_PDEATHSIG = 1


class Indexer:
    """Indexes the collections of a store that need it, one at a time; `run` is a thread's work."""

    def __init__(self, store: Store, stopping: threading.Event, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._store = store
        self._stopping = stopping
        self._quiet = quiet_seconds
        self._tried: dict[Path, int] = {}

    def run(self) -> None:
        """Look for work until the server stops."""
        while not self._stopping.wait(self._quiet / 2):
            for collection in self._store.collections():
                try:
                    if self.due(collection):
                        self.index(collection)
                except Exception:
                    log.exception("collection `%s` could not be indexed; it is searched without", collection.name)

    def due(self, collection: Collection) -> bool:
        """Whether a collection is past its threshold, quiet, and changed since it was last tried."""
        if collection.dropped or monotonic() - collection.written_at < self._quiet:
            return False
        if self._tried.get(collection.folder) == collection.updates:
            return False
        threshold = collection.config.optimizer_config.indexing_threshold
        return threshold > 0 and collection.unindexed_kb() > threshold and wants_index(collection.config)

    def index(self, collection: Collection) -> None:
        """Index a copy of the shard in a child process and put it in the shard's place."""
        fresh = collection.folder.parent / uuid.uuid4().hex
        with collection.writing:
            collection.flush()
            shutil.copytree(collection.folder, fresh)
            collection.pending = []
            self._tried[collection.folder] = collection.updates
        try:
            if self._optimize(fresh, collection.config):
                self._swap(collection, fresh)
        finally:
            collection.pending = None
            if collection.folder != fresh:
                shutil.rmtree(fresh, ignore_errors=True)

    def _optimize(self, folder: Path, config: pb.CollectionConfig) -> bool:
        """Run the child; False when the server stops first. Raises RuntimeError when the child fails."""
        child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert child.stdin is not None
        child.stdin.write(json_format.MessageToJson(config))
        child.stdin.close()
        while child.poll() is None:
            if self._stopping.wait(0.1):
                child.kill()
                child.wait()
                return False
        if child.returncode != 0:
            complaint = child.stderr.read() if child.stderr is not None else ""
            raise RuntimeError(f"indexing process ended with {child.returncode}: {complaint.strip()[-500:]}")
        return True

    def _swap(self, collection: Collection, folder: Path) -> None:
        shard = edge.EdgeShard.load(str(folder))
        with collection.writing:
            for operation in collection.pending or ():
                shard.update(operation)
            if collection.dropped:
                shard.close()
                return
            shard.flush()
            old_shard, old_folder = collection.shard, collection.folder
            self._store.move(collection, folder, shard)
            self._tried[folder] = collection.updates if not collection.pending else -1
        old_shard.close()
        self._tried.pop(old_folder, None)
        shutil.rmtree(old_folder, ignore_errors=True)


def wants_index(config: pb.CollectionConfig) -> bool:
    """Whether any dense vector has an HNSW graph (m above 0) or is quantized; else scanning is what was asked for."""
    params = config.params.vectors_config
    vectors = [params.params] if params.HasField("params") else list(params.params_map.map.values())
    return config.HasField("quantization_config") or any(
        vector.HasField("quantization_config")
        or (vector.hnsw_config.m if vector.hnsw_config.HasField("m") else config.hnsw_config.m) > 0
        for vector in vectors
    )


def die_with_parent() -> None:
    """Ask Linux to end this process when the one that started it does."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main(arguments: list[str]) -> None:
    """The child: index the shard in the given folder, configured by the JSON on standard input."""
    die_with_parent()
    os.nice(10)
    config: Any = json_format.Parse(sys.stdin.read(), pb.CollectionConfig())
    shard = edge.EdgeShard.load(arguments[0], engine_config(config))
    shard.optimize()
    shard.close()


if __name__ == "__main__":
    main(sys.argv[1:])
