"""What the supervisor sees of the serving: the workers' tallies, remembered for some minutes, so that spans can be
compared."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from .migration.guardrails import Seen
from .migration.record import Migration
from .old_clients import OldClients
from .telemetry import BOUNDS, Latency, Tally, sum_tallies

_EVERY: Final = 1.0
_KEPT: Final = 3700  # looks
_LATENCY_SECONDS: Final = 10.0
_LEAST: Final = 20  # answers below which a p99 says nothing


class ServingWatch:
    """Looks at the tallies in a run directory once a second; asked for a span, it answers with the difference."""

    def __init__(self, run_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._run_dir, self._clock = run_dir, clock
        self._looks: deque[tuple[float, Tally]] = deque(maxlen=_KEPT)
        self._old: OldClients | None = None

    def remember(self, old: OldClients) -> None:
        """Keep there which models clients use."""
        self._old = old

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look(await asyncio.to_thread(sum_tallies, self._run_dir))
            if self._old is not None:
                await asyncio.to_thread(self._old.save)
            await asyncio.sleep(_EVERY)

    def look(self, tally: Tally) -> None:
        """Remember a tally."""
        self._looks.append((self._clock(), tally))
        if self._old is not None:
            self._old.take(tally)

    def latency_ms(self) -> float | None:
        """p99 of the database's answers in the last seconds, in ms; None while there are too few to tell."""
        span = self._span(_LATENCY_SECONDS)
        p99 = None if span is None else find_p99(span[0].latency["upstream"], span[1].latency["upstream"])
        return None if p99 is None else p99 * 1000

    def seen(self, collection: str, seconds: float) -> Seen:
        """Reads of a collection under migration in the last so many seconds."""
        span = self._span(seconds)
        if span is None:
            return Seen()
        before, after = span
        shadowed = after.shadows[collection, "compared"] - before.shadows[collection, "compared"]
        overlap = after.overlap[(collection,)] - before.overlap[(collection,)]
        return Seen(
            requests=_count(after.reads, collection) - _count(before.reads, collection),
            failed=_count(after.fallbacks, collection) - _count(before.fallbacks, collection),
            p99=find_p99(before.read_latency[collection], after.read_latency[collection]),
            shadowed=shadowed,
            overlap=overlap / shadowed if shadowed else None,
        )

    def ways(self, collection: str, seconds: float) -> Mapping[str, int]:
        """How reads of a collection were answered in the last so many seconds, by strategy."""
        span = self._span(seconds)
        if span is None:
            return {}
        before, after = span
        counts = {
            way: count - before.reads[name, way] for (name, way), count in after.reads.items() if name == collection
        }
        return {way: count for way, count in sorted(counts.items()) if count}

    def old_clients(self, record: Migration) -> str | None:
        """Who has lately asked with another model than the new one, in words; None when nobody has."""
        late = {} if self._old is None else self._old.late(record.spec.collection, time.time())
        if not late:
            return None
        told = ", ".join(f"{count} with {model!r}, the last {ago:.0f} s ago" for model, (ago, count) in late.items())
        return f"clients still ask with another model ({told}); move them to {record.spec.to_model!r}, or say --force"

    def _span(self, seconds: float) -> tuple[Tally, Tally] | None:
        """The first look within the span and the last one."""
        if not self._looks:
            return None
        since = self._clock() - seconds
        first = next((tally for at, tally in self._looks if at >= since), None)
        return None if first is None else (first, self._looks[-1][1])


def _count(counts: Mapping[Any, int], collection: str) -> int:
    return sum(count for key, count in counts.items() if key[0] == collection)


def find_p99(before: Latency, after: Latency) -> float | None:
    """The 99th percentile in seconds of what was observed between two states of a histogram.

    Linear within its bucket, as Prometheus' histogram_quantile; the last bound for what lies above it.
    """
    counts = [late - early for early, late in zip(before.counts, after.counts, strict=True)]
    total = sum(counts)
    if total < _LEAST:
        return None
    rank, below = 0.99 * total, 0
    for number, count in enumerate(counts[:-1]):
        if below + count >= rank:
            low = BOUNDS[number - 1] if number else 0.0
            return low + (BOUNDS[number] - low) * (rank - below) / count
        below += count
    return BOUNDS[-1]
