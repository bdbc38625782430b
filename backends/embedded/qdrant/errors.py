"""What can be wrong with a request, once for both APIs.

    ServiceError
    |- WrongInput      400  INVALID_ARGUMENT   the client's request makes no sense for this collection
    |  |- BadRequest   400  INVALID_ARGUMENT   understood, and cannot be done as things stand (a missing index)
    |  `- Unprocessable 422 INVALID_ARGUMENT   a value out of its range
    |- NotFound        404  NOT_FOUND
    |- AlreadyExists   409  ALREADY_EXISTS
    |- Forbidden       403  PERMISSION_DENIED
    |- Unauthenticated 401  UNAUTHENTICATED
    |- Unsupported     501  UNIMPLEMENTED      the embedded engine cannot do it; a Qdrant server can
    `- Internal        500  INTERNAL           the engine failed: our fault

The texts are Qdrant's own where the engine gives them, with the prefix that its server puts in front.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc


class ServiceError(Exception):
    """A failure that is answered to the client, with Qdrant's prefix before the text."""

    http_status = 500
    grpc_code = grpc.StatusCode.INTERNAL
    prefix = "Service internal error: "

    def __init__(self, text: str) -> None:
        super().__init__(self.prefix + text)


class WrongInput(ServiceError):
    http_status = 400
    grpc_code = grpc.StatusCode.INVALID_ARGUMENT
    prefix = "Wrong input: "


class BadRequest(WrongInput):
    prefix = "Bad request: "


class Unreadable(WrongInput):
    """A body or a query string that does not parse; the text carries its own prefix."""

    prefix = ""


class Unprocessable(WrongInput):
    http_status = 422
    prefix = "Validation error in body: "


class NotFound(ServiceError):
    http_status = 404
    grpc_code = grpc.StatusCode.NOT_FOUND
    prefix = "Not found: "


class AlreadyExists(ServiceError):
    http_status = 409
    grpc_code = grpc.StatusCode.ALREADY_EXISTS
    prefix = "Wrong input: "


class Forbidden(ServiceError):
    http_status = 403
    grpc_code = grpc.StatusCode.PERMISSION_DENIED
    prefix = "Forbidden: "


class Unauthenticated(ServiceError):
    http_status = 401
    grpc_code = grpc.StatusCode.UNAUTHENTICATED
    prefix = ""


class Unsupported(ServiceError):
    http_status = 501
    grpc_code = grpc.StatusCode.UNIMPLEMENTED
    prefix = "Not supported by the embedded Qdrant: "


SNAPSHOTS = "snapshots; copy the data folder while the server is stopped"


class Internal(ServiceError):
    """The engine or this server failed."""


_BAD_REQUEST = ("No range index", "No appropriate index", "Index required")
_INTERNAL = ("IO Error", "OutOfMemory", "Service runtime error", "Service internal error")


def translate_engine(error: Exception) -> ServiceError:
    """The service error that an exception of the engine stands for; it raises plain Exceptions that differ in text."""
    text = str(error)
    if text.startswith("No point with id"):
        return NotFound(f"{text} found")
    if text.startswith(_BAD_REQUEST):
        return BadRequest(text)
    if text.startswith(_INTERNAL):
        return Internal(text)
    return WrongInput(text)


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turn what the engine raises inside the block into a ServiceError.

    Only its own kinds: bare Exception, what its bindings raise for values that they cannot take, and a panic. Anything
    else is a fault of this server and passes, to be answered and logged as one.
    """
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        raise translate_engine(error) from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise translate_engine(error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the engine's Rust panics, not exported by name
            raise
        raise Internal(f"the engine panicked: {error}") from error
