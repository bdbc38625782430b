"""Failures as Qdrant reports them: a JSON body on REST, trailers only on gRPC."""

from __future__ import annotations

import orjson

from ..dialect import Failure, FailureAnswer, Transport


def form_failure(transport: Transport, failure: Failure) -> FailureAnswer:
    """A failure in Qdrant's own form.

    REST clients read `status.error`; gRPC clients the code and the message. Every gRPC answer is HTTP 200.
    """
    if transport == "grpc":
        return FailureAnswer(200, failure.grpc_code, failure.message, "application/grpc", b"")
    body = orjson.dumps({"status": {"error": failure.message}, "time": 0.0})
    return FailureAnswer(failure.http_status, failure.grpc_code, failure.message, "application/json", body)
