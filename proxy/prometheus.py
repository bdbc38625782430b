"""Prometheus metrics of the whole process tree: the workers' tallies, the supervisor's own, and Envoy's beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from .telemetry import BOUNDS, Tally, sum_tallies


class TallyCollector(Collector):
    """The tallies of all workers as metric families."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def collect(self) -> Iterator[Metric]:
        """One family for each kind of count."""
        tally = sum_tallies(self._run_dir)
        yield _counter(
            "crossfade_requests",
            "Requests by operation and what was done.",
            ("operation", "transport", "done"),
            tally.requests,
        )
        yield _counter(
            "crossfade_routed_requests",
            "Requests by the route they took: fast (done by Envoy, its answer not read here) or full.",
            ("route",),
            tally.routes,
        )
        yield _counter("crossfade_errors", "Errors by operation and kind.", ("operation", "kind"), tally.errors)
        yield _counter(
            "crossfade_foreign_vectors",
            "Requests with a vector that does not look like its model's.",
            ("collection", "model"),
            tally.foreign,
        )
        yield from _migrations(tally)
        yield _latency(tally)


class SupervisorCollector(Collector):
    """What the supervisor knows, handed in as a function so that it is read when asked."""

    def __init__(self, gauges: Mapping[str, tuple[str, float]], workers: Mapping[str, tuple[int, int]]) -> None:
        self._gauges = gauges
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """The configuration's generation and each worker's."""
        for name, (text, value) in self._gauges.items():
            yield GaugeMetricFamily(name, text, value=value)
        generation = GaugeMetricFamily(
            "crossfade_worker_generation", "Configuration a worker serves with.", labels=["worker"]
        )
        restarts = CounterMetricFamily(
            "crossfade_worker_restarts", "Times a worker was started again.", labels=["worker"]
        )
        for index, (current, count) in self._workers.items():
            generation.add_metric([index], current)
            restarts.add_metric([index], count)
        yield generation
        yield restarts


class EnvoyCollector(Collector):
    """Envoy's own statistics, each worker's under a `worker` label."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        """Families of the same name joined over the workers."""
        joined: dict[str, Metric] = {}
        for worker, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                into = joined.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    into.add_sample(sample.name, {**sample.labels, "worker": worker}, sample.value)
        yield from joined.values()


def render(collectors: list[Collector]) -> bytes:
    """The exposition text of these collectors."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)


def _counter(name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, count in sorted(counts.items()):
        family.add_metric(key, count)
    return family


def _migrations(tally: Tally) -> Iterator[Metric]:
    """How reads of collections under migration are answered, and how shadow queries compare."""
    yield _counter(
        "crossfade_migration_reads",
        "Reads of a collection under migration, by how they were answered.",
        ("collection", "strategy"),
        tally.reads,
    )
    yield _counter(
        "crossfade_migration_fallbacks",
        "Reads that the old index answered alone instead.",
        ("collection", "strategy", "reason"),
        tally.fallbacks,
    )
    yield _counter(
        "crossfade_migration_old_queries",
        "Queries of other models than the new one.",
        ("collection", "model"),
        tally.old_queries,
    )
    seen = GaugeMetricFamily(
        "crossfade_migration_old_query_time_seconds", "When such a query came last.", labels=("collection", "model")
    )
    for pair, at in sorted(tally.last_old.items()):
        seen.add_metric(pair, at)
    yield seen
    yield _counter(
        "crossfade_migration_shadows", "Shadow queries, by outcome.", ("collection", "outcome"), tally.shadows
    )
    yield _counter(
        "crossfade_migration_shadow_overlap",
        "Sum of overlap@10 of compared shadow queries.",
        ("collection",),
        tally.overlap,
    )
    yield _counter(
        "crossfade_migration_shadow_seconds",
        "Seconds that compared shadow queries took.",
        ("collection",),
        tally.shadow_seconds,
    )


def _latency(tally: Tally) -> Metric:
    family = HistogramMetricFamily(
        "crossfade_stage_seconds", "Time spent on a request, by stage: detect, map, upstream.", labels=["stage"]
    )
    for stage, latency in tally.latency.items():
        running, buckets = 0, []
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), latency.counts, strict=True):
            running += count
            buckets.append((bound, float(running)))
        family.add_metric([stage], buckets, latency.total)
    return family
