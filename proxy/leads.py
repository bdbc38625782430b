"""The supervisor's side of leading.py: begins epochs, and finds out when those before have come to an end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx
import orjson

from crossfade.backends.dialect import Dialect

from .config import Config
from .envoy import listeners_of
from .envoy_admin import all_envoys
from .envoy_clusters import cluster_name
from .leading import Led, read_led, write_led
from .live import GENERATION
from .rundir import publish_clusters, publish_routes, read_workers

_CLUSTERS_SECONDS: Final = 10.0
_QUIET_SECONDS: Final = 0.25  # between a worker's decision and the moment when Envoy counts the request

log = logging.getLogger("crossfade.leads")


class Leads:
    """Of one run directory.

    `config` gives the configuration of the published generation, `serving` the process ids of the workers that run.
    """

    def __init__(
        self,
        run_dir: Path,
        config: Callable[[], Config],
        dialects: dict[str, Dialect],
        serving: Callable[[], Sequence[int]],
    ) -> None:
        self._run_dir, self._config, self._dialects, self._serving = run_dir, config, dialects, serving
        self._quiet_since: float | None = None
        self._drained = 0  # the newest epoch of which it is known that nothing older is under way

    async def lead(self, names: Mapping[str, str]) -> None:
        """Lead these names from now on, which begins an epoch when they are others than before."""
        led = read_led(self._run_dir)
        if led.names == names:
            return
        if not (self._run_dir / GENERATION).exists():  # no worker has started, and none before knew otherwise
            write_led(self._run_dir, Led(names))
            return
        following = led.moved(names, drained=self._drained == led.epoch)
        # Clusters first: nothing may be sent to one that Envoy does not have. A reload meanwhile knows none of them.
        published = -1
        while published != (generation := self._generation()):
            publish_clusters(self._run_dir, self._config(), generation, following)
            await self._wait_clusters(following.version(generation))
            published = generation
        write_led(self._run_dir, following)
        publish_routes(self._run_dir, self._config(), self._dialects, generation)
        self._quiet_since = None
        log.info("epoch %d: all requests of %s go through Python", following.epoch, sorted(names) or "no collection")

    def _generation(self) -> int:
        generation: int = orjson.loads((self._run_dir / GENERATION).read_bytes())["generation"]
        return generation

    async def _wait_clusters(self, version: str) -> None:
        deadline = time.monotonic() + _CLUSTERS_SECONDS
        while time.monotonic() < deadline:
            if not await self._find_untaken(["cluster_manager.cds"], version):
                return
            await asyncio.sleep(0.02)
        log.warning("not every worker has taken the clusters of version %s within %g s", version, _CLUSTERS_SECONDS)

    async def _find_untaken(self, resources: list[str], version: str) -> list[str]:
        untaken: list[str] = []
        for envoy in all_envoys(self._run_dir):
            try:
                untaken += await envoy.find_untaken(resources, version)
            except httpx.ConnectError:
                continue  # it has ended, and starts again with what is published
            except httpx.HTTPError as error:
                untaken.append(str(error))
        return untaken

    async def have_drained(self) -> bool:
        """Whether every worker serves the present epoch, and nothing of an earlier one is under way anywhere."""
        led = read_led(self._run_dir)
        if self._drained == led.epoch:
            return True
        if not await self._is_quiet(led):
            self._quiet_since = None
            return False
        now = time.monotonic()
        if self._quiet_since is None:
            self._quiet_since = now
        if now - self._quiet_since < _QUIET_SECONDS:
            return False
        self._drained = led.epoch
        return True

    async def _is_quiet(self, led: Led) -> bool:
        stated = await asyncio.to_thread(read_workers, self._run_dir)
        for pid in self._serving():
            if pid not in stated or int(str(stated[pid].get("epoch", 0))) < led.epoch:
                return False
        config = self._config()
        generation = self._generation()
        resources = ["cluster_manager.cds", *(f"http.{one.name}.rds.{one.name}" for one in listeners_of(config))]
        if await self._find_untaken(resources, led.version(generation)):
            return False
        before = {
            cluster_name(name, transport, epoch)
            for name in config.upstreams
            for transport in ("grpc", "rest")
            for epoch in led.before
        }
        for envoy in all_envoys(self._run_dir):
            try:
                if await envoy.count_requests(before):
                    return False
            except httpx.ConnectError:
                continue
            except httpx.HTTPError:
                return False
        return True
