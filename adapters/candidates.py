"""Candidates for an adapter: which recipes are tried, in which order, and which of them wins.

The search goes by stages, each starting from the best so far: the linear continuum with its centrings, local experts
on the best linear map, a residual on the best of both, and the linear settings again under what won.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from .base import JSON, PairsError
from .recipe import Centring, Experts, Memory, Recipe, Workshop
from .trial import AnyTrial

Progress = Callable[[int, int, str], None]
METHODS = (
    "auto",  # every family whose fit needs no torch
    "all",  # auto and the distilled ones
    "procrustes",
    "linear",
    "ridge",
    "scaled",
    "lowrank",
    "local",
    "residual",
    "local+residual",
    "distilled",
    "distilled+residual",
)
BASELINES = ("procrustes", "ridge", "scaled", "lowrank")

RIDGES = (0.1, 0.3, 1.0, 3.0, inf)
OFFSETS = (0.25, 0.5, 0.75, 1.0)
EXPERTS = tuple(
    Experts(clusters, prior, temperature, active)
    for clusters in (12, 32)
    for prior in (100.0, 300.0, 1000.0, 3000.0)
    for temperature, active in ((0.1, 3), (0.2, 6))
)
MEMORIES = tuple(
    Memory(neighbours, temperature, weight)
    for neighbours, temperature in ((16, 0.03), (16, 0.05), (32, 0.08))
    for weight in (0.3, 0.6, 1.0)
)
LEAST_FOR_EXPERTS = 500  # pairs: below, a cluster has too few to say anything about


@dataclass(frozen=True)
class Candidate:
    """One recipe's held-out retrieval: mean over queries and folds, its standard error, seconds to fit and try."""

    recipe: Recipe
    score: float
    error: float
    seconds: float

    def row(self) -> dict[str, JSON]:
        """The candidate as a row of the table."""
        return {
            "method": self.recipe.method,
            "score": round(self.score, 5),
            "error": round(self.error, 5),
            "seconds": round(self.seconds, 3),
            "settings": self.recipe.settings(),
        }


@dataclass(frozen=True)
class Selection:
    """The winner and every candidate tried, best first."""

    winner: Candidate
    table: tuple[Candidate, ...]
    finished: bool

    def best_of(self, method: str) -> Candidate | None:
        """The best candidate that a method may choose, None when none was tried."""
        return next((candidate for candidate in self.table if _belongs(candidate.recipe, method)), None)


def select_recipe(
    trials: Sequence[AnyTrial],
    *,
    method: str = "auto",
    count: int = 0,
    seed: int = 0,
    budget_seconds: float | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Try the recipes of a method on every trial and return the best. count is the number of pairs of the final fit."""
    if method not in METHODS:
        raise PairsError(f"method is {method!r}: it must be one of {', '.join(METHODS)}")
    search = _Search(trials, seed, budget_seconds, progress)
    for stage in _stages(search, method, max(count, len(trials[0].fit))):
        search.run(stage)
    ranked = tuple(sorted(search.tried.values(), key=lambda candidate: -candidate.score))
    allowed = [candidate for candidate in ranked if _belongs(candidate.recipe, method)]
    return Selection(_choose(allowed), ranked, not search.stopped)


def _choose(ranked: Sequence[Candidate]) -> Candidate:
    """The best, except that a baseline must be better than the best other family by its own standard error.

    Baselines have fewer settings tried and never led by more than that on any collection measured; a narrow lead is
    chance.
    """
    others = [candidate for candidate in ranked if candidate.recipe.method not in BASELINES]
    first = ranked[0]
    if others and first.score - others[0].score <= first.error:
        return others[0]
    return first


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
    def centrings(self) -> tuple[Centring, ...]:
        return ("documents",) if self._trials[0].query_mean is None else ("documents", "queries")

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
        return Candidate(recipe, float(values.mean()), error, time.monotonic() - start)


def _stages(search: _Search, method: str, count: int) -> Iterator[Iterable[Recipe]]:
    """Yield the recipes of each stage; later ones start from what the earlier found."""
    yield _linear_recipes(search, method)
    linear = search.best(1, lambda recipe: recipe.method == "linear")
    if method in ("auto", "all", "local", "local+residual") and count >= LEAST_FOR_EXPERTS:
        for base in linear:
            yield (replace(base, experts=experts) for experts in EXPERTS if experts.clusters * 30 <= count)
    distilled: list[Recipe] = []
    if method in ("all", "distilled", "distilled+residual"):
        distilled = [replace(base, family="distilled") for base in linear]
        yield distilled
    if method in ("auto", "all", "residual", "local+residual", "distilled+residual"):
        experts = search.best(1, lambda recipe: recipe.method == "local") if method != "residual" else []
        for base in [*linear, *experts, *distilled]:
            yield (replace(base, memory=memory) for memory in MEMORIES)
    if method not in (*BASELINES, "linear"):
        for base in search.best(1, lambda recipe: _belongs(recipe, method) and recipe.centring != "none"):
            if base.family != "distilled":  # each change there is another training
                yield _around(base, search)


def _linear_recipes(search: _Search, method: str) -> Iterator[Recipe]:
    if method in ("auto", "all", "procrustes"):
        yield Recipe("procrustes", centring="none")
        yield Recipe("procrustes", centring="documents")
    for centring in search.centrings:
        if method in ("auto", "all", "ridge"):
            yield from (Recipe(ridge=ridge, pull=0.0, centring=centring) for ridge in (0.03, 0.1, 0.3))
        if method not in BASELINES:
            for ridge in RIDGES:
                yield from (Recipe(ridge=ridge, centring=centring, offset=offset) for offset in OFFSETS)
        if method in ("auto", "all", "lowrank"):
            yield from (Recipe("lowrank", ridge=0.1, rank=rank, centring=centring) for rank in (64, 128))
        if method in ("auto", "all", "scaled"):
            yield from (Recipe("scaled", ridge=ridge, centring=centring) for ridge in (0.1, 1.0))


def _around(base: Recipe, search: _Search) -> Iterator[Recipe]:
    """Other ridges, offsets and centrings under the same experts and memory."""
    yield from (replace(base, ridge=ridge) for ridge in RIDGES)
    yield from (replace(base, offset=offset) for offset in OFFSETS)
    yield from (replace(base, centring=centring) for centring in search.centrings)


def _belongs(recipe: Recipe, method: str) -> bool:
    """Whether a recipe may win under a method; corrections may turn out to be best left away.

    Experts under an endless prior, and a residual of no weight, are the map below them: held-out retrieval says so
    where they would hurt.
    """
    if method in ("auto", "all"):
        return True
    below = {
        "local": ("linear",),
        "residual": ("linear",),
        "local+residual": ("linear", "local", "residual"),
        "distilled": ("linear",),
        "distilled+residual": ("linear", "residual", "distilled"),
    }
    return recipe.method == method or recipe.method in below.get(method, ())
