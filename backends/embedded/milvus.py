"""Milvus's gRPC API over milvus-lite, in a process of its own (the extra `milvus`).

`python -m crossfade.backends.embedded.milvus --data DIR` serves it. What milvus-lite leaves open is closed here:
collections are loaded again after a restart, changes come one at a time, and what they leave in memory is written out
and indexed soon (milvus_turns). REST is not served, and float32 is the only kind of vector it stores.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from milvus_lite.exceptions import MilvusLiteError
from pymilvus.grpc_gen import milvus_pb2_grpc

from .milvus_turns import Turns

_THREADS: Final = 10
_DRAIN_SECONDS: Final = 5.0
_LARGEST_MESSAGE: Final = 512 << 20


class MilvusServer:
    """A running embedded Milvus; a context manager that ends it."""

    def __init__(self, data: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        """Serve the folder `data`; port 0 takes a free one. Raises OSError when the folder or port is taken."""
        data.mkdir(parents=True, exist_ok=True)
        try:
            self._db = MilvusLite(str(data))
        except MilvusLiteError as error:
            raise OSError(f"{data} cannot be opened: {error}") from error
        _load_collections(self._db)
        options = [
            ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
            ("grpc.max_send_message_length", _LARGEST_MESSAGE),
            ("grpc.so_reuseport", 0),
            # pymilvus pings every 10 s, also when it asks nothing.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ]
        self._turns = Turns(self._db)
        self._server = grpc.server(ThreadPoolExecutor(_THREADS), interceptors=[self._turns], options=options)
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(self._db), self._server)
        try:
            self.port: int = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            self._turns.close()
            self._db.close()
            raise OSError(f"{host}:{port} cannot be listened on") from error
        self._server.start()

    def close(self) -> None:
        """Let calls in flight finish, and write what is in memory to the folder."""
        self._server.stop(_DRAIN_SECONDS).wait()
        self._turns.close()
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _load_collections(db: MilvusLite) -> None:
    """Load what was loaded before a restart: everything, since the engine does not remember."""
    for database in db.list_databases():
        for name in db.list_collections(database):
            db.get_collection(name, database).load()


def serve_milvus(data: Path, host: str, port: int, with_parent: bool) -> None:
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
    with MilvusServer(data, host, port) as server:
        print(f"embedded Milvus serves {data} (port {server.port})", flush=True)  # noqa: T201  # says where it is
        while not ending.wait(0.5 if with_parent else None):
            if with_parent and os.getppid() != parent:
                break


def main() -> int:
    """Run the server; prints one line with the port when it is ready."""
    parser = argparse.ArgumentParser(prog="crossfade.backends.embedded.milvus", description="Embedded Milvus")
    parser.add_argument("--data", type=Path, required=True, help="data folder, made when missing")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--grpc-port", type=int, default=19530, help="0 takes a free one")
    parser.add_argument("--rest-port", type=int, default=0, help="taken and left unused: REST is not served")
    parser.add_argument("--with-parent", action="store_true", help="end when the starting process ends")
    asked = parser.parse_args()
    try:
        serve_milvus(asked.data, asked.host, asked.grpc_port, asked.with_parent)
    except (OSError, ValueError) as error:
        print(f"embedded Milvus: {error}", file=sys.stderr)  # noqa: T201  # a command's complaint
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
