"""Answers to requests of the fast path that the upstream did not answer, or not to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .fastcalls import Sent
from .rescue import form_rescue, grpc_status, told

if TYPE_CHECKING:
    from ._filter import Call
    from .worker import Worker


def answer_failure(worker: Worker, call: Call, reason: bytes) -> None:
    """Say in the database's own form that it is down; an answer that has begun is broken off instead."""
    if call.gone:
        return
    sent: Sent = call.token
    if sent.passage is not None:
        sent.passage.end(-1)
    operation = sent.operation
    transport = operation.transport
    error = worker.target(worker.live.snapshot, transport).down(reason.decode("utf-8", "replace"))
    worker.tally.errors[operation.name, error.label] += 1
    if call.started:
        trailers = tuple(grpc_status(error.grpc_code, told(error))) if transport == "grpc" else None
        call.answer((), b"", trailers)
        return
    rescue = form_rescue(worker.dialect, operation, transport, error)
    headers = ((b":status", str(rescue.status).encode()), *rescue.headers)
    call.answer(headers, rescue.body, None if rescue.trailers is None else tuple(rescue.trailers))
