"""The server: one data folder, a gRPC port and a REST port, started, drained and stopped together."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import grpc
import uvicorn

from .access import Access
from .grpc_api import grpc_server
from .indexing import Indexer
from .rest_api import rest_app
from .service import Call, service_calls
from .store import Store

log = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
DRAIN_SECONDS = 10.0
THREADS = 8


class QdrantServer:
    """Qdrant's gRPC and REST API over the embedded engine, on one data folder.

    Port 0 takes a free port; `grpc_port` and `rest_port` tell which after `start`. Use as a context manager, or call
    `start` and `stop`.
    """

    def __init__(
        self,
        data: Path,
        host: str = "127.0.0.1",
        grpc_port: int = 0,
        rest_port: int = 0,
        api_key: str | None = None,
    ) -> None:
        self.data = Path(data)
        self.host = host
        self.grpc_port = grpc_port
        self.rest_port = rest_port
        self._access = Access(api_key)
        self._store: Store | None = None
        self._grpc: grpc.Server | None = None
        self._rest: uvicorn.Server | None = None
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    def start(self) -> QdrantServer:
        """Open the data folder and both ports; returns once both accept.

        Raises BlockingIOError when another process holds the folder, OSError when a port is taken.
        """
        self._store = Store(self.data)
        try:
            calls = service_calls(self._store)
            rest = bind_port(self.host, self.rest_port)
            self.rest_port = rest.getsockname()[1]
            self._grpc = grpc_server(calls, self._access, THREADS)
            self.grpc_port = listen_grpc(self._grpc, self.host, self.grpc_port)
            self._grpc.start()
            self._start_rest(calls, rest)
        except BaseException:
            self.stop()
            raise
        self._run(self._flush_often, "qdrant-flush")
        self._run(Indexer(self._store, self._stopping).run, "qdrant-index")
        return self

    def _start_rest(self, calls: Mapping[str, Call], listening: socket.socket) -> None:
        config = uvicorn.Config(
            rest_app(calls, self._access),
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=int(DRAIN_SECONDS),
        )
        self._rest = server = uvicorn.Server(config)
        thread = self._run(lambda: server.run(sockets=[listening]), "qdrant-rest")
        while not server.started:
            thread.join(0.005)
            if not thread.is_alive():
                raise OSError(f"REST listener on {self.host}:{self.rest_port} did not start; its log says why")

    def _run(self, work: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def _flush_often(self) -> None:
        while not self._stopping.wait(FLUSH_SECONDS):
            try:
                assert self._store is not None
                self._store.flush()
            except Exception:
                log.exception("%s: flushing failed; writes stay in the write-ahead log", self.data)

    def stop(self) -> None:
        """Let requests in flight finish (up to 10 seconds), then close ports and folder."""
        self._stopping.set()
        if self._rest is not None:
            self._rest.should_exit = True
        if self._grpc is not None:
            self._grpc.stop(DRAIN_SECONDS).wait()
            self._grpc = None
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        if self._store is not None:
            self._store.close()
            self._store = None

    def __enter__(self) -> QdrantServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def bind_port(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError naming the address when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise OSError(
            error.errno, f"REST port {host}:{port} cannot be used ({error.strerror}); choose another"
        ) from error
    return listening


def listen_grpc(server: grpc.Server, host: str, port: int) -> int:
    """Add the port to a gRPC server; raises OSError naming the address when it is taken."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"gRPC port {address} cannot be used (taken?); choose another") from error
    if bound == 0:
        raise OSError(f"gRPC port {address} cannot be used (taken?); choose another")
    return bound


def serve_qdrant(
    data: Path,
    host: str = "127.0.0.1",
    grpc_port: int = 6334,
    rest_port: int = 6333,
    api_key: str | None = None,
    with_parent: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal exits at once.

    With `with_parent` the server also ends when the process that started it does.
    """
    ending = threading.Event()
    parent = os.getppid()

    def end(signum: int, frame: object) -> None:
        if ending.is_set():
            os._exit(128 + signum)
        ending.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with QdrantServer(data, host, grpc_port, rest_port, api_key) as server:
        print(f"ready: grpc {host}:{server.grpc_port} rest {host}:{server.rest_port} data {data}", flush=True)  # noqa: T201  # the line that a parent process waits for
        while not ending.wait(0.5 if with_parent else None):
            if with_parent and os.getppid() != parent:
                break
