"""The admin listener: health, metrics, what each worker serves with, migrations, and a page that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from .handover import Migrating, hold_still
from .migration.api import Office, mount_migrations

_STATIC = Path(__file__).parent / "static"
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'unsafe-inline'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class Migrations(Office, Migrating, Protocol):
    """What the admin listener asks of migrations."""


class Supervised(Protocol):
    """What the admin listener asks of the supervisor."""

    @property
    def migrations(self) -> Migrations:
        """Who does what is asked of migrations."""

    async def readiness(self) -> tuple[bool, str]:
        """Whether requests should be sent here, and why not."""

    async def metrics(self) -> bytes:
        """The exposition text."""

    def status(self) -> dict[str, object]:
        """Generation, last reload and workers, as JSON."""

    async def reload(self) -> str | None:
        """Read the configuration again; the problem, if it cannot be used."""


def build_admin(supervised: Supervised) -> Starlette:
    """Build the admin listener's application."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        ready, reason = await supervised.readiness()
        return PlainTextResponse(f"{reason}\n", status_code=200 if ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(await supervised.metrics(), media_type=EXPOSITION)

    async def status(_: Request) -> Response:
        return JSONResponse(supervised.status())

    async def reload(_: Request) -> Response:
        problem = await supervised.reload()
        body = {"problem": problem, **supervised.status()}
        return JSONResponse(body, status_code=200 if problem is None else 422)

    async def handover(request: Request) -> Response:
        return await hold_still(request, supervised.migrations)

    async def page(_: Request) -> Response:
        return FileResponse(_STATIC / "admin.html", headers=_PAGE_HEADERS)

    async def script(_: Request) -> Response:
        return FileResponse(_STATIC / "admin.js", headers=_PAGE_HEADERS)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/admin.js", script),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/status", status),
            Route("/reload", reload, methods=["POST"]),
            Route("/handover", handover, methods=["POST"]),
            mount_migrations(supervised.migrations),
        ]
    )
