"""`crossfade serve` as a child process: started on free ports, asked, and ended by its own process id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import httpx
from qdrant_client import QdrantClient

from tests.ports import free_ports

# As long as a start may take where others have the processor: 60 s were not enough on two cores with a load of ten.
START_SECONDS = 240.0
Channel: TypeAlias = Any  # grpc's stubs want serializers, which grpc itself does not
ROOT = Path(__file__).parents[2]
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until something holds; returns after how many seconds it did, and fails when it never does."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - started


@dataclass
class Serving:
    """A running Crossfade. `config` is the file, which a test may rewrite."""

    process: subprocess.Popen[bytes]
    config: Path
    log: Path
    grpc_port: int
    rest_port: int
    admin_port: int

    @property
    def rest(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def channel(self, *options: tuple[str, Any]) -> Channel:
        """A gRPC channel of its own, for bytes in and bytes out."""
        return grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}", options=[*OPTIONS, *options])

    def client(self, *, grpc: bool, headers: dict[str, str] | None = None) -> QdrantClient:
        """An unmodified qdrant-client."""
        return QdrantClient(
            host="127.0.0.1",
            port=self.rest_port,
            grpc_port=self.grpc_port,
            prefer_grpc=grpc,
            headers=headers,
            check_compatibility=False,
            timeout=60,
        )

    def status(self) -> dict[str, Any]:
        """What the admin listener says."""
        stated: dict[str, Any] = httpx.get(f"{self.admin}/status").json()
        return stated

    def reload(self) -> None:
        """Read the configuration again, now."""
        answer = httpx.post(f"{self.admin}/reload", timeout=60)
        assert answer.status_code == 200, answer.text

    def metrics(self) -> str:
        """The exposition text."""
        return httpx.get(f"{self.admin}/metrics").text

    def worker_pids(self) -> list[int]:
        """Process ids of the Envoys."""
        return [worker["pid"] for worker in self.status()["workers"]]

    def written(self) -> str:
        """The log so far."""
        return self.log.read_text(errors="replace")

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def write_config(path: Path, listen: dict[str, int], upstream: str, rest: str, tls: str = "") -> None:
    """A configuration file: ports, with `tls` as it stands, one upstream, and `rest` as it stands."""
    path.write_text(
        f'listen: {{qdrant: {{grpc: "127.0.0.1:{listen["grpc"]}", rest: "127.0.0.1:{listen["rest"]}"{tls}}}, '
        f'admin: "127.0.0.1:{listen["admin"]}"}}\n'
        f"upstreams: {{main: {{kind: qdrant, {upstream}}}}}\n{rest}\n"
    )


@contextmanager
def start_serving(
    directory: Path,
    upstream: str,
    rest: str,
    workers: int = 1,
    environment: dict[str, str] | None = None,
    tls: str = "",
) -> Iterator[Serving]:
    """Run `crossfade serve`; its log is printed, and so shown with a failing test."""
    grpc_port, rest_port, admin_port = free_ports(3)
    config = directory / "crossfade.yaml"
    write_config(config, {"grpc": grpc_port, "rest": rest_port, "admin": admin_port}, upstream, rest, tls)
    log = directory / "serve.log"
    process = spawn_serve(config, log, workers, environment)
    serving = Serving(process, config, log, grpc_port, rest_port, admin_port)
    try:
        wait_serving(serving)
        yield serving
    finally:
        serving.end()


def spawn_serve(
    config: Path, log: Path, workers: int = 1, environment: dict[str, str] | None = None, *options: str
) -> subprocess.Popen[bytes]:
    """Start the process without waiting for it."""
    path = ":".join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
    environment = {**os.environ, "PYTHONPATH": path, **(environment or {})}
    command = [sys.executable, "-m", "crossfade.proxy", "serve", str(config), "--workers", str(workers), *options]
    with log.open("wb") as stream:
        return subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)


def is_ready(serving: Serving) -> bool:
    """Whether /readyz says 200; fails when the process has ended."""
    assert serving.process.poll() is None, f"crossfade ended:\n{serving.written()}"
    try:
        return httpx.get(f"{serving.admin}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def wait_serving(serving: Serving, what: str = "crossfade serves") -> None:
    """Wait until /readyz says 200; fails with the log."""
    try:
        wait_until(lambda: is_ready(serving), START_SECONDS, what)
    except AssertionError as error:
        raise AssertionError(f"{error}; its log:\n{serving.written()}") from None


def tree_rss(pid: int) -> int:
    """Resident bytes of a process and everything below it."""
    total = 0
    for child in [pid, *descendants(pid)]:
        try:
            lines = Path(f"/proc/{child}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
    return total


def descendants(pid: int) -> list[int]:
    """Process ids below a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *descendants(int(child))]
    return found
