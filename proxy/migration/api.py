"""The verbs over HTTP, for the admin listener to mount: JSON in, JSON out.

GET  /migrations                              the status of every migration, the newest of each collection
POST /migrations                              plan: {"spec": {...}, "actor", "reason", "dry_run", "price_per_million"}
GET  /migrations/{collection}                 status
GET  /migrations/{collection}/history         every step with actor, time and reason
GET  /migrations/{collection}/dead-letters    points that could not be brought over, and why
POST /migrations/{collection}/{verb}          {"actor", "reason", "dry_run"} and what the verb takes

What goes wrong is answered as {"error": message, "kind": label} with the error's own HTTP status.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from crossfade.backends.index import IndexRefusedError

from ..errors import CrossfadeError
from .ledger import Ledger
from .plan import Plan
from .record import Migration, Spec, Strategy
from .verbs import Say, Verbs

MakePlan = Callable[[Spec, float | None], Awaitable[Plan]]
Percent = Annotated[float, Field(ge=0, le=100)]


class Asked(BaseModel):
    """What comes with every verb."""

    model_config = ConfigDict(extra="forbid")

    actor: str = Field(min_length=1)
    reason: str = ""
    dry_run: bool = False


class AskedPlan(Asked):
    """A plan for a collection."""

    spec: Spec
    price_per_million: float | None = Field(default=None, ge=0)


class AskedShare(Asked):
    """A share of reads."""

    percent: Percent
    force: bool = False


class AskedShadow(Asked):
    """A share of queries to be sent to the target as well."""

    percent: Percent


class AskedSettings(Asked):
    """Limits and strategy; what is not named stays."""

    pace: dict[str, Any] = {}
    strategy: Strategy | None = None


Plain = Literal["start", "pause", "resume", "verify", "reverse", "complete", "cancel"]


def mount_migrations(verbs: Verbs, make_plan: MakePlan) -> Mount:
    """The routes, over one store."""

    async def listed(_: Request) -> Response:
        collections = {record.spec.collection for record in await verbs.store.read_all()}
        return _answer([await verbs.status(name) for name in sorted(collections)])

    async def planned(request: Request) -> Response:
        asked = AskedPlan.model_validate_json(await request.body())
        plan = await make_plan(asked.spec, asked.price_per_million)
        if not asked.dry_run:
            await verbs.store.plan(asked.spec, asked.actor, asked.reason)
        return _answer(plan, 200 if asked.dry_run else 201)

    async def status(request: Request) -> Response:
        return _answer(await verbs.status(request.path_params["collection"]))

    async def history(request: Request) -> Response:
        record = await verbs.store.find(request.path_params["collection"])
        return _answer(await verbs.store.events(record.id))

    async def dead_letters(request: Request) -> Response:
        record = await verbs.store.find(request.path_params["collection"])
        count, letters = await Ledger(verbs.store).dead(record.id)
        return _answer({"count": count, "points": [{"id": point, "reason": why} for point, why in letters.items()]})

    async def said(request: Request) -> Response:
        return await _say(verbs, request)

    routes = [
        Route("/", _explained(listed), methods=["GET"]),
        Route("/", _explained(planned), methods=["POST"]),
        Route("/{collection}", _explained(status), methods=["GET"]),
        Route("/{collection}/history", _explained(history), methods=["GET"]),
        Route("/{collection}/dead-letters", _explained(dead_letters), methods=["GET"]),
        Route("/{collection}/{verb}", _explained(said), methods=["POST"]),
    ]
    return Mount("/migrations", routes=routes)


async def _say(verbs: Verbs, request: Request) -> Response:
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
        case "start" | "pause" | "resume" | "verify" | "reverse" | "complete" | "cancel":
            plain: Mapping[Plain, Callable[[Say], Awaitable[Migration]]] = {
                "start": verbs.start,
                "pause": verbs.pause,
                "resume": verbs.resume,
                "verify": verbs.verify,
                "reverse": verbs.reverse,
                "complete": verbs.complete,
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
    """Errors that say what is wrong become answers; others stay defects."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in error.errors()]
            return _answer({"error": "; ".join(problems), "kind": "request"}, 400)
        except CrossfadeError as error:
            return _answer({"error": str(error), "kind": error.label}, error.http_status)
        except IndexRefusedError as error:
            return _answer({"error": str(error), "kind": "index_refused"}, 502)

    return answer
