"""The demo's two servers: a Qdrant that has been there before, and Crossfade, which is put in front of it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from .demo_models import NEW, NEW_DIM, OLD, OLD_DIM
from .errors import CrossfadeError

COLLECTION = "packages"
_HOST = "127.0.0.1"
_START_SECONDS = 90.0
_STOP_SECONDS = 20.0
_FLAG = re.compile(r"^(\s*query_model:) .*$", re.MULTILINE)

CONFIG = """\
listen:
  qdrant: {{grpc: "{host}:{front_grpc}", rest: "{host}:{front_rest}"}}
  admin: "{host}:{admin}"
upstreams:
  qdrant: {{kind: qdrant, grpc: "{host}:{grpc}", rest: "http://{host}:{rest}"}}
models:
  {old}: {{dim: {old_dim}}}
  {new}: {{dim: {new_dim}}}
collections:
  {collection}:
    index_model: {old}
    query_model: {old}
    adapters: {{{new}: adapter}}
workers: 1
"""


class DemoFailed(CrossfadeError):
    """A step of the demo cannot be done; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens, all on 127.0.0.1: the database, and Crossfade in front of it."""

    rest: int
    grpc: int
    front_rest: int
    front_grpc: int
    admin: int


def choose_ports(first: int) -> Ports:
    """Free ports; `first` (REST) and the two after it (gRPC, admin) are Crossfade's unless it is 0."""
    wanted = [first, first + 1, first + 2] if first else [0, 0, 0]
    held: list[socket.socket] = []
    try:
        found = [_hold(port, held) for port in [0, 0, *wanted]]
    finally:
        for probe in held:
            probe.close()
    return Ports(*found)


def _hold(port: int, held: list[socket.socket]) -> int:
    probe = socket.socket()
    held.append(probe)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
    try:
        probe.bind((_HOST, port))
    except OSError as error:
        raise DemoFailed(f"port {port} on {_HOST} is taken ({error.strerror}); choose others with --port") from error
    return int(probe.getsockname()[1])


def write_config(path: Path, ports: Ports) -> None:
    """The configuration to start with: the flag says that queries are made with the old model."""
    values: Mapping[str, object] = {slot: getattr(ports, slot) for slot in Ports.__slots__}
    path.write_text(
        CONFIG.format(**values, host=_HOST, collection=COLLECTION, old=OLD, old_dim=OLD_DIM, new=NEW, new_dim=NEW_DIM)
    )


def flip_flag(text: str, model: str) -> str:
    """The configuration's text with another query_model; nothing else changes."""
    flipped, count = _FLAG.subn(rf"\1 {model}", text)
    if count != 1:
        raise DemoFailed(f"query_model stands {count} times in the configuration and was expected once")
    return flipped


@contextmanager
def start_database(folder: Path, ports: Ports) -> Iterator[None]:
    """Run the embedded Qdrant as a process of its own."""
    command = [sys.executable, "-m", "crossfade.backends.embedded", "--data", str(folder / "qdrant"), "--with-parent"]
    command += ["--grpc-port", str(ports.grpc), "--rest-port", str(ports.rest)]
    with _run(
        "the embedded Qdrant", command, folder / "qdrant.log", lambda: _answers(f"http://{_HOST}:{ports.rest}/readyz")
    ):
        yield


@contextmanager
def start_crossfade(folder: Path, ports: Ports) -> Iterator[subprocess.Popen[bytes]]:
    """Run `crossfade serve` on the demo's configuration."""
    command = [sys.executable, "-m", "crossfade.proxy", "serve", str(folder / "crossfade.yaml")]
    with _run(
        "crossfade serve", command, folder / "crossfade.log", lambda: _answers(f"http://{_HOST}:{ports.admin}/readyz")
    ) as process:
        yield process


def generation_of(ports: Ports) -> int:
    """The number of the configuration that Crossfade serves with."""
    return int(_status(ports)["generation"])


def reload_crossfade(ports: Ports) -> None:
    """Have Crossfade read configuration and adapters again; raises DemoFailed when it refuses."""
    answer = httpx.post(f"http://{_HOST}:{ports.admin}/reload", timeout=_START_SECONDS)
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
    stated: dict[str, Any] = httpx.get(f"http://{_HOST}:{ports.admin}/status").json()
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
