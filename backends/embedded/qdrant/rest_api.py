"""The REST listener: Qdrant's paths, each a request message for the table of `service` and back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import orjson
from qdrant_client import grpc as pb
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from . import rest_answers as answers
from .access import OPEN_PATHS, Access
from .errors import SNAPSHOTS, Internal, ServiceError, Unauthenticated, Unreadable, Unsupported
from .rest_operations import OPERATIONS, Operation
from .service import TITLE, VERSION, Call

log = logging.getLogger(__name__)


def rest_app(calls: Mapping[str, Call], access: Access) -> Starlette:
    """The ASGI application of the REST API."""
    routes = [Route(item.path, _endpoint(item, calls, access), methods=[item.method]) for item in OPERATIONS]
    routes += [
        Route("/", _guarded(access, _version), methods=["GET"]),
        *(Route(path, _healthy, methods=["GET"]) for path in ("/healthz", "/livez", "/readyz")),
        Route("/{path:path}", _guarded(access, _unknown), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
    ]
    return Starlette(routes=routes)


async def _version(request: Request) -> Response:
    return Response(orjson.dumps({"title": TITLE, "version": VERSION}), media_type="application/json")


async def _healthy(request: Request) -> Response:
    return PlainTextResponse(
        {"/healthz": "healthz check passed", "/readyz": "all shards are ready"}.get(
            request.url.path, "livez check passed"
        )
    )


async def _unknown(request: Request) -> Response:
    """Paths of Qdrant that are not served here are told apart from paths that nobody serves."""
    path = request.url.path
    if "/snapshots" in path:
        return fail(Unsupported(SNAPSHOTS), 0.0)
    if any(part in path for part in ("/cluster", "/shards", "/telemetry", "/metrics", "/issues", "/quotas")):
        return fail(Unsupported(f"{request.method} {path}"), 0.0)
    return Response(status_code=404)


def fail(error: ServiceError, seconds: float) -> Response:
    """Qdrant's answer to a failure; a missing key is answered in plain text, as its server does."""
    if isinstance(error, Unauthenticated):
        return PlainTextResponse(str(error), error.http_status)
    return Response(answers.failure(str(error), seconds), error.http_status, media_type="application/json")


def _guarded(access: Access, endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def guarded(request: Request) -> Response:
        try:
            if request.url.path not in OPEN_PATHS:
                access.check(request.headers.get("api-key"), request.headers.get("authorization"))
            response: Response = await endpoint(request)
            return response
        except ServiceError as error:
            return fail(error, 0.0)

    return guarded


def _endpoint(operation: Operation, calls: Mapping[str, Call], access: Access) -> Callable[[Request], Any]:
    call = calls[operation.rpc]

    async def endpoint(request: Request) -> Response:
        start = perf_counter()
        try:
            access.check(request.headers.get("api-key"), request.headers.get("authorization"))
            body = await request.body()
            content = await run_in_threadpool(_answer, operation, call, request, body, start)
            return Response(content, media_type="application/json")
        except ServiceError as error:
            return fail(error, perf_counter() - start)
        except Exception as error:
            log.exception("%s %s failed", request.method, request.url.path)
            return fail(Internal(f"{type(error).__name__}: {error}"), perf_counter() - start)

    return endpoint


def _answer(operation: Operation, call: Call, request: Request, body: bytes, start: float) -> bytes:
    try:
        message = operation.read(body)
    except (ValueError, TypeError, OverflowError) as error:  # what the client library's converters raise
        raise Unreadable(f"Format error in JSON body: {error}") from error
    address(message, request.path_params)
    if "wait" in message.DESCRIPTOR.fields_by_name:
        message.wait = request.query_params.get("wait", "false") == "true"
    result = operation.write(message, call(message))
    return answers.envelope(result, perf_counter() - start)


def address(message: Any, places: Mapping[str, str]) -> None:
    """Put the parts of the path into the message: collection, field, vector or point."""
    for name, value in places.items():
        if name == "id":
            point = pb.PointId(num=int(value)) if value.isdigit() else pb.PointId(uuid=value)
            message.ids.append(point)
        else:
            setattr(message, name, value)
