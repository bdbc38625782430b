"""Candidates for an adapter: which recipes are tried, and in which order.

The search goes by stages: the plain map (of unit vectors the whitened one, up to twice as many pairs as dimensions the
coherence map; of others the scaled rotation), nearest pairs that correct it, local experts on it, and those on the best
experts. choice.py says which wins.

What held-out neighbours cannot choose is fixed. They stand on a small part of the collection, where coarse likeness is
enough, and so ask for larger offsets and documents' centres than judged queries do: chosen by them, linear maps were
.02 nDCG@10 worse on average than with queries centred on their own mean and OFFSET of the target's, on every share of
pairs (measured on eight collections that are not among those of the required figures). For the same reason they take
the rotation for as good as a map that whitens. Judged queries, where given, do choose all of these.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from math import inf

import numpy as np

from .base import PairsError
from .choice import BASELINES, METHODS, PLAIN, Candidate, Selection, belongs, choose
from .recipe import WHITENING, Centring, Experts, Memory, Recipe, Workshop
from .trial import AnyTrial, JudgedTrial

Progress = Callable[[int, int, str], None]
RIDGES = (0.3, 1.0, 3.0)
OFFSET = 0.25  # of the target's mean: all of it draws every query towards the same documents
OFFSETS = (0.0, 0.25, 0.5, 1.0)  # where judged queries choose
EXPERTS = tuple(
    Experts(clusters, prior, temperature=0.2, active=4) for prior in (300.0, 100.0) for clusters in (12, 32)
)
NEIGHBOURS, SHARPNESS = 16, 0.05  # of what corrects a query: pairs, and the temperature of their cosines
WEIGHTS = (0.0, 0.1, 0.2, 0.35, 0.5)  # of residuals, where judged queries choose
UNKNOWN_SHARE = 0.3  # of the collection that is paired, where nobody said
MOST_FOR_COHERENCE = 2  # pairs a dimension: with more the whitened map is as sure, and judged queries prefer it
LEAST_FOR_EXPERTS = 1_000  # pairs: below, a cluster has too few to say anything about


def select_recipe(
    trials: Sequence[AnyTrial],
    *,
    method: str = "auto",
    baselines: bool = False,
    count: int = 0,
    seed: int = 0,
    budget_seconds: float | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Try the recipes of a method on every trial and return the best.

    count is the number of pairs of the final fit; `baselines` tries the published maps too, for the table alone.
    """
    if method not in METHODS:
        raise PairsError(f"method is {method!r}: it must be one of {', '.join(METHODS)}")
    search = _Search(trials, seed, budget_seconds, progress)
    for stage in _stages(search, method, max(count, len(trials[0].fit))):
        search.run(stage)
    if baselines:
        search.run([*_baselines(search, "all"), *_finite_ridges(search)])
    ranked = tuple(sorted(search.tried.values(), key=lambda candidate: -candidate.score))
    allowed = [one for one in search.tried.values() if belongs(one.recipe, method, search.plain)]
    winner = choose(allowed, judged=search.judged)
    return Selection(winner, ranked, not search.stopped, search.plain, search.judged)


def compare_recipes(trials: Sequence[AnyTrial], recipes: Iterable[Recipe], *, seed: int = 0) -> Selection:
    """Try these recipes alone on every trial and return the best."""
    search = _Search(trials, seed, None, None)
    search.run(recipes)
    ranked = tuple(sorted(search.tried.values(), key=lambda candidate: -candidate.score))
    return Selection(choose(ranked), ranked, True)


def memory_for(share: float | None, *, unit: bool = True) -> Memory:
    """How nearest pairs correct queries where this share of the collection is paired.

    A residual draws queries towards paired documents, and so past those that are not: the more are paired, the more it
    may weigh. Held-out neighbours ask for one about twice as heavy as judged queries do, so both settings follow lines
    that judged queries gave (ordering.py says on what). Vectors of other lengths than one (`unit`) are not turned:
    their scores are no cosines.
    """
    known = UNKNOWN_SHARE if share is None else share
    return Memory(NEIGHBOURS, SHARPNESS, round(0.1 + 0.3 * known, 3), round(0.4 + 0.6 * known, 3) if unit else 0.0)


class _Search:
    """Candidates tried so far, each recipe once."""

    def __init__(self, trials: Sequence[AnyTrial], seed: int, budget: float | None, progress: Progress | None) -> None:
        self._trials = trials
        self._workshops = [Workshop(trial.fit, trial.query_mean, seed=seed) for trial in trials]
        self._end = inf if budget is None else time.monotonic() + budget
        self._progress = progress
        self.tried: dict[Recipe, Candidate] = {}
        self.stopped = False

    @property
    def places(self) -> tuple[tuple[Centring, float], ...]:
        """Centrings and offsets to try: one of each, unless judged queries can choose."""
        first = self._trials[0]
        known: tuple[Centring, ...] = ("documents",) if first.query_mean is None else ("documents", "queries")
        if isinstance(first, JudgedTrial):
            return tuple((centring, offset) for centring in known for offset in OFFSETS)
        return ((known[-1], OFFSET if first.fit.unit else 1.0),)

    @property
    def least_dim(self) -> int:
        first = self._trials[0].fit
        return min(int(first.source.shape[1]), int(first.target.shape[1]))

    @property
    def unit(self) -> bool:
        return self._trials[0].fit.unit

    @property
    def plain(self) -> tuple[str, ...]:
        """Plain maps that may win or lead: of unit vectors those that whiten, unless judged queries can choose."""
        return PLAIN if self.judged else WHITENING if self.unit else ("linear",)

    @property
    def judged(self) -> bool:
        return isinstance(self._trials[0], JudgedTrial)

    @property
    def memories(self) -> tuple[Memory, ...]:
        """Corrections to try: one, unless judged queries can choose their weight."""
        usual = memory_for(getattr(self._trials[0], "share", None), unit=self.unit)
        return tuple(replace(usual, weight=weight) for weight in WEIGHTS) if self.judged else (usual,)

    def run(self, recipes: Iterable[Recipe]) -> None:
        """Try recipes until the budget ends; the first of a stage is always tried."""
        wanted = [recipe for recipe in dict.fromkeys(recipes) if recipe not in self.tried]
        for at, recipe in enumerate(wanted):
            if at and time.monotonic() > self._end:
                self.stopped = True
                return
            self.tried[recipe] = self._try(recipe)
            if self._progress is not None:
                self._progress(len(self.tried), len(self.tried) + len(wanted) - at - 1, recipe.method)

    def best(self, count: int, keep: Callable[[Recipe], bool]) -> list[Recipe]:
        """The `count` best recipes so far of those to keep."""
        ranked = sorted(self.tried.values(), key=lambda candidate: -candidate.score)
        return [candidate.recipe for candidate in ranked if keep(candidate.recipe)][:count]

    def _try(self, recipe: Recipe) -> Candidate:
        start = time.monotonic()
        pairs = zip(self._workshops, self._trials, strict=True)
        values = np.concatenate([trial.score(workshop.make(recipe)) for workshop, trial in pairs])
        error = float(values.std() / len(values) ** 0.5)
        taken = time.monotonic() - start
        return Candidate(recipe, float(values.mean()), error, taken, values.astype(np.float32))


def _stages(search: _Search, method: str, count: int) -> Iterator[Iterable[Recipe]]:
    """Yield the recipes of each stage; later ones start from what the earlier found."""
    yield _linear_recipes(search, method, count)
    linear = search.best(1, lambda recipe: recipe.method in search.plain and _leads(recipe, search))
    distilled: list[Recipe] = []
    if method in ("all", "distilled", "distilled+residual"):
        distilled = [replace(base, family="distilled") for base in search.best(1, _is_linear)]
        yield distilled
    if method in ("auto", "all", "residual", "local+residual", "distilled+residual"):
        for base in [*linear, *distilled]:
            yield (replace(base, memory=memory) for memory in search.memories)
    if method in ("auto", "all", "local", "local+residual") and count >= LEAST_FOR_EXPERTS:
        for base in linear:
            yield (replace(base, experts=experts) for experts in EXPERTS if experts.clusters * 60 <= count)
    if method in ("auto", "all", "local+residual"):
        for base in search.best(1, lambda recipe: recipe.method == "local"):
            yield (replace(base, memory=memory) for memory in search.memories)


def _is_linear(recipe: Recipe) -> bool:
    return recipe.method == "linear"


def _leads(recipe: Recipe, search: _Search) -> bool:
    """Whether others may be built on it: finite ridges only where judged queries choose."""
    return search.judged or recipe.family in WHITENING or recipe.ridge == inf


def _linear_recipes(search: _Search, method: str, count: int) -> Iterator[Recipe]:
    few = count <= MOST_FOR_COHERENCE * search.least_dim
    for centring, offset in search.places:
        if method == "coherence" or (search.unit and few and method not in (*BASELINES, "linear", "whitened")):
            yield Recipe("coherence", ridge=0.1, centring=centring, offset=offset)
        if method == "whitened" or (search.unit and not few and method not in (*BASELINES, "linear", "coherence")):
            yield Recipe("whitened", ridge=0.1, centring=centring, offset=offset)
        if method not in (*BASELINES, *WHITENING):
            yield Recipe(ridge=inf, centring=centring, offset=offset)
    if method in ("all", "linear") or search.judged:
        yield from _finite_ridges(search)
    if method in ("all", *BASELINES):
        yield from _baselines(search, method)


def _finite_ridges(search: _Search) -> Iterator[Recipe]:
    for centring, offset in search.places:
        yield from (Recipe(ridge=ridge, centring=centring, offset=offset) for ridge in RIDGES)


def _baselines(search: _Search, method: str) -> Iterator[Recipe]:
    """The published maps, with whole means."""
    if method in ("all", "procrustes"):
        yield Recipe("procrustes", centring="none")
        yield Recipe("procrustes", centring="documents")
    for centring in dict.fromkeys(centring for centring, _ in search.places):
        if method in ("all", "ridge"):
            yield from (Recipe(ridge=ridge, pull=0.0, centring=centring) for ridge in (0.03, 0.1, 0.3))
        if method in ("all", "lowrank"):
            yield from (Recipe("lowrank", ridge=0.1, rank=rank, centring=centring) for rank in (64, 128))
        if method in ("all", "scaled"):
            yield from (Recipe("scaled", ridge=ridge, centring=centring) for ridge in (0.1, 1.0))
