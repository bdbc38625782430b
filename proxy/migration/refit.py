"""Let the adapter learn from what the re-encode has finished: the controller's side.

Pairs of new and old vectors are kept as batches are brought over (sample.py: a random part of the points, in a file
that survives a kill). Whenever there are half as many again as the serving adapter was fitted on, it is fitted again
beside the configured one, which nobody touches; workers take up whichever was fitted last (grown.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from crossfade.adapters.store import CARD
from crossfade.backends.index import IndexRefusedError

from .places import grown_path
from .record import Spec
from .refitting import Job
from .sample import Sampler

_LOOK_SECONDS: Final = 1.0
_FEWEST: Final = 200  # pairs: fewer are not worth a fit
_GROWN: Final = 1.5  # so many times the pairs of the last fit
_LAST: Final = 1.1  # the same once nothing is left to re-encode

log = logging.getLogger("crossfade.migration.refit")


@dataclass(frozen=True, slots=True)
class Refitting:
    """What is fitted again: the configured adapter, on at most so many pairs; `state` has the observed queries."""

    adapter: Path
    most: int
    state: Path
    observes: bool


def pairs_path(folder: Path, migration: str) -> Path:
    """The pairs that a migration keeps."""
    return folder / f"pairs-{migration}.safetensors"


def forget_refit(folder: Path, migration: str, *, adapter: bool) -> None:
    """Remove the pairs, and the adapter too when nobody is served by it any more."""
    pairs_path(folder, migration).unlink(missing_ok=True)
    if adapter:
        shutil.rmtree(grown_path(folder, migration), ignore_errors=True)


class Refit:
    """The fits of one migration; `tell` is told the pairs of each."""

    def __init__(
        self,
        migration: str,
        spec: Spec,
        settings: Refitting,
        sampler: Sampler,
        folder: Path,
        tell: Callable[[int], Awaitable[None]],
    ) -> None:
        self._id, self._spec, self._settings = migration, spec, settings
        self._sampler, self._folder, self._tell = sampler, folder, tell
        self._tried = 0  # pairs of the last attempt: one that failed waits for as many more as one that did not

    async def run(self, is_copied: Callable[[], bool], count: Callable[[], Awaitable[int]]) -> None:
        """Fit whenever it is worth it, until cancelled; `count` gives the number of documents of the old index."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self.is_due(copied=is_copied()):
                self._tried = len(self._sampler)
                try:
                    await self._fit(await count())
                except IndexRefusedError as error:  # the copying meets it too, and says whether it can go on
                    log.warning("%s: the adapter is not fitted again: %s", self._id, error)

    def is_due(self, *, copied: bool) -> bool:
        """Whether there are enough more pairs than the serving adapter was fitted on."""
        size = len(self._sampler)
        return size >= max(_FEWEST, (_LAST if copied else _GROWN) * max(self._tried, self._known()))

    def _known(self) -> int:
        """The pairs of the adapter that serves: the configured one, or what grew out of it."""
        places = (self._settings.adapter, grown_path(self._folder, self._id))
        return max(_count_pairs(place) for place in places)

    async def _fit(self, corpus: int) -> None:
        try:
            self._sampler.write()
            code, told, complaint = await _run(self._job(corpus))
        except OSError as error:
            code, told, complaint = 1, "", str(error)
        if code or not told.strip().isdigit():
            reason = complaint.strip().rsplit("\n", 1)[-1] or f"it ended with {code}"
            log.warning("%s: the adapter is not fitted again on %d pairs: %s", self._id, self._tried, reason)
            return
        log.info("%s: the adapter is fitted again, on %s pairs", self._id, told.strip())
        await self._tell(int(told))

    def _job(self, corpus: int) -> Job:
        spec, settings = self._spec, self._settings
        return Job(
            source=str(settings.adapter),
            target=str(grown_path(self._folder, self._id)),
            pairs=str(pairs_path(self._folder, self._id)),
            corpus=corpus,
            state=str(settings.state),
            collection=spec.collection,
            field=spec.field,
            model=spec.to_model,
            observes=settings.observes,
        )


async def _run(job: Job) -> tuple[int, str, str]:
    """Run a job to its end; cancelled, it is killed: it replaces an adapter whole or not at all."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "crossfade.proxy.migration.refitting", job.write()),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    try:
        told, error = await child.communicate()
    except asyncio.CancelledError:
        child.kill()
        await child.wait()
        raise
    return child.returncode or 0, told.decode(errors="replace"), error.decode(errors="replace")


def _count_pairs(place: Path) -> int:
    """How many pairs an adapter was fitted on, 0 where none can be read."""
    try:
        return int(orjson.loads((place / CARD).read_bytes())["pairs"]["count"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return 0
