"""One `serve` takes the place of another on the same machine: the new one listens before the old one stops.

Both would work on one store, and each knows of its own workers alone. So the old one moves no migration on while the
new one holds a connection to `POST /handover`: the state in which a migration is when the new workers begin is the one
that it is in until the old ones have ended. Should the new one end before, its connection ends with it, and the old one
goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

import httpx
import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from .admin_client import NotServing, Refused
from .errors import CrossfadeError
from .journals import is_alive, name_writer

_ANSWERS_SECONDS = 30.0  # the controller finishes the page it is at
_POLL_SECONDS = 0.05
_CLOSES_SECONDS = 15.0  # beyond what its drain may take

log = logging.getLogger("crossfade.handover")


class Migrating(Protocol):
    """What is held meanwhile."""

    async def freeze(self) -> None:
        """Move no migration on."""

    async def thaw(self) -> None:
        """Go on."""


class HandoverFailed(CrossfadeError):
    """The one that is to be replaced does not stand back, or does not end."""

    label = "handover_failed"


async def hold_still(request: Request, migrations: Migrating) -> Response:
    """The answer to `POST /handover`: who this is, and nothing more until whoever asked has gone."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        return JSONResponse({"error": "send the body as application/json", "kind": "request"}, 415)

    async def held() -> AsyncIterator[bytes]:
        await migrations.freeze()
        log.info("another serve takes over")
        try:
            yield orjson.dumps({"process": name_writer(os.getpid())}) + b"\n"
            await asyncio.Event().wait()
        finally:
            await asyncio.shield(asyncio.ensure_future(migrations.thaw()))

    return StreamingResponse(held(), media_type="application/x-ndjson")


class Handover:
    """The process that stands back, from the new one's side."""

    def __init__(self, process: str, answer: AsyncIterator[str]) -> None:
        self.process = process
        self._answer = answer  # kept: collected, it would close the connection

    async def finish(self, drain: float) -> None:
        """Let it drain and end. Raises HandoverFailed when it does not within its limits, in seconds."""
        log.info("%s drains", self.process)
        os.kill(int(self.process.rsplit(":", 2)[1]), signal.SIGTERM)
        deadline = time.monotonic() + drain + _CLOSES_SECONDS
        while is_alive(self.process):
            if time.monotonic() > deadline:
                raise HandoverFailed(f"{self.process} was told to drain and has not ended; end it, and start again")
            await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def stand_in(admin: str) -> AsyncIterator[Handover | None]:
    """Take the place of whoever serves with this admin listener; None where nobody does.

    Raises Refused and HandoverFailed.
    """
    async with AsyncExitStack() as stack:
        try:
            handover = await _ask(admin, stack)
        except NotServing:
            handover = None
        if handover is not None and not is_alive(handover.process):
            raise HandoverFailed(f"{admin} is answered by {handover.process}, which is no process of this machine")
        yield handover


async def _ask(admin: str, stack: AsyncExitStack) -> Handover:
    timeout = httpx.Timeout(_ANSWERS_SECONDS)
    client = await stack.enter_async_context(httpx.AsyncClient(base_url=admin, timeout=timeout, trust_env=False))
    try:
        answer = await stack.enter_async_context(client.stream("POST", "/handover", json={}))
        if answer.status_code != 200:
            raise Refused(f"{admin}/handover answered HTTP {answer.status_code}: no serve of this version", "handover")
        lines = answer.aiter_lines()
        line = await anext(lines)
    except (httpx.HTTPError, StopAsyncIteration) as error:
        raise NotServing(f"nobody answers at {admin}: {error}") from error
    return Handover(str(orjson.loads(line)["process"]), lines)
