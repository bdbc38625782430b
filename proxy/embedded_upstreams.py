"""Upstreams that `serve` starts itself (`embedded: ./data`): a child process each, on free local ports."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys

from .config import Config, Upstream
from .config_values import Address, Origin
from .errors import ConfigError, Problem

_PROGRAMS = {"qdrant": "crossfade.backends.embedded", "milvus": "crossfade.backends.embedded.milvus"}
_START_SECONDS = 60.0

log = logging.getLogger("crossfade.embedded")


class EmbeddedUpstreams:
    """The running embedded upstreams, by name."""

    def __init__(self) -> None:
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._addresses: dict[str, tuple[Upstream, Address, Origin]] = {}

    async def start(self, config: Config) -> None:
        """Start those of a configuration that do not run yet; raises ConfigError when one does not come up."""
        for name, upstream in config.upstreams.items():
            if upstream.embedded is not None and name not in self._addresses:
                await self._start(name, upstream)

    async def _start(self, name: str, upstream: Upstream) -> None:
        grpc, rest = _free_port(), _free_port()
        if upstream.kind == "milvus":
            rest = grpc  # Milvus has both on one port
        command = [sys.executable, "-m", _PROGRAMS[upstream.kind], "--data", str(upstream.embedded)]
        command += ["--grpc-port", str(grpc), "--rest-port", str(rest), "--with-parent"]
        if upstream.api_key is not None:
            command += ["--api-key", upstream.api_key.get_secret_value()]
        process = await asyncio.create_subprocess_exec(*command, start_new_session=True)
        self._processes[name] = process
        if not await _answers(process, grpc) or not await _answers(process, rest):
            path = f"upstreams.{name}.embedded"
            raise ConfigError([Problem(path, None, f"the database in {upstream.embedded} does not start; see its log")])
        self._addresses[name] = (
            upstream,
            Address("127.0.0.1", grpc),
            Origin("http", Address("127.0.0.1", rest)),
        )
        log.info("embedded upstream %s serves %s (gRPC %d, REST %d)", name, upstream.embedded, grpc, rest)

    def resolve(self, config: Config) -> Config:
        """The configuration with the embedded upstreams' addresses filled in."""
        upstreams = {
            name: upstream.model_copy(update={"grpc": self._addresses[name][1], "rest": self._addresses[name][2]})
            if upstream.embedded is not None
            else upstream
            for name, upstream in config.upstreams.items()
        }
        return config.model_copy(update={"upstreams": upstreams})

    def check_unmoved(self, config: Config) -> None:
        """Refuse a configuration that needs an embedded upstream started or moved; raises ConfigError."""
        for name, upstream in config.upstreams.items():
            running = self._addresses.get(name)
            moved = upstream.embedded != (running[0].embedded if running is not None else None)
            if moved:
                text = "embedded upstreams are started with serve; restart it for this change"
                raise ConfigError([Problem(f"upstreams.{name}.embedded", None, text)])

    async def stop(self) -> None:
        """End them; each flushes what it has."""
        for process in self._processes.values():
            if process.returncode is None:
                process.terminate()
        for process in self._processes.values():
            try:
                await asyncio.wait_for(process.wait(), 10.0)
            except TimeoutError:
                process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _answers(process: asyncio.subprocess.Process, port: int) -> bool:
    """Whether a port is open before the start has taken too long or the process has ended."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _START_SECONDS
    while loop.time() < deadline and process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return True
    return False
