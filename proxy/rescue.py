"""An error as the answer that the database itself would give: a gRPC status, or its own body."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

from crossfade.backends.dialect import Dialect, Failure, Operation, Transport

from .errors import CrossfadeError
from .framing import frame

HeaderList = list[tuple[bytes, bytes]]


class Rescue(NamedTuple):
    """An answer made here; `trailers` is None where everything stands in the headers and the body."""

    status: int
    headers: HeaderList
    body: bytes
    trailers: HeaderList | None


def form_rescue(dialect: Dialect, operation: Operation | None, transport: Transport, error: CrossfadeError) -> Rescue:
    """The answer to a request that failed, in the database's own form."""
    answer = dialect.fail(operation, transport, Failure(error.grpc_code, error.http_status, told(error)))
    headers = [(b"content-type", answer.content_type.encode())]
    if transport == "rest":
        headers.append((b"content-length", str(len(answer.body)).encode()))
        return Rescue(answer.http_status, headers, answer.body, None)
    status = grpc_status(answer.grpc_code, answer.message)
    if not answer.body:
        return Rescue(200, [*headers, *status], b"", None)
    return Rescue(200, headers, frame(answer.body), status)


def told(error: CrossfadeError) -> str:
    """An error's message as clients read it."""
    return f"crossfade: {error}"


def grpc_status(code: int, message: str) -> HeaderList:
    """A gRPC status; its message percent-encoded as grpc-message wants it."""
    encoded = quote(message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode("ascii")
    return [(b"grpc-status", str(code).encode()), (b"grpc-message", encoded)]
