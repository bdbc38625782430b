"""The verbs over HTTP, for the admin listener to mount: JSON in, JSON out.

GET  /migrations                              the status of the newest migration of each collection
GET  /migrations/{collection}                 status
GET  /migrations/{collection}/plan            what the configured one would mean; ?price_per_million=0.02 for its cost
GET  /migrations/{collection}/history         every step with actor, time and reason
GET  /migrations/{collection}/dead-letters    points that could not be brought over, and why
POST /migrations/{collection}/{verb}          {"actor", "reason", "dry_run"} and what the verb takes

A POST has to be application/json: no page of another site can send that without being asked first. What goes wrong is
answered as {"error": message, "kind": label} with the error's own HTTP status.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from crossfade.backends.index import IndexRefusedError

from ..errors import CrossfadeError
from .ledger import Ledger
from .plan import Plan
from .record import Migration, Strategy
from .verbs import Say, Status, Verbs

Percent = Annotated[float, Field(ge=0, le=100)]


log = logging.getLogger("crossfade.migration.api")


class Asked(BaseModel):
    """What comes with every verb."""

    model_config = ConfigDict(extra="forbid")

    actor: str = Field(min_length=1)
    reason: str = ""
    dry_run: bool = False


class Office(Protocol):
    """Who does what is asked."""

    @property
    def verbs(self) -> Verbs:
        """The verbs. Raises NotConfigured while there are no migrations at all."""

    async def statuses(self) -> Sequence[Status]:
        """The newest migration of each collection."""

    async def plan(self, collection: str, price_per_million: float | None) -> Plan:
        """What the configured migration of a collection would mean."""

    async def begin(self, say: Say) -> Migration:
        """Plan and start the configured migration."""


class AskedShare(Asked):
    """A share of reads."""

    percent: Percent
    force: bool = False


class AskedEnd(Asked):
    """An end."""

    drop_old: bool = False
    force: bool = False


class AskedShadow(Asked):
    """A share of queries to be sent to the target as well."""

    percent: Percent


class AskedSettings(Asked):
    """Limits and strategy; what is not named stays."""

    pace: dict[str, Any] = {}
    strategy: Strategy | None = None


Plain = Literal["pause", "resume", "verify", "reverse", "drop-old", "cancel"]


def mount_migrations(office: Office) -> Mount:
    """The routes."""

    async def listed(_: Request) -> Response:
        return _answer(await office.statuses())

    async def planned(request: Request) -> Response:
        price = request.query_params.get("price_per_million")
        return _answer(await office.plan(request.path_params["collection"], None if price is None else float(price)))

    async def status(request: Request) -> Response:
        return _answer(await office.verbs.status(request.path_params["collection"]))

    async def history(request: Request) -> Response:
        store = office.verbs.store
        record = await store.find(request.path_params["collection"])
        return _answer(await store.events(record.id))

    async def dead_letters(request: Request) -> Response:
        store = office.verbs.store
        record = await store.find(request.path_params["collection"])
        count, letters = await Ledger(store).dead(record.id)
        return _answer({"count": count, "points": [{"id": point, "reason": why} for point, why in letters.items()]})

    async def said(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return _answer({"error": "send the body as application/json", "kind": "request"}, 415)
        return await _say(office, request)

    routes = [
        Route("/", _explained(listed), methods=["GET"]),
        Route("/{collection}", _explained(status), methods=["GET"]),
        Route("/{collection}/plan", _explained(planned), methods=["GET"]),
        Route("/{collection}/history", _explained(history), methods=["GET"]),
        Route("/{collection}/dead-letters", _explained(dead_letters), methods=["GET"]),
        Route("/{collection}/{verb}", _explained(said), methods=["POST"]),
    ]
    return Mount("/migrations", routes=routes)


async def _say(office: Office, request: Request) -> Response:
    verbs = office.verbs
    collection, verb = request.path_params["collection"], request.path_params["verb"]
    body = await request.body()
    match verb:
        case "switch":
            share = AskedShare.model_validate_json(body)
            return _tell(await verbs.switch(_say_of(collection, share), share.percent, force=share.force))
        case "shadow":
            shadow = AskedShadow.model_validate_json(body)
            return _tell(await verbs.shadow(_say_of(collection, shadow), shadow.percent))
        case "set":
            settings = AskedSettings.model_validate_json(body)
            say = _say_of(collection, settings)
            return _tell(await verbs.set(say, pace=settings.pace, strategy=settings.strategy))
        case "repair":
            return _answer({"points": await verbs.repair(_say_of(collection, Asked.model_validate_json(body)))})
        case "start":
            return _tell(await office.begin(_say_of(collection, Asked.model_validate_json(body))))
        case "complete":
            end = AskedEnd.model_validate_json(body)
            return _tell(await verbs.complete(_say_of(collection, end), drop_old=end.drop_old, force=end.force))
        case "pause" | "resume" | "verify" | "reverse" | "drop-old" | "cancel":
            plain: Mapping[Plain, Callable[[Say], Awaitable[Migration]]] = {
                "pause": verbs.pause,
                "resume": verbs.resume,
                "verify": verbs.verify,
                "reverse": verbs.reverse,
                "drop-old": verbs.drop_old,
                "cancel": verbs.cancel,
            }
            return _tell(await plain[verb](_say_of(collection, Asked.model_validate_json(body))))
        case _:
            return _answer({"error": f"there is no verb {verb!r}", "kind": "unknown_verb"}, 404)


def _say_of(collection: str, asked: Asked) -> Say:
    return Say(collection, asked.actor, asked.reason, asked.dry_run)


def _tell(record: Migration) -> Response:
    return _answer(record.model_dump(mode="json"))


def _answer(data: Any, status: int = 200) -> Response:
    body = orjson.dumps(data, default=_plain)
    return Response(body, status_code=status, media_type="application/json")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(type(value).__name__)


Endpoint = Callable[[Request], Awaitable[Response]]


def _explained(endpoint: Endpoint) -> Endpoint:
    """Errors become answers; those that do not say themselves what is wrong are logged as well."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in error.errors()]
            return _answer({"error": "; ".join(problems), "kind": "request"}, 400)
        except ValueError as error:
            return _answer({"error": str(error), "kind": "request"}, 400)
        except CrossfadeError as error:
            return _answer({"error": str(error), "kind": error.label}, error.http_status)
        except IndexRefusedError as error:
            return _answer({"error": str(error), "kind": "index_refused"}, 502)
        except Exception as error:  # a defect: whoever asked is told, the log has the rest
            log.exception("%s %s", request.method, request.url.path)
            return _answer({"error": f"{type(error).__name__}: {error}; the log has more", "kind": "internal"}, 500)

    return answer
