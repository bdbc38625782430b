"""Prometheus metrics of migrations, from their status."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .migration.machine import State
from .migration.verbs import Status

_GAUGES: Final[dict[str, tuple[str, Callable[[Status], float | None]]]] = {
    "points": ("Points of the old index when the copying began.", lambda one: one.total),
    "copied_points": ("Of them, those brought over.", lambda one: one.copied),
    "points_per_second": ("How fast the copying is.", lambda one: one.rate),
    "eta_seconds": ("When the copying will have ended.", lambda one: one.eta),
    "backlog_points": ("Written points that are not brought over yet.", lambda one: one.backlog.count),
    "backlog_age_seconds": ("How long the oldest of them has waited.", lambda one: one.backlog.age),
    "dead_letters": ("Points without new vector.", lambda one: one.dead_letters),
    "percent": (
        "Of a hundred clients, those whose reads the new index answers.",
        lambda one: 100.0 if one.state is State.COMPLETED else one.percent,
    ),
    "shadow_percent": ("Of a hundred queries, those sent to the new index as well.", lambda one: one.shadow),
    "paused": ("1 while an operator has stopped the copying.", lambda one: one.paused),
    "throttled": ("1 while a limit holds the copying.", lambda one: one.throttled is not None),
    "stepped_back": ("1 since a guardrail has lowered the share.", lambda one: one.stepped_back is not None),
    "refitted_pairs": ("Points the adapter was last fitted again on; 0: never.", lambda one: one.refitted),
    "gates_closed": ("Conditions that a switch waits for.", lambda one: len(one.gates)),
    "verified_time_seconds": ("When a verification ended last; 0: never.", lambda one: one.verified_at or 0.0),
}
_COUNTERS: Final[dict[str, tuple[str, Callable[[Status], float]]]] = {
    "written_points": ("Points written to the new index.", lambda one: one.tally.written),
    "deleted_points": ("Points deleted from the new index.", lambda one: one.tally.deleted),
    "encoded_texts": ("Texts encoded.", lambda one: one.tally.encoded),
    "encoded_tokens": ("Tokens encoded, estimated.", lambda one: one.tally.tokens),
}


class MigrationsCollector(Collector):
    """The newest migration of each collection as metric families."""

    def __init__(self, statuses: Sequence[Status]) -> None:
        self._statuses = statuses

    def collect(self) -> Iterator[Metric]:
        """One family for each figure, and the state as one series for each that there is."""
        states = GaugeMetricFamily(
            "crossfade_migration_state", "1 for the state it is in.", labels=["collection", "target", "state"]
        )
        findings = GaugeMetricFamily(
            "crossfade_migration_findings", "What the last verification found.", labels=["collection", "kind"]
        )
        for one in self._statuses:
            for state in State:
                states.add_metric([one.collection, one.spec.target, state], float(one.state is state))
            for kind, count in one.findings.items():
                findings.add_metric([one.collection, kind], count)
        yield states
        yield findings
        for name, (text, read) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"crossfade_migration_{name}", text, labels=["collection"])
            for one in self._statuses:
                if (value := read(one)) is not None:
                    gauge.add_metric([one.collection], float(value))
            yield gauge
        for name, (text, count_of) in _COUNTERS.items():
            counter = CounterMetricFamily(f"crossfade_migration_{name}", text, labels=["collection"])
            for one in self._statuses:
                counter.add_metric([one.collection], count_of(one))
            yield counter
