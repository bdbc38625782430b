"""What the supervisor concludes from the workers' tallies."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    slow.requests["Search", "grpc", "adapted"] = 100
    slow.errors["Search", "upstream_down"] = 60
    quick.latency["upstream"] = observed(*[0.5] * 100, *[0.0015] * 100)
    quick.requests["Search", "grpc", "adapted"] = 200
    quick.errors["Search", "upstream_down"] = 61
    watch.look(Tally())
    clock = 20.0
    watch.look(slow)
    clock = 25.0
    watch.look(quick)
    assert watch.latency_ms() == pytest.approx(1.99, abs=0.02)
    seen = watch.seen("docs", 8.0)
    assert (seen.requests, seen.failed) == (100, 1)
    assert seen.p99 == pytest.approx(0.00199, abs=2e-5)
    assert watch.seen("docs", 60.0).failed == 61
