"""What the supervisor concludes from the workers' tallies."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import pytest

from crossfade.proxy.migration.record import Migration, Spec
from crossfade.proxy.old_clients import OldClients
from crossfade.proxy.serving_watch import ServingWatch, find_p99
from crossfade.proxy.telemetry import Latency, Tally


def observed(*seconds: float) -> Latency:
    latency = Latency()
    for one in seconds:
        latency.observe(one)
    return latency


def test_the_p99_lies_within_the_bucket_that_has_it() -> None:
    found = find_p99(observed(), observed(*[0.003] * 99, *[0.08] * 2))
    assert found is not None
    assert 0.05 < found <= 0.1
    assert find_p99(observed(), observed(*[0.003] * 19)) is None  # too few to tell
    assert find_p99(observed(), observed(*[60.0] * 50)) == 10.0  # beyond the last bound


def test_only_what_came_in_the_span_counts(tmp_path: Path) -> None:
    clock = 0.0
    watch = ServingWatch(tmp_path, lambda: clock)
    assert watch.latency_ms() is None
    slow, quick = Tally(), Tally()
    slow.latency["upstream"] = observed(*[0.5] * 100)
    slow.read_latency["docs"] = observed(*[0.7] * 100)
    slow.reads["docs", "crossfade"] = 100
    slow.fallbacks["docs", "crossfade", "slow"] = 60
    quick.latency["upstream"] = observed(*[0.5] * 100, *[0.0015] * 100)
    quick.read_latency["docs"] = observed(*[0.7] * 100, *[0.0015] * 100)
    quick.read_latency["other"] = observed(*[0.9] * 100)
    quick.reads["docs", "crossfade"] = 100
    quick.reads["docs", "native"] = 100
    quick.reads["other", "native"] = 7
    quick.fallbacks["docs", "crossfade", "slow"] = 60
    quick.fallbacks["docs", "native", "down"] = 1
    quick.shadows["docs", "compared"] = 4
    quick.overlap[("docs",)] = 3.0
    watch.look(Tally())
    clock = 20.0
    watch.look(slow)
    clock = 25.0
    watch.look(quick)
    assert watch.latency_ms() == pytest.approx(1.99, abs=0.02)
    seen = watch.seen("docs", 8.0)
    assert (seen.requests, seen.failed) == (100, 1)
    assert seen.p99 == pytest.approx(0.00199, abs=2e-5)
    assert (seen.shadowed, seen.overlap) == (4, 0.75)
    assert watch.seen("docs", 60.0).failed == 61
    assert watch.ways("docs", 8.0) == {"native": 100}
    assert watch.seen("absent", 60.0).requests == 0


def test_queries_of_other_models_are_told_while_they_come(tmp_path: Path) -> None:
    def start() -> ServingWatch:
        watch = ServingWatch(tmp_path)
        watch.remember(OldClients(tmp_path / "kept" / "old.json"))
        return watch

    watch, tally = start(), Tally()
    spec = Spec(collection="docs", target="new", from_model="old", to_model="new", dim=8, text="text")
    tally.old_queries["docs", "old"] = 3
    tally.last_old["docs", "old"] = time.time() - 5
    tally.last_old["docs", "older"] = time.time() - 3600
    watch.look(tally)
    told = watch.old_clients(Migration(id="m", spec=spec)) or ""
    assert told.startswith("clients still ask with another model (3 with 'old', the last 5 s ago); move them to 'new'")
    other = spec.model_copy(update={"collection": "other"})
    assert watch.old_clients(Migration(id="m", spec=other)) is None

    asyncio.run(run_briefly(watch, tally, tmp_path))
    again = start()
    again.look(Tally())
    assert (again.old_clients(Migration(id="m", spec=spec)) or "").startswith(told.partition(", the last")[0])
    tally.last_old["docs", "old"] = time.time()
    again.look(tally)
    assert "6 with 'old', the last 0 s ago" in (again.old_clients(Migration(id="m", spec=spec)) or "")
    (tmp_path / "kept" / "old.json").write_text("[1]")
    assert start().old_clients(Migration(id="m", spec=spec)) is None, "a broken file is as good as none"


async def run_briefly(watch: ServingWatch, tally: Tally, run_dir: Path) -> None:
    """Let a watch look at a tally that a worker has written."""
    (run_dir / "tally-1.json").write_bytes(tally.dump())
    with suppress(TimeoutError):
        await asyncio.wait_for(watch.run(), 0.5)
