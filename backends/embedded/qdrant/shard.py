"""An open collection: its shard, its configuration, and the order of its writes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from qdrant_client import grpc as pb

from .config import dense_params
from .errors import NotFound, engine_errors


@dataclass
class Collection:
    """One collection as this process holds it open.

    Reads go straight to the shard, in any thread. Writes take `writing`, and while a copy of the shard is being
    indexed they are also kept in `pending`, to be repeated on that copy before it takes the shard's place.
    """

    name: str
    folder: Path
    shard: Any
    config: pb.CollectionConfig
    writing: threading.RLock = field(default_factory=threading.RLock)
    updates: int = 0
    dirty: bool = False
    dropped: bool = False
    written_at: float = field(default_factory=monotonic)
    pending: list[Any] | None = None

    def update(self, operation: Any) -> int:
        """Apply one of the engine's update operations and return its number since the start.

        When it returns, the operation is in the shard's write-ahead log: a killed process does not lose it.
        """
        with self.writing, engine_errors():
            self._check_there()
            self.shard.update(operation)
            if self.pending is not None:
                self.pending.append(operation)
            self.dirty = True
            self.updates += 1
            self.written_at = monotonic()
            return self.updates

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call one of the engine's reading methods, on the shard that is current.

        A shard that was replaced during the call is asked again in its successor.
        """
        shard = self.shard
        with engine_errors():
            try:
                return getattr(shard, method)(*arguments)
            except Exception:
                self._check_there()
                if shard is self.shard:
                    raise
                return getattr(self.shard, method)(*arguments)

    def _check_there(self) -> None:
        if self.dropped:
            raise NotFound(f"Collection `{self.name}` doesn't exist!")

    def flush(self) -> None:
        """Write what is in memory to the segments, so that the next start replays less."""
        with self.writing, engine_errors():
            if self.dirty and not self.dropped:
                self.shard.flush()
                self.dirty = False

    def drop(self) -> None:
        """Close the shard for good; later calls raise NotFound."""
        with self.writing:
            self.dropped = True
            self.shard.close()

    def unindexed_kb(self) -> float:
        """Size of the dense vectors that are searched without an index, in KiB."""
        info = self.ask("info")
        vectors = list(dense_params(self.config.params).values())
        if not vectors or not info.points_count:
            return 0.0
        mean_size = sum(vector.size for vector in vectors) / len(vectors)
        lacking = max(info.points_count * len(vectors) - info.indexed_vectors_count, 0)
        return float(lacking * mean_size * 4 / 1024)
