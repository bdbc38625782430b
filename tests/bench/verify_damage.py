"""What a verification finds: `python -m tests.bench.verify_damage --runs 100 --clean 50 --out build/verify.json`.

A migrated collection on the embedded Qdrant is damaged in five ways at once (a point missing, one too much, a payload
edited, two vectors swapped, one in a hundred vectors made by another model), verified, and repaired, again and again
with other points. Then it is verified without damage: half of the runs at rest, half under writers of all nine kinds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from qdrant_client import models

from crossfade.backends.dialect import Float32
from crossfade.backends.embedded.qdrant.server import QdrantServer
from crossfade.proxy.encoders import Role
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.record import Verification
from crossfade.proxy.migration.verbs import Say, Verbs
from tests.proxy.encoding_function import encode_one
from tests.proxy.migration.scenery import Scene, TestEncoder, id_of, set_up, write_at_random

POINTS: Final = 3000
_WRONG_SHARE: Final = 0.01
_WRITERS: Final = 4


class FickleEncoder(TestEncoder):
    """The new model, but another one for the texts in `astray`."""

    astray: frozenset[str] = frozenset()

    async def encode(self, texts: Sequence[str], role: Role) -> Float32:
        rows = await super().encode(texts, role)
        return np.stack([encode_one(text, "other") if text in self.astray else row for text, row in zip(texts, rows)])  # noqa: B905 # one row a text


async def damage(scene: Scene, encoder: FickleEncoder, chance: random.Random) -> dict[str, set[int | str]]:
    """Plant every kind; by kind the points that were hit."""
    client, target = scene.client, scene.record.spec.target
    drawn = chance.sample(range(POINTS), 4 + int(POINTS * _WRONG_SHARE))
    missing, edited, *swapped = (id_of(at) for at in drawn[:4])
    extra = 10_000_000 + chance.randrange(1_000_000)
    wrong = [id_of(at) for at in drawn[4:]]
    encoder.astray = frozenset(f"text {at}" for at in drawn[4:])
    await scene.worker.write(wrong, lambda: None)  # as after a write: they are encoded again, by the other model
    await scene.until_quiet()
    encoder.astray = frozenset()
    await client.delete(target, [missing], wait=True)
    await client.upsert(
        target, [models.PointStruct(id=extra, vector=encode_one("x", "passage").tolist(), payload={})], wait=True
    )
    await client.set_payload(target, {"tag": f"edited {chance.random()}"}, [edited], wait=True)
    there = {one.id: one.vector for one in await client.retrieve(target, swapped, with_vectors=True)}
    crossed = zip(swapped, reversed(swapped), strict=True)
    vectors = [models.PointVectors(id=to, vector=there[of]) for to, of in crossed]  # type: ignore[arg-type] # dense
    await client.update_vectors(target, vectors, wait=True)
    return {
        "missing": {missing},
        "extra": {extra},
        "payload": {edited},
        "vector": set(swapped),
        "encoding": set(wrong),
    }


async def verify(scene: Scene) -> Verification:
    """A new verification to its end."""
    verbs, say = Verbs(scene.store, scene.journal), Say(scene.record.spec.collection, "bench")
    number = (await verbs.verify(say)).verification.id
    record = await scene.until(
        lambda one: one.verification.id == number and one.verification.finished_at is not None, 300
    )
    return record.verification


async def repair(scene: Scene, planted: dict[str, set[int | str]]) -> None:
    """Everything as it was, also what no sample had in it."""
    await Verbs(scene.store, scene.journal).repair(Say(scene.record.spec.collection, "bench"))
    await scene.worker.write(sorted(planted["encoding"], key=str), lambda: None)
    await scene.until_quiet()


@asynccontextmanager
async def writing(scene: Scene, seed: int) -> AsyncIterator[None]:
    """Writers at work on the first 200 points."""
    stop, keys = asyncio.Event(), [id_of(at) for at in range(200)]

    async def keep_writing(number: int) -> None:
        chance = random.Random(seed * 100 + number)
        while not stop.is_set():
            await write_at_random(scene.worker, chance, keys)
            await asyncio.sleep(chance.uniform(0, 0.02))

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(keep_writing(number)) for number in range(_WRITERS)]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def run(runs: int, clean: int, seed: int) -> dict[str, Any]:
    """The figures of all runs."""
    found: Counter[str] = Counter()
    alarms, resting, compared = 0, 0, 0
    with tempfile.TemporaryDirectory() as data, QdrantServer(Path(data) / "q") as server:
        url = f"sqlite:///{Path(data) / 'm.db'}"
        async with set_up(server.grpc_port, server.rest_port, url, POINTS) as scene:
            scene.encoder = encoder = FickleEncoder()
            async with scene.led():
                await scene.until(lambda one: one.state is State.SYNCED, 300)
                for number in range(runs):
                    planted = await damage(scene, encoder, random.Random(seed * 1000 + number))
                    counts = (await verify(scene)).found
                    for kind in ("missing", "extra", "payload", "vector"):
                        found[kind] += counts.get(kind) == len(planted[kind])
                    found["encoding"] += 0 < counts.get("encoding", 0) <= len(planted["encoding"])
                    print(f"run {number}: {counts}", file=sys.stderr, flush=True)  # noqa: T201 # a bench's progress
                    await repair(scene, planted)
                for number in range(clean):
                    if number % 2:
                        async with writing(scene, seed + number):
                            outcome = await verify(scene)
                    else:
                        outcome = await verify(scene)
                        resting += 1
                    alarms += bool(outcome.found)
                    compared += outcome.compared
                    print(f"clean {number}: {outcome.found}", file=sys.stderr, flush=True)  # noqa: T201 # progress
    return {
        "points": POINTS,
        "damaged_runs": runs,
        "runs_that_found_all": dict(found),
        "clean_runs": {"at_rest": resting, "under_writers": clean - resting, "points_compared": compared},
        "false_alarms": alarms,
    }


def main() -> int:
    """Run, write the figures, and fail when damage was overlooked or sound data suspected."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--clean", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/verify.json"))
    asked = parser.parse_args()
    figures = asyncio.run(run(asked.runs, asked.clean, asked.seed))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))  # noqa: T201 # a bench's result
    all_found = all(
        count >= (0.95 if kind == "encoding" else 1) * asked.runs
        for kind, count in figures["runs_that_found_all"].items()
    )
    return 0 if all_found and not figures["false_alarms"] else 1


if __name__ == "__main__":
    sys.exit(main())
