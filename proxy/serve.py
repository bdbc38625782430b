"""`crossfade serve`: the supervisor with its admin listener, signals and file watch, from start to exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from watchfiles import awatch

from .admin import build_admin
from .background import Background
from .config import Log
from .errors import CrossfadeError
from .logs import start_logging
from .processes import StartError
from .supervisor import Supervisor

log = logging.getLogger("crossfade.serve")


def serve(config_path: Path, workers: int | None = None, *, replaces: bool = False) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. `replaces`: in place of one that serves it already.

    The first signal drains, a second one ends everything at once; SIGHUP or a change of the file reloads.
    """
    return asyncio.run(_serve(config_path, workers, replaces))


async def _serve(config_path: Path, workers: int | None, replaces: bool) -> int:
    start_logging(Log())
    supervisor = Supervisor(config_path, workers, replaces=replaces)
    background = Background()
    ending = _Ending()
    ending.listen()
    try:
        await supervisor.start()
        start_logging(supervisor.config.log)
        admin = _build_server(supervisor)
        background.start(admin.serve(), "admin listener")
        background.start(_watch(supervisor), "configuration watch")
        background.start(_reload_on(ending.reload, supervisor), "reload on SIGHUP")
        log.info("serving %s with generation %d", config_path, supervisor.generation)
        await ending.first.wait()
        log.info("draining; a second signal ends at once")
        await ending.unless_second(supervisor.drain())
        return 0
    except (CrossfadeError, StartError) as error:
        log.error("%s", error)
        return 1
    finally:
        await background.stop()
        await supervisor.close()


class _Ending:
    """Signals as events."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self.reload = asyncio.Event()

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    def _end(self) -> None:
        (self.second if self.first.is_set() else self.first).set()

    async def unless_second(self, work: Coroutine[object, object, None]) -> None:
        """Do work until it is done or a second signal comes."""
        doing = asyncio.ensure_future(work)
        impatient = asyncio.ensure_future(self.second.wait())
        await asyncio.wait((doing, impatient), return_when=asyncio.FIRST_COMPLETED)
        for task in (doing, impatient):
            task.cancel()


def _build_server(supervisor: Supervisor) -> uvicorn.Server:
    address = supervisor.config.listen.admin
    settings = uvicorn.Config(
        build_admin(supervisor),
        host=address.host,
        port=address.port,
        log_level="warning",
        access_log=False,
        lifespan="off",
    )
    return _AdminServer(settings)


class _AdminServer(uvicorn.Server):
    """uvicorn without its signal handlers: they are the supervisor's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _watch(supervisor: Supervisor) -> None:
    """Reload when the file changes; its folder is watched, because editors and Kubernetes replace files."""
    async for _ in awatch(supervisor.path.absolute().parent, recursive=False, debounce=50, step=20):
        try:
            current = supervisor.path.read_text()
        except (OSError, UnicodeDecodeError):
            continue  # between a removal and what replaces it, or half written
        if current != supervisor.seen:
            await supervisor.reload()


async def _reload_on(event: asyncio.Event, supervisor: Supervisor) -> None:
    while True:
        await event.wait()
        event.clear()
        await supervisor.reload()
