"""The embedded Qdrant as a process of its own, killed and started again on the same ports and data."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.ports import free_ports
from tests.proxy.serving import ROOT, START_SECONDS

_SERVER = "crossfade.backends.embedded"


@dataclass
class Upstream:
    """A server on `data`; use as a context manager."""

    data: Path
    grpc_port: int = 0
    rest_port: int = 0
    faults: float = 0.0  # share of calls that fail, half of them after they were carried out
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        if not self.grpc_port:
            self.grpc_port, self.rest_port = free_ports(2)
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        module = ["tests.chaos.faulty_upstream", "--faults", str(self.faults)] if self.faults else [_SERVER]
        command = [sys.executable, "-m", *module, "--data", str(self.data), "--with-parent"]
        ports = ["--grpc-port", str(self.grpc_port), "--rest-port", str(self.rest_port)]
        self.data.mkdir(parents=True, exist_ok=True)
        with (self.data.parent / f"{self.data.name}.log").open("ab") as log:
            self.process = subprocess.Popen([*command, *ports], cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self.process.poll() is None, log.name
            assert time.monotonic() < deadline, log.name
            time.sleep(0.05)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.rest_port}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False
