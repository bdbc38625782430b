"""How fast the re-encode is beside its encoder alone: `python -m tests.bench.reencode --out build/reencode.json`.

For each encoder the same texts are first encoded alone (calls as large and as many at a time as the re-encode makes
them), then a migration is run over them: embedded Qdrant in a process of its own, controller here. Rounds alternate,
and the median is reported, with the CPU that each part took. `--resume N` migrates N points in a process that is killed
half-way and started again, and reports how many texts were encoded in all, and how long the new process took from its
start to its first new page.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from qdrant_client import AsyncQdrantClient, models

from crossfade.backends.qdrant.index import QdrantIndex
from crossfade.proxy.encoders import build_encoder
from crossfade.proxy.migration.conduct import Bench, Tools
from crossfade.proxy.migration.journal import Journal
from crossfade.proxy.migration.pace import Pace
from crossfade.proxy.migration.process_mover import ProcessMover
from crossfade.proxy.migration.record import Migration, Spec
from crossfade.proxy.migration.runner import Controller
from crossfade.proxy.migration.store import Store
from tests.bench.reencode_encoders import COUNTED, DIMS
from tests.bench.reencode_parts import CONCURRENCY, model_of, open_mover
from tests.chaos.upstream import Upstream
from tests.proxy.migration.scenery import connect, journal_of
from tests.proxy.serving import ROOT

OLD_DIM: Final = 384
COUNTS: Final = {"use_m3": 1500, "wordllama": 15_000, "service": 15_000, "none": 15_000}
_DATA: Final = Path(os.environ.get("CROSSFADE_DATA", Path(__file__).parents[3] / "shared" / "data"))


class AllSeen:
    """No worker serves: nothing has to be waited for."""

    async def have_seen(self, migration: str, version: int) -> bool:
        return True


def read_texts(n: int) -> list[str]:
    """Documents of msmarco-dl, over and over when there are not enough, each once."""
    path = _DATA / "msmarco-dl" / "docs.jsonl.gz"
    if not path.exists():
        sys.exit(f"no texts at {path}; set CROSSFADE_DATA to a folder with the evaluation data")
    with gzip.open(path, "rt") as lines:
        found = [json.loads(line)["text"] for line in islice(lines, n)]
    return [found[at % len(found)] if at < len(found) else f"{at} {found[at % len(found)]}" for at in range(n)]


async def encode_alone(encoder: str, texts: Sequence[str]) -> float:
    """Texts a second, by the encoder as the re-encode uses it and nothing else."""
    opened = build_encoder(encoder, model_of(encoder))
    await opened.encode(["warm up"], "passage")
    began = time.perf_counter()
    turns = asyncio.Semaphore(CONCURRENCY)

    async def encode(part: Sequence[str]) -> None:
        async with turns:
            await opened.encode(part, "passage")

    await asyncio.gather(*(encode(texts[first : first + 512]) for first in range(0, len(texts), 512)))
    taken = time.perf_counter() - began
    await opened.close()
    return len(texts) / taken


async def fill(client: AsyncQdrantClient, texts: Sequence[str]) -> str:
    """A collection of the old model with these texts."""
    name = f"docs-{uuid.uuid4().hex[:8]}"
    await client.create_collection(name, models.VectorParams(size=OLD_DIM, distance=models.Distance.COSINE))
    rows = np.random.default_rng(0).normal(size=(1000, OLD_DIM)).astype(np.float32)
    for first in range(0, len(texts), 1000):
        part = texts[first : first + 1000]
        batch = models.Batch(
            ids=list(range(first, first + len(part))),
            vectors=rows[: len(part)].tolist(),
            payloads=[{"text": text} for text in part],
        )
        await client.upsert(name, batch, wait=True)
    return name


def spec_of(name: str, encoder: str) -> Spec:
    """A migration to the encoder's model."""
    return Spec(
        collection=name,
        target=f"{name}--new",
        from_model="old",
        to_model=encoder,
        dim=DIMS[encoder],
        text="payload.text",
    )


def tools_of(client: AsyncQdrantClient, url: str, encoder: str) -> Tools:
    """A controller's tools."""

    @asynccontextmanager
    async def open_bench(record: Migration) -> AsyncIterator[Bench]:
        opened = build_encoder(encoder, model_of(encoder))
        process = ProcessMover(partial(open_mover, client.init_options["grpc_port"], record.spec))
        try:
            yield Bench(QdrantIndex(client), opened, process=process)
        finally:
            process.close()
            await opened.close()

    return Tools(Store(url), Journal(journal_of(url)), AllSeen(), open_bench)


async def migrate(client: AsyncQdrantClient, name: str, encoder: str, url: str, pace: Pace) -> float:
    """Points a second, from the first page to the last."""
    tools = tools_of(client, url, encoder)
    planned = await tools.store.plan(spec_of(name, encoder), "bench", "")
    await tools.store.change(planned.id, lambda one: one.model_copy(update={"started": True}))
    await tools.store.change(planned.id, lambda one: one.model_copy(update={"pace": pace}))
    controller = asyncio.ensure_future(Controller(tools).run())
    while True:
        await asyncio.sleep(0.05)
        record = await tools.store.read(planned.id)
        if record.checkpoint.done:
            break
    began = next(event.at for event in await tools.store.events(planned.id) if event.step == "backfill")
    taken = time.time() - began
    controller.cancel()
    await asyncio.gather(controller, return_exceptions=True)
    await QdrantIndex(client).drop(record.spec.target)
    tools.journal.shut()
    tools.store.shut()
    return record.checkpoint.points / taken


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def shares_of(spent: Sequence[float]) -> dict[str, float]:
    """Microseconds of CPU a point, which other programs on the machine change little; and the encoder's share of them.

    The share is the ratio that can be had where all of them fill the same cores; `at best`: if it took nothing.
    """
    encoder, here, database = spent
    return {
        "encoder": round(encoder, 1),
        "re-encode beside it": round(here - encoder, 1),
        "database": round(database, 1),
        "encoder's share": round(encoder / (here + database), 3),
        "at best": round(encoder / (encoder + database), 3),
    }


async def measure(encoders: Sequence[str], rounds: int, scale: float, pace: Pace) -> dict[str, Any]:
    """Both figures for each encoder."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, Upstream(Path(folder) / "q") as upstream:
        client = connect(upstream.grpc_port, upstream.rest_port)
        for encoder in encoders:
            texts = read_texts(max(64, int(COUNTS[encoder] * scale)))
            name = await fill(client, texts)
            alone, migrated, spent = [], [], []
            assert upstream.process is not None  # it has been started
            server = upstream.process.pid
            for number in range(rounds):
                clocks = [time.process_time()]
                alone.append(await encode_alone(encoder, texts))
                clocks += [time.process_time(), cpu_of(server)]
                url = f"sqlite:///{folder}/{encoder}{number}.db"
                migrated.append(await migrate(client, name, encoder, url, pace))
                here, there = time.process_time() - clocks[1], cpu_of(server) - clocks[2]
                spent.append([one / len(texts) * 1e6 for one in (clocks[1] - clocks[0], here, there)])
            ratios = [new / old for new, old in zip(migrated, alone, strict=True)]
            figures[encoder] = {
                "points": len(texts),
                "alone_per_second": round(statistics.median(alone), 1),
                "migrated_per_second": round(statistics.median(migrated), 1),
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(one, 3) for one in ratios],
                "cpu_us_a_point": shares_of(np.median(np.array(spent), axis=0).tolist()),
            }
            print(encoder, figures[encoder], file=sys.stderr, flush=True)  # noqa: T201 # a bench's progress
        await client.close()
    return figures


async def lead(url: str, grpc_port: int, rest_port: int, encoder: str) -> None:
    """The process that is killed; it says when its modules are loaded."""
    print("up", flush=True)  # noqa: T201 # read by `resume`
    await Controller(tools_of(connect(grpc_port, rest_port), url, encoder)).run()


async def resume(points: int, encoder: str) -> dict[str, Any]:
    """Kill at half, start again, and see what it cost."""
    with tempfile.TemporaryDirectory() as folder, Upstream(Path(folder) / "q") as upstream:
        client = connect(upstream.grpc_port, upstream.rest_port)
        url = f"sqlite:///{folder}/m.db"
        store, counted = Store(url), Path(folder) / "counted"
        name = await fill(client, [f"text {at}" for at in range(points)])
        planned = await store.plan(spec_of(name, encoder), "bench", "")
        await store.change(planned.id, lambda one: one.model_copy(update={"started": True}))

        async def start() -> asyncio.subprocess.Process:
            command = ["-m", "tests.bench.reencode", "--lead", url, str(upstream.grpc_port), str(upstream.rest_port)]
            environment = {**os.environ, COUNTED: str(counted)}
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, *command, "--encoders", encoder),
                cwd=ROOT,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
            )
            assert child.stdout is not None  # a pipe
            assert await child.stdout.readline() == b"up\n"
            return child

        async def until(enough: int) -> float:
            while (await store.read(planned.id)).checkpoint.points < enough:
                await asyncio.sleep(0.02)
            return time.perf_counter()

        child = await start()
        await until(points // 2)
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
        half = (await store.read(planned.id)).checkpoint.points
        began = time.perf_counter()
        child = await start()
        loaded = time.perf_counter() - began
        resumed = await until(half + 1) - began
        await until(points)
        encoded = sum(map(int, counted.read_text().split()))
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
        await client.close()
        store.shut()
    return {
        "points": points,
        "noted_before_the_kill": half,
        "texts_encoded": encoded,
        "total_work": round(encoded / points, 4),
        "seconds_to_first_new_page": round(resumed, 2),
        "of_these_loading_modules": round(loaded, 2),
    }


def main() -> int:
    """Run and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoders", nargs="*", default=list(COUNTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of points")
    parser.add_argument("--pace", type=Pace.model_validate_json, default=Pace(), help="limits, as JSON")
    parser.add_argument("--resume", type=int, default=0, metavar="POINTS")
    parser.add_argument("--lead", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("build/reencode.json"))
    asked = parser.parse_args()
    if asked.lead:
        url, grpc_port, rest_port = asked.lead
        asyncio.run(lead(url, int(grpc_port), int(rest_port), asked.encoders[0]))
        return 0
    figures = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    if asked.resume:
        figures["resume"] = asyncio.run(resume(asked.resume, "none"))
    else:
        figures |= asyncio.run(measure(asked.encoders, asked.rounds, asked.scale, asked.pace))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))  # noqa: T201 # a bench's result
    return 0


if __name__ == "__main__":
    sys.exit(main())
