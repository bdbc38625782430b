"""One request asked of a database while another is answered: the pieces that a crossfaded answer is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pyqwest import Headers, Response

from crossfade.backends.dialect import RequestContext

from .driver import Incoming, carries_answer
from .errors import BodyTooLarge, MalformedRequest
from .framing import pack, unpack
from .upstream import Target, call_upstream, read_all
from .worker import Worker

_NOT_ASKED = frozenset(
    {
        "host",
        "content-length",
        "connection",
        "transfer-encoding",
        "x-forwarded-proto",
        "grpc-encoding",
        "content-encoding",
    }
    | {"grpc-accept-encoding", "accept-encoding"}  # the answer is read here
)


class Refused(Exception):
    """The database answered with an error of its own, or with something that cannot be read."""


class Answer(NamedTuple):
    """An answer, unpacked, and the response it came in."""

    response: Response
    body: bytes


async def ask(
    worker: Worker, incoming: Incoming, target: Target, message: bytes, names: Mapping[str, str] | None, limit: int
) -> Answer:
    """Send a message in place of the incoming request's, and read the answer.

    Raises Refused, UpstreamDown.
    """
    operation, path = incoming.operation, incoming.path
    if names:
        assert worker.dialect.reading is not None  # only its collections are ever named otherwise
        path, message = worker.dialect.reading.retarget(operation, path, message, names, RequestContext(incoming.named))
    path = f"{path}?{incoming.query}" if incoming.query else path
    headers = asked_headers(incoming)
    body = pack(message, operation.transport)
    response = await call_upstream(target, operation.method, incoming.authority, path, headers, body)
    packed = await read_all(target, response, limit)
    if not carries_answer(operation, response) or not packed:
        said = response.headers.get("grpc-message") or packed[:500].decode("utf-8", "replace")
        raise Refused(f"HTTP {response.status}, grpc-status {response.headers.get('grpc-status')}: {said}")
    try:
        answer = Answer(response, unpack(operation, packed, None, limit))
    except (MalformedRequest, BodyTooLarge) as error:
        raise Refused(str(error)) from error
    if worker.dialect.reading is not None and worker.dialect.reading.refuses(operation, answer.body):
        raise Refused(answer.body[:500].decode("utf-8", "replace"))
    return answer


def asked_headers(incoming: Incoming) -> Headers:
    """The client's headers for a request whose answer is read here."""
    return Headers([header for header in incoming.headers if header[0] not in _NOT_ASKED])
