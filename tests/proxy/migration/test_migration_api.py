"""The verbs over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from crossfade.proxy.migration.api import mount_migrations
from crossfade.proxy.migration.errors import BadPlan
from crossfade.proxy.migration.journal import Journal
from crossfade.proxy.migration.plan import Plan
from crossfade.proxy.migration.record import Spec
from crossfade.proxy.migration.store import Store
from crossfade.proxy.migration.verbs import Verbs

SPEC = {
    "collection": "docs é",
    "target": "docs--new",
    "from_model": "old",
    "to_model": "new",
    "dim": 8,
    "text": "payload.text",
}
ME = {"actor": "ada", "reason": "new model"}


async def plan_as_asked(spec: Spec, price: float | None) -> Plan:
    if spec.target == "docs é":
        raise BadPlan(collection=spec.collection, reason="the target is the collection itself; name another one")
    return Plan(spec, 10, 10, 0, 0, 1000, None if price is None else price / 1000, False, ())


@pytest.fixture
def api(tmp_path: Path) -> Iterator[TestClient]:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    store, journal = Store(url), Journal(url)
    with TestClient(Starlette(routes=[mount_migrations(Verbs(store, journal), plan_as_asked)])) as client:
        yield client
    journal.shut()
    store.shut()


def say(api: TestClient, path: str, status: int = 200, **body: Any) -> Any:
    answer = api.post(f"/migrations{path}", json={**ME, **body})
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_migration_is_planned_started_and_cancelled(api: TestClient) -> None:
    assert say(api, "/", 201, spec=SPEC, price_per_million=2)["cost"] == 0.002
    assert say(api, "/docs é/start")["started"] is True
    status = api.get("/migrations/docs é").json()
    assert (status["state"], status["copied"], status["verified"]) == ("PLANNED", 0, "never")
    assert {"start", "pause", "cancel"} <= set(status["verbs"])
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
    assert say(api, "/", 200, spec=SPEC, dry_run=True)["points"] == 10
    assert api.get("/migrations/").json() == []
    say(api, "/", 201, spec=SPEC)
    assert say(api, "/docs é/pause", dry_run=True)["paused"] is True
    assert api.get("/migrations/docs é").json()["paused"] is False


def test_limits_are_set_and_what_is_not_named_stays(api: TestClient) -> None:
    say(api, "/", 201, spec=SPEC)
    say(api, "/docs é/set", pace={"rate": 100, "hours": "22:00-06:00"})
    record = say(api, "/docs é/set", pace={"rate": None}, strategy="adapt")
    assert (record["pace"]["rate"], record["pace"]["hours"], record["strategy"]) == (None, "22:00-06:00", "adapt")
    assert "hours" in say(api, "/docs é/set", 400, pace={"hours": "soon"})["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/absent/start", {}, 404, "collection 'absent' has no migration"),
        ("/docs é/complete", {}, 409, "'complete' is not possible while the migration is PLANNED; possible now: start"),
        ("/docs é/switch", {"percent": 101}, 400, "percent: Input should be less than or equal to 100"),
        ("/docs é/switch", {}, 400, "percent: Field required"),
        ("/docs é/start", {"actor": ""}, 400, "actor: String should have at least 1 character"),
        ("/docs é/start", {"typo": 1}, 400, "typo: Extra inputs are not permitted"),
        ("/docs é/dance", {}, 404, "there is no verb 'dance'"),
        ("/", {"spec": {**SPEC, "target": "docs é"}}, 400, "the target is the collection itself"),
        ("/", {"spec": SPEC}, 400, "it is being migrated already"),
    ],
)
def test_a_refusal_says_what_is_wrong(
    api: TestClient, path: str, body: dict[str, Any], status: int, message: str
) -> None:
    say(api, "/", 201, spec=SPEC)
    assert message in say(api, path, status, **body)["error"]
    assert [one["step"] for one in api.get("/migrations/docs é/history").json()] == ["plan"]
