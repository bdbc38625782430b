"""The store: changes that compare and set, the history, and the lease that fences an old controller off."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from crossfade.proxy.migration.errors import BadPlan, IllegalMove, LeaseLost, UnknownMigration
from crossfade.proxy.migration.ledger import Ledger, agrees, sign_vector
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.record import Checkpoint, Migration, Spec
from crossfade.proxy.migration.store import Lease, Store

SPEC = Spec(collection="docs", target="docs--new", from_model="old", to_model="new", dim=8, text="payload.text")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(url)
    yield opened
    opened.shut()


async def held(store: Store, holder: str = "a") -> Lease:
    lease = await store.acquire("controller", holder, 60)
    assert lease is not None
    return lease


async def test_a_migration_is_found_as_it_was_left(store: Store, url: str) -> None:
    made = await store.plan(SPEC, "me", "why not")
    checkpoint = Checkpoint(next="a", open=((3, 7), (7, None)), points=3)
    await store.change(made.id, lambda one: one.model_copy(update={"checkpoint": checkpoint}))
    other = Store(url)
    found = await other.find("docs")
    assert (found.spec, found.checkpoint, found.version) == (SPEC, checkpoint, 1)
    other.shut()


async def test_a_collection_has_one_unfinished_migration(store: Store) -> None:
    made = await store.plan(SPEC, "me", "")
    with pytest.raises(BadPlan, match="migrated already, to 'new', and is PLANNED; complete or cancel"):
        await store.plan(SPEC, "me", "")
    await store.change(made.id, lambda one: one.moved("cancel"))
    assert (await store.plan(SPEC, "me", "")).id != made.id
    with pytest.raises(UnknownMigration, match="'absent' has no migration; there are migrations of 'docs'"):
        await store.find("absent")


async def test_changes_at_the_same_moment_all_count(store: Store) -> None:
    made = await store.plan(SPEC, "me", "")

    def count(one: Migration) -> Migration:
        return one.model_copy(update={"total": one.total + 1})

    await asyncio.gather(*(store.change(made.id, count) for _ in range(40)))
    found = await store.read(made.id)
    assert (found.total, found.version) == (40, 40)


async def test_a_step_that_is_refused_changes_nothing(store: Store) -> None:
    made = await store.plan(SPEC, "me", "")
    with pytest.raises(IllegalMove):
        await store.change(made.id, lambda one: one.moved("complete"), actor="me", step="complete")
    assert (await store.read(made.id)) == made
    assert [event.step for event in await store.events(made.id)] == ["plan"]


async def test_every_move_stands_in_the_history_with_actor_and_reason(store: Store) -> None:
    made = await store.plan(SPEC, "ada", "new model")
    await store.change(made.id, lambda one: one.moved("prepare"), step="prepare", reason="started")
    first, second = await store.events(made.id)
    assert (first.actor, first.step, first.target, first.reason) == ("ada", "plan", "PLANNED", "new model")
    assert (second.actor, second.source, second.target) == ("controller", "PLANNED", "PREPARED")
    assert second.at >= first.at > 0


async def test_only_one_controller_at_a_time(store: Store) -> None:
    await held(store, "a")
    assert await store.acquire("controller", "b", 60) is None
    taken = await asyncio.gather(*(store.acquire("other", str(at), 60) for at in range(10)))
    assert len([lease for lease in taken if lease is not None]) == 1


async def test_an_old_controller_writes_nothing_after_another_has_taken_over(url: str) -> None:
    now = 1000.0
    store = Store(url, clock=lambda: now)
    made = await store.plan(SPEC, "me", "")
    old = await held(store, "a")
    now = 1061.0
    new = await held(store, "b")
    assert new.token == old.token + 1
    with pytest.raises(LeaseLost, match="a with token 1 may not write any more: b has taken over with token 2"):
        await store.change(made.id, lambda one: one.moved("prepare"), lease=old)
    with pytest.raises(LeaseLost):
        await Ledger(store).report(made.id, {1: "missing"}, [], old)
    with pytest.raises(LeaseLost):
        await store.renew(old, 60)
    assert (await store.read(made.id)).state is State.PLANNED
    assert not await Ledger(store).found(made.id)
    await store.change(made.id, lambda one: one.moved("prepare"), lease=new)
    await store.release(new)
    assert (await held(store, "c")).token == 3
    store.shut()


async def test_notes_on_points_are_replaced_and_forgotten(store: Store) -> None:
    ledger, lease = Ledger(store), await held(store)
    dead: dict[int | str, str] = {1: "no text", "x": "too long"}
    await ledger.note_moved("m", signed={2: b"a", 3: b"b"}, unsigned=[], dead=dead, healed=[], lease=lease)
    await ledger.note_moved("m", signed={2: b"c"}, unsigned=[3], dead={1: "none"}, healed=["x"], lease=lease)
    assert await ledger.dead("m") == (1, {1: "none"})
    assert await ledger.signed("m", [1, 2, 3]) == {2: b"c"}
    await ledger.report("m", {5: "missing"}, [], lease)
    assert await ledger.found("m") == {5: "missing"}
    await ledger.forget("m", lease)
    assert not await ledger.found("m")


def test_a_signature_outlives_scaling_and_tells_vectors_apart() -> None:
    rows = np.abs(np.random.default_rng(1).normal(size=(300, 64))).astype(np.float32)  # no coordinate is negative
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert all(agrees(sign_vector(row), unit) for row, unit in zip(rows, units, strict=True))
    assert not any(agrees(sign_vector(row), other) for row, other in zip(rows, np.roll(units, 1, axis=0), strict=True))
