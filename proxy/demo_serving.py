"""The demo's two servers: a database that has been there before, and Crossfade, which is put in front of it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from .demo_database import HOST, Database, Ports
from .demo_models import NEW, NEW_DIM, OLD, OLD_DIM
from .errors import CrossfadeError

COLLECTION = "packages"
_START_SECONDS = 90.0
_STOP_SECONDS = 20.0
_FLAG = re.compile(r"^(\s*query_model:) .*$", re.MULTILINE)

CONFIG = """\
listen:
  {listen}
  admin: "{host}:{admin}"
upstreams:
  {upstream}
models:
  {old}: {{dim: {old_dim}}}
  {new}: {{dim: {new_dim}, encoder: {{python: "crossfade.proxy.demo_models:encode_new"}}}}
collections:
  {collection}:
    index_model: {old}
    query_model: {old}
    adapters: {{{new}: adapter}}
workers: 1
"""


class DemoFailed(CrossfadeError):
    """A step of the demo cannot be done; the message says which and why."""


def choose_ports(first: int, *, one_port: bool = False) -> Ports:
    """Free ports; `first` (REST) and the two after it (gRPC, admin) are Crossfade's unless it is 0.

    With `one_port` REST and gRPC share one, and admin is the one after it.
    """
    count = 2 if one_port else 3
    wanted = [first + at for at in range(count)] if first else [0] * count
    held: list[socket.socket] = []
    try:
        *found, admin = [_hold(port, held) for port in [0] * (count - 1) + wanted]
    finally:
        for probe in held:
            probe.close()
    rest, grpc, front_rest, front_grpc = [found[0], found[0], found[1], found[1]] if one_port else found
    return Ports(rest, grpc, front_rest, front_grpc, admin)


def _hold(port: int, held: list[socket.socket]) -> int:
    probe = socket.socket()
    held.append(probe)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
    try:
        probe.bind((HOST, port))
    except OSError as error:
        raise DemoFailed(f"port {port} on {HOST} is taken ({error.strerror}); choose others with --port") from error
    return int(probe.getsockname()[1])


def write_config(path: Path, database: Database, ports: Ports) -> None:
    """The configuration to start with: the flag says that queries are made with the old model."""
    servers = {"listen": database.listen(ports.front), "upstream": database.upstream(ports.direct)}
    servers |= {"host": HOST, "admin": str(ports.admin)}
    models = {"old": OLD, "old_dim": OLD_DIM, "new": NEW, "new_dim": NEW_DIM}
    path.write_text(CONFIG.format(**servers, **models, collection=COLLECTION))


def flip_flag(text: str, model: str) -> str:
    """The configuration's text with another query_model; nothing else changes."""
    flipped, count = _FLAG.subn(rf"\1 {model}", text)
    if count != 1:
        raise DemoFailed(f"query_model stands {count} times in the configuration and was expected once")
    return flipped


def add_migration(text: str, model: str, rate: float) -> str:
    """The configuration's text with a migration of the collection to a model, so many documents a second."""
    added = f"    text: payload.text\n    migrate: {{to: {model}, pace: {{rate: {rate:.0f}}}}}\n"
    return text.replace("workers:", f"{added}workers:")


@contextmanager
def start_database(folder: Path, database: Database, ports: Ports) -> Iterator[None]:
    """Run the embedded database as a process of its own."""
    command = database.command(folder / database.kind, ports.direct)
    log = folder / f"{database.kind}.log"
    with _run(f"the embedded {database.title}", command, log, lambda: database.is_ready(ports.direct)):
        yield


@contextmanager
def start_crossfade(folder: Path, ports: Ports) -> Iterator[subprocess.Popen[bytes]]:
    """Run `crossfade serve` on the demo's configuration."""
    command = [sys.executable, "-m", "crossfade.proxy", "serve", str(folder / "crossfade.yaml")]
    with _run(
        "crossfade serve", command, folder / "crossfade.log", lambda: _answers(f"http://{HOST}:{ports.admin}/readyz")
    ) as process:
        yield process


def generation_of(ports: Ports) -> int:
    """The number of the configuration that Crossfade serves with."""
    return int(_status(ports)["generation"])


def reload_crossfade(ports: Ports) -> None:
    """Have Crossfade read configuration and adapters again; raises DemoFailed when it refuses."""
    answer = httpx.post(f"http://{HOST}:{ports.admin}/reload", timeout=_START_SECONDS)
    if answer.status_code != 200:
        raise DemoFailed(f"Crossfade does not reload: {answer.json()['problem']}")


def wait_for_reload(ports: Ports, generation: int) -> None:
    """Wait until every worker serves with a later generation than that; raises DemoFailed with what stands against."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        stated = _status(ports)
        if stated["last_problem"] is not None:
            raise DemoFailed(f"Crossfade refuses the changed configuration: {stated['last_problem']}")
        serving = [worker.get("generation", 0) for worker in stated["workers"]]
        if stated["generation"] > generation and min(serving) == stated["generation"]:
            return
        time.sleep(0.01)
    raise DemoFailed(f"Crossfade did not take the changed configuration within {_START_SECONDS:g} s")


def _status(ports: Ports) -> dict[str, Any]:
    stated: dict[str, Any] = httpx.get(f"http://{HOST}:{ports.admin}/status").json()
    return stated


@contextmanager
def _run(name: str, command: list[str], log: Path, ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    try:
        _wait(name, process, log, ready)
        yield process
    finally:
        _end(process)


def _wait(name: str, process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        code = process.poll()
        if code is not None or time.monotonic() > deadline:
            fate = f"ended with {code}" if code is not None else f"was not ready within {_START_SECONDS:g} s"
            last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise DemoFailed(f"{name} {fate}; the end of {log}:\n{last}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).status_code == 200
    except httpx.TransportError:
        return False
