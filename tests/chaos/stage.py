"""Crossfade and its upstream as processes that can be killed, with a collection under a real migration in between."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from grpc import RpcError
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException

from crossfade.adapters.base import Adapter, Float32
from crossfade.proxy.admin_client import AdminClient, NotServing, Refused
from tests.chaos.upstream import Upstream
from tests.ports import free_ports
from tests.proxy.encoding_function import encode_one
from tests.proxy.migration.scenery import OLD_DIM, id_of, old_vector
from tests.proxy.serving import START_SECONDS, Serving, spawn_serve, write_config
from tests.proxy.toy_adapters import save_toy

COLLECTION, TARGET = "docs", "docs--new"
_TRIES = 10  # of a verb, where one upstream call in twenty fails on purpose
PointId = int | str

SETTINGS = """
models:
  old: {dim: 16}
  new: {dim: 24, encoder: {python: "tests.chaos.slow_encoder:encode"}}
collections:
  docs:
    index_model: old
    query_model: old
    adapters: {new: adapters/new}
    text: payload.text
    migrate: {to: new, pace: {rate: RATE}, read_your_writes: 30s}
"""


@dataclass
class Stage:
    """See the module; use as a context manager. `folder` keeps everything."""

    folder: Path
    points: int = 300
    workers: int = 1
    rate: float = 2000.0
    faults: float = 0.0  # share of the upstream's calls that fail
    upstream: Upstream = field(init=False)
    serving: Serving = field(init=False)
    adapter: Adapter = field(init=False)

    def __enter__(self) -> Self:
        self.upstream = Upstream(self.folder / "qdrant", faults=self.faults)
        self.upstream.__enter__()
        with self.direct() as client:
            fill(client, self.points)
        self.adapter = save_toy(self.folder / "adapters" / "new")
        grpc_port, rest_port, admin_port = free_ports(3)
        listen = {"grpc": grpc_port, "rest": rest_port, "admin": admin_port}
        config, log = self.folder / "crossfade.yaml", self.folder / "serve.log"
        upstream = f'grpc: "127.0.0.1:{self.upstream.grpc_port}", rest: "http://127.0.0.1:{self.upstream.rest_port}"'
        write_config(config, listen, upstream, SETTINGS.replace("RATE", f"{self.rate:g}"))
        self.serving = Serving(self._spawn(config, log), config, log, grpc_port, rest_port, admin_port)
        self.wait_serving()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.serving.end()
        self.upstream.kill()

    @contextmanager
    def direct(self) -> Iterator[QdrantClient]:
        """A client of the upstream, past Crossfade."""
        client = QdrantClient(
            host="127.0.0.1",
            port=self.upstream.rest_port,
            grpc_port=self.upstream.grpc_port,
            prefer_grpc=True,
            check_compatibility=False,
            timeout=60,
        )
        try:
            yield client
        finally:
            client.close()

    @property
    def admin(self) -> AdminClient:
        return AdminClient(self.serving.admin)

    def _spawn(self, config: Path, log: Path) -> subprocess.Popen[bytes]:
        if log.exists():
            with log.open("rb") as before, (log.parent / "serve.logs").open("ab") as all_logs:
                all_logs.write(before.read())
        return spawn_serve(config, log, self.workers)

    def wait_serving(self, seconds: float = START_SECONDS) -> None:
        """Wait until Crossfade answers, through every worker."""
        self.wait(self._is_ready, seconds, "Crossfade serves")

    def _is_ready(self) -> bool:
        assert self.serving.process.poll() is None, f"crossfade ended:\n{self.serving.written()}"
        try:
            return httpx.get(f"{self.serving.admin}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def wait(self, true: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until something holds; what is not there at the moment does not."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if true():
                    return
            except (NotServing, Refused):
                pass
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}; {self.told()}"
            time.sleep(0.5)  # a status counts the backlog

    def told(self) -> str:
        """What there is to say when something went wrong."""
        try:
            status = self.status()
        except (NotServing, Refused) as error:
            status = {"error": str(error)}
        return f"{status}\n{self.serving.written()[-4000:]}"

    def status(self) -> dict[str, Any]:
        """The migration's status."""
        found: dict[str, Any] = self.admin.get(COLLECTION)
        return found

    def state(self) -> str:
        """The migration's state, or what says that there is none."""
        try:
            return str(self.status()["state"])
        except (NotServing, Refused):
            return "NOT SERVING"

    def say(self, verb: str, **body: Any) -> Any:
        """Say a verb to the migration, as often as an injected fault stands against it."""
        for _ in range(_TRIES):
            try:
                return self.admin.say(COLLECTION, verb, body)
            except Refused as error:
                if "injected" not in str(error):
                    raise
        return self.admin.say(COLLECTION, verb, body)

    def until(self, states: set[str], seconds: float = 240.0) -> None:
        """Wait for one of these states."""
        self.wait(lambda: self.status()["state"] in states, seconds, f"the migration is {states}")

    def until_quiet(self, seconds: float = 240.0) -> None:
        """Wait until all is copied and no written point waits."""

        def is_quiet() -> bool:
            status = self.status()
            copied = status["state"] in ("SYNCED", "CANARY", "SWITCHED")
            return copied and status["backlog"]["count"] == 0 and status["throttled"] is None

        self.wait(is_quiet, seconds, "nothing waits")

    def verify(self, seconds: float = 240.0) -> dict[str, int]:
        """Verify to the end; what was found."""
        before = self.status()["verified_at"]
        self.say("verify")
        self.wait(lambda: self.status()["verified_at"] not in (None, before), seconds, "a verification")
        found: dict[str, int] = self.status()["findings"]
        return found

    # --- damage ---------------------------------------------------------------------------------------------------

    def kill_worker(self, at: int = 0) -> None:
        """kill -9 of an Envoy; the supervisor starts it again."""
        pids: list[int] = []

        def find() -> bool:
            pids[:] = [pid for pid in self.serving.worker_pids() if pid]  # none while it is being started again
            return bool(pids)

        self.wait(find, 60, "a worker runs")
        os.kill(pids[at % len(pids)], signal.SIGKILL)

    def kill_supervisor(self) -> None:
        """kill -9 of the supervisor, controller included, and a new one."""
        self.serving.process.kill()
        self.serving.process.wait()
        self.serving.process = self._spawn(self.serving.config, self.serving.log)

    def kill_upstream(self) -> None:
        """kill -9 of the database, and a new one on the same data."""
        self.upstream.kill()
        self.upstream.start()

    def spare_upstream(self) -> None:
        """A database without faults from now on."""
        if self.upstream.faults:
            self.upstream.faults = 0.0
            self.kill_upstream()

    def restart(self) -> None:
        """End Crossfade as an operator would, and start it again."""
        self.serving.end()
        self.serving.process = self._spawn(self.serving.config, self.serving.log)
        self.wait_serving()

    def replace(self) -> None:
        """Start another Crossfade that takes this one's place, and wait until it has."""
        old, log = self.serving.process, self.folder / "serve-again.log"
        self.serving.process = spawn_serve(self.serving.config, log, self.workers, None, "--replace")
        self.serving.log = log
        assert old.wait(START_SECONDS) == 0
        self.wait_serving()


def fill(client: QdrantClient, points: int) -> None:
    """The old collection with so many points."""
    client.create_collection(COLLECTION, models.VectorParams(size=OLD_DIM, distance=models.Distance.COSINE))
    client.create_payload_index(COLLECTION, "tag", models.PayloadSchemaType.KEYWORD, wait=True)
    for first in range(0, points, 500):
        made = [
            models.PointStruct(
                id=id_of(at), vector=old_vector(f"start {at}"), payload={"text": f"start {at}", "token": f"start {at}"}
            )
            for at in range(first, min(points, first + 500))
        ]
        for attempt in range(20):
            try:
                client.upsert(COLLECTION, made, wait=True)
                break
            except (RpcError, ResponseHandlingException):  # a fault that was put in
                assert attempt < 19


def native_vector(token: str) -> Float32:
    """The vector (24,) that a client of the new model sends: not what the encoder gives for the text."""
    return encode_one(token, "native")
