"""The verbs over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from crossfade.proxy.migration.api import mount_migrations
from crossfade.proxy.migration.errors import BadPlan
from crossfade.proxy.migration.journal import Journal
from crossfade.proxy.migration.plan import Plan
from crossfade.proxy.migration.record import Migration, Spec
from crossfade.proxy.migration.store import Store
from crossfade.proxy.migration.verbs import Say, Status, Verbs

SPEC = {
    "collection": "docs é",
    "target": "docs--new",
    "from_model": "old",
    "to_model": "new",
    "dim": 8,
    "text": "payload.text",
}
ME = {"actor": "ada", "reason": "new model"}


@dataclass
class PlainOffice:
    """Plans SPEC without a database."""

    verbs: Verbs

    async def statuses(self) -> list[Status]:
        newest = {one.spec.collection: one for one in await self.verbs.store.read_all()}
        return [await self.verbs.status_of(one) for one in newest.values()]

    async def plan(self, collection: str, price_per_million: float | None) -> Plan:
        spec = Spec.model_validate({**SPEC, "collection": collection})
        if collection == "docs--new":
            raise BadPlan(collection=collection, reason="the target is the collection itself; name another one")
        cost = None if price_per_million is None else price_per_million / 1000
        return Plan(spec, 10, 10, 0, 0, 1000, cost, False, ())

    async def begin(self, say: Say) -> Migration:
        return await self.verbs.begin(say, (await self.plan(say.collection, None)).spec, {"shadow": 1.0})


@pytest.fixture
def api(tmp_path: Path) -> Iterator[TestClient]:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    store, journal = Store(url), Journal(url)
    with TestClient(Starlette(routes=[mount_migrations(PlainOffice(Verbs(store, journal)))])) as client:
        yield client
    journal.shut()
    store.shut()


def say(api: TestClient, path: str, status: int = 200, **body: Any) -> Any:
    answer = api.post(f"/migrations{path}", json={**ME, **body})
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_migration_is_planned_started_and_cancelled(api: TestClient) -> None:
    assert api.get("/migrations/docs é/plan", params={"price_per_million": 2}).json()["cost"] == 0.002
    assert api.get("/migrations/").json() == []
    record = say(api, "/docs é/start")
    assert (record["started"], record["shadow"]) == (True, 1.0)
    status = api.get("/migrations/docs é").json()
    assert (status["state"], status["copied"], status["verified"]) == ("PLANNED", 0, "never")
    assert {"pause", "cancel"} <= set(status["verbs"])
    assert [one["collection"] for one in api.get("/migrations/").json()] == ["docs é"]
    assert say(api, "/docs é/cancel")["state"] == "CANCELLED"
    history = api.get("/migrations/docs é/history").json()
    assert [(one["actor"], one["step"], one["reason"]) for one in history] == [
        ("ada", "plan", "new model"),
        ("ada", "start", "new model"),
        ("ada", "cancel", "new model"),
    ]
    assert api.get("/migrations/docs é/dead-letters").json() == {"count": 0, "points": []}


def test_a_dry_run_changes_nothing(api: TestClient) -> None:
    assert say(api, "/docs é/start", dry_run=True)["started"] is True
    assert api.get("/migrations/").json() == []
    say(api, "/docs é/start")
    assert say(api, "/docs é/pause", dry_run=True)["paused"] is True
    assert api.get("/migrations/docs é").json()["paused"] is False


def test_limits_are_set_and_what_is_not_named_stays(api: TestClient) -> None:
    say(api, "/docs é/start")
    say(api, "/docs é/set", pace={"rate": 100, "hours": "22:00-06:00"})
    record = say(api, "/docs é/set", pace={"rate": None}, strategy="adapt")
    assert (record["pace"]["rate"], record["pace"]["hours"], record["strategy"]) == (None, "22:00-06:00", "adapt")
    assert "hours" in say(api, "/docs é/set", 400, pace={"hours": "soon"})["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/absent/pause", {}, 404, "collection 'absent' has no migration"),
        ("/docs é/complete", {}, 409, "'complete' is not possible while the migration is PLANNED; possible now: start"),
        ("/docs é/switch", {"percent": 101}, 400, "percent: Input should be less than or equal to 100"),
        ("/docs é/switch", {}, 400, "percent: Field required"),
        ("/docs é/start", {"actor": ""}, 400, "actor: String should have at least 1 character"),
        ("/docs é/start", {"typo": 1}, 400, "typo: Extra inputs are not permitted"),
        ("/docs é/dance", {}, 404, "there is no verb 'dance'"),
        ("/docs--new/start", {}, 400, "the target is the collection itself"),
        ("/docs é/start", {}, 400, "it is being migrated already, to 'new', and is PLANNED; complete or cancel that"),
        ("/docs é/start", {"dry_run": True}, 400, "it is being migrated already"),
    ],
)
def test_a_refusal_says_what_is_wrong(
    api: TestClient, path: str, body: dict[str, Any], status: int, message: str
) -> None:
    say(api, "/docs é/start")
    assert message in say(api, path, status, **body)["error"]
    assert [one["step"] for one in api.get("/migrations/docs é/history").json()] == ["plan", "start"]


def test_a_form_of_another_site_is_no_verb(api: TestClient) -> None:
    say(api, "/docs é/start")
    answer = api.post("/migrations/docs é/cancel", content=b'{"actor": "x"}', headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]) == (415, "send the body as application/json")
    assert api.get("/migrations/docs é").json()["state"] == "PLANNED"
