"""The runs of chaos: kills at seeded moments, histories with and without faults, and a load that must not fail."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from crossfade.proxy.admin_client import NotServing, Refused
from tests.chaos.compare import Compared, compare
from tests.chaos.history import Op, check_regular, find_violation
from tests.chaos.load import Historian, Ports, Told, Writer, at_work
from tests.chaos.stage import COLLECTION, PointId, Stage
from tests.proxy.migration.scenery import id_of

CLIENTS: Final = 16
VICTIMS: Final = ("worker", "supervisor", "upstream")
_SETTLE_SECONDS: Final = 12.0  # a write of unknown end keeps its mark for ten
_CAPTURED: Final = {"BACKFILLING", "SYNCED", "CANARY", "SWITCHED"}
_STEPS: Final = (10.0, 50.0, 100.0)

Tell = Callable[[str], None]


@dataclass
class Killed:
    """What a run of kills has come to. `points`: victim and state of each kill."""

    points: Counter[str] = field(default_factory=Counter)
    told: Told = field(default_factory=Told)
    compared: Compared | None = None
    after: str = ""  # the state that was reached at the end


@dataclass
class Watched:
    """What a run of histories has come to. `violations`: points whose history no order explains."""

    told: Told
    compared: Compared
    violations: dict[str, list[PointId]]
    checked: int
    seconds: float


async def run_kills(folder: Path, kills: int, seed: int, tell: Tell, *, pause: float = 0.08) -> Killed:
    """One migration under writers, with kills of workers, supervisor and upstream; everything compared at the end."""
    chance, outcome = random.Random(seed), Killed()
    keys = [id_of(at) for at in range(14)] + [f"00000000-0000-0000-0000-{at:012}" for at in range(6)]
    with Stage(folder, workers=2, rate=60.0) as stage:
        ports = Ports(stage.serving.grpc_port, stage.serving.rest_port)
        writers = [Writer(ports, outcome.told, seed * 1000 + number) for number in range(CLIENTS)]
        async with at_work(writers, lambda writer: writer.write(keys), pause):
            await _off(stage.say, "start")
            noting = asyncio.ensure_future(_note_capture(stage, outcome.told))
            for _ in range(kills):
                await asyncio.sleep(chance.uniform(0.0, 1.5))
                victim, state = chance.choice(VICTIMS), await _off(stage.state)
                outcome.points[f"{victim} while {state}"] += 1
                await _off(_kill, stage, victim, chance.randrange(2))
                tell(f"killed {victim} while {state}; {outcome.told.requests} requests")
                await _off(stage.wait_serving)
                await _perhaps_move(stage, chance, tell)
            # What is left of the way, under the same load.
            await _off(stage.until, {"SYNCED", "CANARY", "SWITCHED"})
            await noting
        await asyncio.sleep(_SETTLE_SECONDS)
        await _off(stage.until_quiet)
        outcome.compared = await _off(_compare, stage, outcome.told)
        outcome.after = await _off(stage.state)
    return outcome


def _kill(stage: Stage, victim: str, at: int) -> None:
    match victim:
        case "worker":
            stage.kill_worker(at)
        case "supervisor":
            stage.kill_supervisor()
        case _:
            stage.kill_upstream()


async def _perhaps_move(stage: Stage, chance: random.Random, tell: Tell) -> None:
    """Take the operator's part, so that kills fall into the later states as well."""
    state = await _off(stage.state)
    try:
        if state in ("SYNCED", "CANARY") and chance.random() < 0.7:
            await _off(lambda: stage.say("switch", percent=chance.choice(_STEPS), force=True))
        elif state == "SWITCHED" and chance.random() < 0.4:
            await _off(stage.say, "reverse")
    except (Refused, NotServing) as error:
        tell(f"{state}: {error}")


async def run_history(
    folder: Path, operations: int, seed: int, tell: Tell, *, faults: float = 0.0, keys: int = 2000, pause: float = 0.05
) -> Watched:
    """A migration to its end under clients that keep a history of so many operations, which is then checked."""
    told, hot = Told(), [id_of(at) for at in range(keys)]
    began = time.monotonic()
    with Stage(folder, points=keys, workers=2, rate=400.0, faults=faults) as stage:
        ports = Ports(stage.serving.grpc_port, stage.serving.rest_port)
        # An injected fault has had its effect, if any, when the client hears of it.
        clients = [Historian(ports, told, seed * 1000 + number, settles=0.0) for number in range(CLIENTS)]
        switched = asyncio.get_running_loop().create_future()
        async with at_work(clients, lambda client: client.act(hot), pause) as stop:
            way = asyncio.ensure_future(_go_the_way(stage, told, operations, switched, tell))
            await way
            while told.operations < operations:
                await asyncio.sleep(0.2)
            stop.set()
        await asyncio.sleep(_SETTLE_SECONDS if faults else 1.0)
        await _off(stage.until_quiet)
        compared = await _off(_compare, stage, told)
        last = await _off(_read_all, stage, hot)
    for key in hot:
        told.history[key].append(Op(float("inf"), float("inf"), "read", last.get(key)))
    tell(f"{told.operations} operations, {len(told.failures)} failed requests; checking")
    violations = await _off(_check, told, switched.result())
    return Watched(told, compared, violations, told.operations, time.monotonic() - began)


async def _note_capture(stage: Stage, told: Told) -> None:
    """Take note of when every write was surely captured."""
    while await _off(stage.state) not in _CAPTURED:
        await asyncio.sleep(0.5)
    told.captured = time.monotonic()


async def _go_the_way(stage: Stage, told: Told, operations: int, switched: asyncio.Future[float], tell: Tell) -> None:
    """Start, copy, and after shares of the operations every step there is, back and forth."""
    await _off(stage.say, "start")
    await _note_capture(stage, told)
    await _off(stage.until, {"SYNCED"})
    tell(f"SYNCED after {told.operations} operations")
    steps: Sequence[tuple[str, dict[str, Any]]] = [
        *(("switch", {"percent": percent, "force": True}) for percent in _STEPS),
        ("reverse", {}),
        ("switch", {"percent": 100.0, "force": True}),
    ]
    for number, (verb, body) in enumerate(steps, 4):
        while told.operations < operations * number / 10:
            await asyncio.sleep(0.2)
        if not switched.done():
            switched.set_result(time.monotonic())
        await _off(partial(stage.say, verb, **body))
        told.steps.append((time.monotonic(), f"{verb} {body.get('percent', '')}"))
        tell(f"{verb} {body.get('percent', '')} after {told.operations} operations")


async def run_constant(
    folder: Path, seed: int, tell: Tell, *, step_seconds: float = 5.0, pause: float = 0.02
) -> dict[str, Any]:
    """A constant load over start, every step, reverse, complete and a reload: which requests failed."""
    told, hot = Told(), [id_of(at) for at in range(500)]
    failed: dict[str, list[str]] = {}
    with Stage(folder, points=1000, workers=2, rate=800.0) as stage:
        ports = Ports(stage.serving.grpc_port, stage.serving.rest_port)
        clients = [Historian(ports, told, seed * 1000 + number) for number in range(8)]

        async def during(step: str, work: Callable[[], Awaitable[None]]) -> None:
            before, asked = len(told.failures), told.requests
            await work()
            await asyncio.sleep(step_seconds)
            failed[step] = told.failures[before:]
            tell(f"{step}: {len(failed[step])} of {told.requests - asked} requests failed")

        async def say(verb: str, wanted: set[str], **body: Any) -> None:
            await _off(lambda: stage.say(verb, **body))
            await _off(stage.until, wanted)

        async with at_work(clients, lambda client: client.act(hot), pause):
            await during("before", lambda: asyncio.sleep(0))
            await during("start", lambda: say("start", {"SYNCED"}))
            await during("verify", lambda: _off(stage.verify))
            for percent in _STEPS:
                wanted = {"SWITCHED"} if percent == 100 else {"CANARY"}
                await during(f"switch {percent:g} %", partial(say, "switch", wanted, percent=percent))
            await during("reverse", lambda: say("reverse", {"SYNCED"}))
            await during("switch again", lambda: say("switch", {"SWITCHED"}, percent=100.0))
            await during("reload", lambda: _off(stage.serving.reload))
            await during("restart", lambda: _off(stage.replace))
            await during("complete", lambda: say("complete", {"COMPLETED"}))
    return {
        "requests": told.requests,
        "failed_requests": len(told.failures),
        "failed_by_step": {step: len(found) for step, found in failed.items()},
        "reasons": Counter(reason[:200] for reason in told.failures).most_common(5),
    }


def _compare(stage: Stage, told: Told) -> Compared:
    """On a server without faults: it is started again on the same data."""
    stage.spare_upstream()
    with stage.direct() as client:
        return compare(client, stage.adapter, told)


def _read_all(stage: Stage, keys: Sequence[PointId]) -> dict[PointId, str]:
    """The token of every point that is there, through Crossfade."""
    client = stage.serving.client(grpc=True)
    found: dict[PointId, str] = {}
    for first in range(0, len(keys), 500):
        for record in client.retrieve(COLLECTION, list(keys[first : first + 500]), with_payload=True):
            assert not isinstance(record.id, UUID)  # the client gives text
            found[record.id] = str((record.payload or {}).get("token"))
    client.close()
    return found


def _check(told: Told, switched: float) -> dict[str, list[PointId]]:
    """Before the first switch every history must have an order; after it no read may show less than acknowledged."""
    found: dict[str, list[PointId]] = {"order": [], "acknowledged": []}
    for key, ops in told.history.items():
        initial = f"start {_number(key)}"
        if find_violation(_until(switched, ops), initial) is not None:
            found["order"].append(key)
        if (late := check_regular(ops, initial)) is not None:
            found["acknowledged"].append(key)
            said, step = max((one for one in told.steps if one[0] < late.end), default=(0.0, "start"))
            found.setdefault(f"acknowledged, within {int(late.end - said) + 1} s of {step}", []).append(key)
    return found


def _until(moment: float, ops: Sequence[Op]) -> list[Op]:
    """What was asked before a moment; a write that had not ended may have happened."""
    past = [op for op in ops if op.end < moment]
    crossing = [replace(op, sure=False) for op in ops if op.start < moment <= op.end and op.kind != "read"]
    return [*past, *crossing]


def _number(key: PointId) -> int:
    """Which point an id is of, see id_of."""
    return key if isinstance(key, int) else int(str(key).replace("-", ""), 16) - 2**64


async def _off(work: Callable[..., Any], *arguments: Any) -> Any:
    """Blocking work of the stage beside the clients."""
    return await asyncio.to_thread(work, *arguments)
