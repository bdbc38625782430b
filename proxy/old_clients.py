"""Clients that still ask a collection with another model than the new one, remembered across restarts of `serve`.

A migration must not be completed while they come, and a restart must not make them forgotten: when they came last, and
how often, stands in a small file beside the journal.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import orjson

from .telemetry import Tally, write_atomically

_SECONDS: Final = 900.0  # such queries within so many seconds stand against completing

log = logging.getLogger("crossfade.migration")


class OldClients:
    """What was told by this run's tallies and by those of earlier runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = _read(path)
        self._seen = self._before
        self._saved = self._before

    def take(self, tally: Tally) -> None:
        """Take note of this run's tally as it is now."""
        seen = {collection: dict(models) for collection, models in self._before.items()}
        for (collection, model), last in tally.last_old.items():
            models = seen.setdefault(collection, {})
            before, count = models.get(model, (0.0, 0))
            models[model] = max(before, last), count + tally.old_queries[collection, model]
        self._seen = seen

    def save(self) -> None:
        """Write what has changed; a file that cannot be written is only logged, for this run still knows."""
        if self._seen == self._saved:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, orjson.dumps(self._seen))
        except OSError as error:
            log.warning("cannot write %s: %s; a restart would forget which models clients still use", self._path, error)
            return
        self._saved = self._seen

    def late(self, collection: str, now: float) -> Mapping[str, tuple[float, int]]:
        """Of each model that was asked with lately: how many seconds ago at last, and how often ever."""
        models = self._seen.get(collection, {})
        return {model: (now - last, count) for model, (last, count) in models.items() if now - last < _SECONDS}


def _read(path: Path) -> dict[str, dict[str, tuple[float, int]]]:
    try:
        data = orjson.loads(path.read_bytes())
        return {
            str(collection): {str(model): (float(last), int(count)) for model, (last, count) in models.items()}
            for collection, models in data.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("cannot read %s: %s; which models clients used before this start is not known", path, error)
        return {}
