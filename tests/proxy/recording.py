"""An upstream that records what reaches it, byte for byte, and answers as a test says: gRPC and REST."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

GrpcAnswer = Callable[["GrpcCall", grpc.ServicerContext], bytes]
RestAnswer = Callable[["RestCall"], Response]


@dataclass(frozen=True)
class GrpcCall:
    """One call as it arrived: metadata keys may repeat, in order."""

    method: str
    metadata: tuple[tuple[str, str | bytes], ...]
    body: bytes
    context: grpc.ServicerContext

    def values(self, key: str) -> list[str | bytes]:
        """All values of a metadata key, in order."""
        return [value for name, value in self.metadata if name == key]


@dataclass(frozen=True)
class RestCall:
    """One HTTP request as it arrived; `path` is raw."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, key: str) -> list[str]:
        """All values of a header, in order."""
        return [value for name, value in self.headers if name == key]


def answer_nothing(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
    """An empty message: every field at its default."""
    return b""


def answer_ok(call: RestCall) -> Response:
    """Qdrant's shortest success."""
    return Response(b'{"result":true,"status":"ok","time":0.0}', media_type="application/json")


_Handler: Any = grpc.GenericRpcHandler  # generic in grpc's stubs alone


class GrpcRecorder(_Handler):  # type: ignore[misc]  # as above
    """A gRPC server for any unary method."""

    def __init__(self) -> None:
        self.calls: list[GrpcCall] = []
        self.answer: GrpcAnswer = answer_nothing
        self._port = 0
        self.start()

    def start(self) -> None:
        """Serve; after `stop` on the same port as before."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        options += [("grpc.so_reuseport", 0), ("grpc.max_metadata_size", 1 << 20)]
        self._pool = ThreadPoolExecutor(260)
        self._server = grpc.server(self._pool, handlers=[self], options=options)
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def service(self, details: Any) -> Any:
        """Any method, bytes in and bytes out."""
        method, metadata = details.method, tuple((key, value) for key, value in details.invocation_metadata)

        def serve(request: bytes, context: grpc.ServicerContext) -> bytes:
            call = GrpcCall(method, metadata, request, context)
            self.calls.append(call)
            return self.answer(call, context)

        return grpc.unary_unary_rpc_method_handler(serve)

    @property
    def last(self) -> GrpcCall:
        return self.calls[-1]

    def reset(self) -> None:
        """Forget calls, and answer as at the start."""
        self.calls.clear()
        self.answer = answer_nothing

    def stop(self) -> None:
        """End at once."""
        self._server.stop(None).wait()
        self._pool.shutdown(wait=False)


@dataclass
class RestRecorder:
    """An HTTP/1.1 server for any path."""

    calls: list[RestCall] = field(default_factory=list)
    answer: RestAnswer = answer_ok
    keeps_bodies: bool = True
    received: int = 0  # bytes of the last body
    connections: set[tuple[str, int]] = field(default_factory=set)
    _port: int = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Serve; after `stop` on the same port as before."""
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self._port))
        self._port = listening.getsockname()[1]
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            log_level="error",
            access_log=False,
            lifespan="off",
            date_header=False,
            h11_max_incomplete_event_size=1 << 20,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.connections.add((str(scope["client"][0]), int(scope["client"][1])))
        chunks, self.received = [], 0
        async for chunk in request.stream():
            self.received += len(chunk)
            if self.keeps_bodies:
                chunks.append(chunk)
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        raw, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        call = RestCall(scope["method"], raw, query, headers, b"".join(chunks))
        self.calls.append(call)
        await self.answer(call)(scope, receive, send)

    @property
    def last(self) -> RestCall:
        return self.calls[-1]

    def reset(self) -> None:
        """Forget calls, and answer as at the start."""
        self.calls.clear()
        self.connections.clear()
        self.answer = answer_ok
        self.keeps_bodies = True

    def stop(self) -> None:
        """End at once."""
        self._server.force_exit = self._server.should_exit = True
        self._thread.join()


@dataclass(frozen=True)
class Recorders:
    """Both halves of a recording Qdrant."""

    grpc: GrpcRecorder
    rest: RestRecorder

    @classmethod
    def start(cls) -> Self:
        """Serve both on free ports."""
        return cls(GrpcRecorder(), RestRecorder())

    def reset(self) -> None:
        """Forget what was recorded."""
        self.grpc.reset()
        self.rest.reset()

    def stop(self) -> None:
        """End both."""
        self.grpc.stop()
        self.rest.stop()
