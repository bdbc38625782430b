"""The figures that were asked of adapters, each with what was measured: the first table of docs/quality.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.metrics import resampled_means

Rows = Sequence[dict[str, Any]]
Float64 = NDArray[np.float64]
NAMED = (("scifact", 4_146, 0.89), ("msmarco-dl", 8_000, 0.99), ("cranfield", 1_118, 0.98), ("med", 826, 1.02),
         ("msmarco-dl", 2_000, 0.88))  # fmt: skip
MIXED = tuple((*models, pairs) for pairs in (2_000, 8_000, 20_321)
              for models in (("minilm-l6", "e5-small"), ("e5-small", "minilm-l6")))  # fmt: skip
BASELINES = ("procrustes uncentred", "procrustes")
GLOBAL = ("linear", "coherence", "whitened")
FAMILIES = (*BASELINES, *GLOBAL, "ridge", "scaled", "lowrank", "local", "residual", "local+residual")
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Line:
    """One requirement: what was asked, what was measured with its 95 % interval, on how many seeds, reached or not."""

    what: str
    asked: str
    measured: str
    seeds: int
    reached: bool | None

    def row(self) -> str:
        said = {True: "yes", False: "**no**", None: "not measured in full"}[self.reached]
        return f"| {self.what} | {self.asked} | {self.measured} | {self.seeds} | {said} |"


@dataclass(frozen=True)
class Fit:
    """One case over its seeds: per-query figures by method and seed; members where the corpus is joined."""

    values: dict[str, dict[int, Float64]]
    members: dict[int, NDArray[np.int64] | None]

    def seeds(self, *methods: str) -> list[int]:
        """Seeds that have all of the methods."""
        return sorted(set.intersection(*(set(self.values.get(method, {})) for method in methods)))

    def mean(self, method: str, seeds: Sequence[int]) -> float:
        return float(np.mean([self._figure(self.values[method][seed], seed) for seed in seeds]))

    def apart(self, first: str, second: str, seeds: Sequence[int]) -> tuple[float, float, float, float]:
        """Mean of first - second, its central 95 % and two-sided p: queries are resampled within seed and member."""
        drawn: list[Float64] = []
        means: list[float] = []
        for seed in seeds:
            gap = self.values[first][seed] - self.values[second][seed]
            means.append(self._figure(gap, seed))
            parts = [
                resampled_means(part, rounds=2_000, seed=seed + at) for at, part in enumerate(self._parts(gap, seed))
            ]
            drawn.append(np.mean(parts, axis=0))
        total = np.mean(drawn, axis=0)
        low, high = np.percentile(total, [2.5, 97.5])
        tail = min(float(np.mean(total <= 0)), float(np.mean(total >= 0)))
        return float(np.mean(means)), float(low), float(high), min(1.0, max(2 * tail, 1 / 2_000))

    def _parts(self, values: Float64, seed: int) -> list[Float64]:
        members = self.members[seed]
        if members is None:
            return [values]
        return [values[members == one] for one in np.unique(members)]

    def _figure(self, values: Float64, seed: int) -> float:
        return float(np.mean([part.mean() for part in self._parts(values, seed)]))


def gather(rows: Rows, kind: str, key: Callable[[dict[str, Any]], Any]) -> dict[Any, Fit]:
    """Cases of one kind by a key."""
    fits: dict[Any, Fit] = {}
    for row in rows:
        if row["kind"] != kind:
            continue
        fit = fits.setdefault(key(row), Fit({}, {}))
        fit.values.setdefault(row["method"], {})[row["seed"]] = np.array(row["values"])
        fit.members[row["seed"]] = np.array(row["members"]) if "members" in row else None
    return fits


@dataclass(frozen=True)
class Planned:
    """How many fits and half-migrated cases the whole pack has; a claim about all of it needs them all."""

    fits: int
    migrations: int


def required_table(rows: Rows, planned: Planned) -> str:
    """Every required line that offline quality can answer; what is asked of the whole pack needs all of it measured."""
    fits = gather(rows, "families", lambda row: (row["collection"], row["old_model"], row["new_model"], row["case"]))
    lines = [*_auto(fits, planned.fits), *_named(fits), *_mixed(fits), *_migration(rows, planned.migrations)]
    head = "| what | asked | measured (mean over seeds; 95 %) | seeds | reached |\n|---|---|---|---|---|\n"
    return head + "\n".join(line.row() for line in lines) + "\n"


def _auto(fits: dict[Any, Fit], planned: int) -> Iterator[Line]:
    gaps = []
    for key, fit in fits.items():
        seeds = fit.seeds("auto")
        families = [one for one in FAMILIES if fit.seeds("auto", one) == seeds]
        best = max(families, key=lambda one: fit.mean(one, seeds))
        gaps.append((*fit.apart("auto", best, seeds), key, best, len(seeds)))
    if not gaps:
        return
    short = [gap for gap in gaps if gap[0] < -0.005]
    sure = [gap for gap in short if gap[2] < -0.005]
    worst = min(gaps, key=lambda gap: gap[0])
    whole = len(gaps) >= planned
    part = f"{len(gaps)} of the pack's {planned} fits measured"
    told = f"{part}, {len(gaps) - len(short)} reach it; worst {worst[0]:+.3f} ({worst[1]:+.3f} to {worst[2]:+.3f}; "
    told += f"{worst[4][0]} {worst[4][1]} → {worst[4][2]}, {worst[4][3]:,} pairs, {worst[5]}); {len(sure)} surely short"
    fewest = min(gap[6] for gap in gaps)
    yield Line(
        "`auto` against the best single family of a line",
        "≥ -.005 everywhere",
        told,
        fewest,
        _verdict(not short, whole),
    )
    for baseline in BASELINES:
        found = [fit.apart("auto", baseline, fit.seeds("auto", baseline))[0] for fit in fits.values()]
        gain = float(np.mean(found))
        told = f"{gain:+.3f} ({part})"
        yield Line(f"`auto` against {baseline}, mean", "≥ +.03", told, fewest, (gain >= 0.03) if whole else None)


def _verdict(held: bool, whole: bool) -> bool | None:
    """A claim about everything fails by one exception, and holds only when everything was measured."""
    return held if whole or not held else None


def _named(fits: dict[Any, Fit]) -> Iterator[Line]:
    for name, size, asked in NAMED:
        what = f"{name}, MiniLM-L6 → E5-small, {size:,} pairs, of the status quo"
        fit = fits.get((name, "minilm-l6", "e5-small", size))
        if fit is None:
            yield Line(what, f"≥ {asked}", "", 0, None)
            continue
        seeds = fit.seeds("auto", "status quo")
        base = fit.mean("status quo", seeds)
        gap, low, high, _ = fit.apart("auto", "status quo", seeds)
        share = 1 + gap / base
        told = f"{share:.3f} ({1 + low / base:.3f} to {1 + high / base:.3f})"
        yield Line(what, f"≥ {asked}", told, len(seeds), share >= asked)


def _mixed(fits: dict[Any, Fit]) -> Iterator[Line]:
    for old, new, pairs in MIXED:
        fit = fits.get(("hetero", old, new, pairs), Fit({}, {}))
        seeds = fit.seeds("auto", "local", "linear", "whitened")
        if not seeds:
            yield Line(
                f"hetero, {old} → {new}, {pairs:,} pairs: local experts, `auto`",
                "≥ +.03 and ≥ .56" if pairs > 10_000 else "≥ -.003",
                "",
                0,
                None,
            )
            continue
        best = max(("linear", "whitened"), key=lambda one: fit.mean(one, seeds))  # called at once
        gap, low, high, p = fit.apart("local", best, seeds)
        half = pairs > 10_000
        told = f"{gap:+.3f} ({low:+.3f} to {high:+.3f}, p {p:.4f})"
        what = f"hetero, {old} → {new}, {pairs:,} pairs: local experts against the best global map ({best})"
        reached = (gap >= 0.03 and p < 0.05) if half else gap >= -0.003
        yield Line(what, "≥ +.03, p < .05" if half else "≥ -.003", told, len(seeds), reached)
        if half and new == "e5-small":
            value = fit.mean("auto", seeds)
            yield Line(
                f"hetero, {old} → {new}, {pairs:,} pairs: `auto`", "≥ .56", f"{value:.3f}", len(seeds), value >= 0.56
            )


def _migration(rows: Rows, planned: int) -> Iterator[Line]:
    fits = gather(
        rows, "migration", lambda row: (row["collection"], row["old_model"], row["new_model"], row["migrated"])
    )
    if not fits:
        return
    few = min(len(fit.seeds("adapt", "crossfade")) for fit in fits.values())
    cases = len({key[:3] for key in fits})
    whole = cases >= planned
    part = f"{cases} of {planned} cases measured"
    against = _gaps(fits, "crossfade", ("adapt",))
    yield _worst("half migrated, below 100 %: crossfade against adapt", against, few, part, whole)
    yield _late("the same, mean from 50 to 90 % migrated", against, few, part, whole)
    better = _gaps(fits, "crossfade, legacy-encoded", ("adapt", "status quo"))
    yield _worst(
        "half migrated, below 100 %: legacy-encoded queries against the better of both", better, few, part, whole
    )
    probed = _gaps(fits, "by a verdict", ("adapt",))
    yield _worst("the same after a probe with judged queries, as vectors: against adapt", probed, few, part, whole)
    yield _late("the same, mean from 50 to 90 % migrated", probed, few, part, whole)
    texts = _gaps(fits, "by a verdict, texts", ("adapt", "status quo"))
    yield _worst("after a probe, as texts: against the better of both", texts, few, part, whole)
    yield _late("the same, mean from 50 to 90 % migrated", texts, few, part, whole)
    strong = {key: fit for key, fit in fits.items() if key[:2] == ("msmarco-dl", "wordllama")}
    gaps = {key[3]: fit.apart("crossfade", "status quo", fit.seeds("crossfade")) for key, fit in strong.items()}
    if gaps:
        worst = min(gaps.values())
        told = f"{worst[0]:+.3f} ({worst[1]:+.3f} to {worst[2]:+.3f}) at the lowest share"
        what = "msmarco-dl, WordLlama → MiniLM-L6: crossfade against the status quo, from 0 % on"
        yield Line(what, "> 0", told, few, worst[0] > 0)


def _gaps(fits: dict[Any, Fit], way: str, references: tuple[str, ...]) -> dict[Any, tuple[float, float, float, float]]:
    """A way of asking against the best of the references, by case and share; none where it was not measured."""
    found = {}
    for key, fit in fits.items():
        seeds = fit.seeds(way, *references)
        if seeds:
            found[key] = fit.apart(way, max(references, key=lambda one: fit.mean(one, seeds)), seeds)  # called at once
    return found


def _late(what: str, gaps: dict[Any, tuple[float, float, float, float]], seeds: int, part: str, whole: bool) -> Line:
    late = [gap[0] for key, gap in gaps.items() if key[3] in SHARES[2:]]
    last = [gap[0] for key, gap in gaps.items() if key[3] in (*SHARES[2:], 1.0)]
    told = f"{np.mean(late):+.3f}, and {np.mean(last):+.3f} with 100 % ({part})"
    return Line(what, "≥ +.02", told, seeds, float(np.mean(late)) >= 0.02 if whole else None)


def _worst(what: str, gaps: dict[Any, tuple[float, float, float, float]], seeds: int, part: str, whole: bool) -> Line:
    inner = {key: gap for key, gap in gaps.items() if key[3] < 1}
    key, gap = min(inner.items(), key=lambda item: item[1][0])
    short = sum(one[0] < -0.01 for one in inner.values())
    told = f"{part}; worst {gap[0]:+.3f} ({gap[1]:+.3f} to {gap[2]:+.3f}; {key[0]} {key[1]} → {key[2]}, {key[3]:.0%}); "
    told += f"{len(inner) - short} of {len(inner)} shares reach it"
    return Line(what, "≥ -.01 everywhere", told, seeds, _verdict(not short, whole))
