"""A recipe says how to make a map; a workshop makes it from pairs, sharing the costly parts among recipes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import inf
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .base import JSON, Float32, Map, PairsError
from .coherence import fit_coherence
from .linear import LinearMap, LinearSystem, fit_system, scale_columns
from .local import Clusters, LocalMap, fit_clusters, fit_local
from .lowrank import LowRankMap, fit_low_rank
from .pairs import Pairs
from .residual import ResidualMap, fit_residual
from .whitened import fit_whitened, whiten_targets

Family = Literal["procrustes", "linear", "coherence", "whitened", "scaled", "lowrank", "distilled"]
Centring = Literal["none", "documents", "queries"]
WHITENING = ("coherence", "whitened")  # families that score as if directions of the target had more equal spread
AffineMap: TypeAlias = LinearMap | LowRankMap


@dataclass(frozen=True)
class Experts:
    """Settings of `fit_local`: how many clusters, how many pairs the global map counts for, and the gate."""

    clusters: int
    prior: float
    temperature: float = 0.1
    active: int = 2


@dataclass(frozen=True)
class Memory:
    """How many nearest pairs correct a query, how sharply and by what weight (`fit_residual`); and by how much of the
    measured spread it is then turned to rank them as the new model does (ordering.py), 0 for not at all."""

    neighbours: int
    temperature: float
    weight: float
    order: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How to make one map: a linear family, its centring, and what stands on top of it.

    ridge, pull and rank are those of linear.py and lowrank.py. offset scales the target mean that mapped vectors are
    moved to: ridge shrinks what a query says, and a full mean would drown it.
    """

    family: Family = "linear"
    ridge: float = 1.0
    pull: float = 1.0
    rank: int = 64
    centring: Centring = "documents"
    offset: float = 1.0
    experts: Experts | None = None
    memory: Memory | None = None

    @property
    def method(self) -> str:
        """The family as reports name it."""
        if self.experts is not None:
            return "local" if self.memory is None else "local+residual"
        if self.memory is not None:
            return "residual" if self.family != "distilled" else "distilled+residual"
        return "ridge" if self.family == "linear" and not self.pull else self.family

    def settings(self) -> dict[str, JSON]:
        """Everything that was chosen, as JSON."""
        chosen = asdict(self)
        chosen["ridge"] = "inf" if self.ridge == inf else self.ridge
        return chosen


class Workshop:
    """Makes maps from one set of pairs; statistics, clusters and experts are made once for all recipes that share them.

    query_mean (source_dim,) is the mean of observed queries, needed by recipes that are centred on it; queries
    (n, source_dim) are observed ones that distillation may learn from, so never those of a trial.
    """

    def __init__(
        self,
        pairs: Pairs,
        query_mean: NDArray[np.float64] | None = None,
        *,
        queries: Float32 | None = None,
        seed: int = 0,
    ) -> None:
        self.pairs = pairs
        self.query_mean = query_mean
        self.queries = queries
        self._seed = seed
        self._clusters: dict[int, Clusters] = {}
        self._bases: dict[Recipe, AffineMap] = {}
        self._locals: dict[Recipe, LocalMap] = {}
        self._residuals: dict[Recipe, ResidualMap] = {}
        self._distilled: dict[Recipe, LinearMap] = {}

    @cached_property
    def system(self) -> LinearSystem:
        """The centred statistics of the pairs."""
        return fit_system(self.pairs.source, self.pairs.target, normalise=self.pairs.unit)

    @cached_property
    def uncentred(self) -> LinearSystem:
        """The uncentred statistics of the pairs."""
        return fit_system(self.pairs.source, self.pairs.target, centred=False, normalise=self.pairs.unit)

    @cached_property
    def whitened(self) -> Float32:
        """The pairs' targets as maps that whiten are corrected towards them."""
        return whiten_targets(self.pairs.target, self.system.target_mean)

    def _target(self, recipe: Recipe) -> Float32:
        """What experts and residuals of a recipe are fitted to."""
        return self.whitened if recipe.family in WHITENING else self.pairs.target

    def make(self, recipe: Recipe) -> Map:
        """Make the map of a recipe. Raises PairsError for query-side centring without observed queries."""
        base = self._base(recipe)
        if recipe.centring == "none":
            return base
        centre = self._centre(recipe.centring)
        moved: Map = base.recentred(centre, recipe.offset * self.system.target_mean)
        if recipe.family == "distilled":
            moved = self._distil(recipe)
        if recipe.experts is not None:
            moved = self._local(recipe).recentred(moved, centre)
        if recipe.memory is None:
            return moved
        return self._residual(recipe).recentred(moved, centre)

    def _centre(self, centring: Centring) -> Float32:
        if centring == "documents":
            return self.system.source_mean.astype(np.float32)
        if self.query_mean is None:
            raise PairsError("centring on queries needs the mean of observed queries: give queries or query_mean")
        return np.asarray(self.query_mean, np.float32)

    def _base(self, recipe: Recipe) -> AffineMap:
        """The linear part with the documents' means folded in."""
        key = replace(
            recipe, centring="none" if recipe.centring == "none" else "documents", offset=1.0, experts=None, memory=None
        )
        if recipe.family == "distilled":  # learnt from queries where they are, so its weight depends on both
            key = replace(recipe, experts=None, memory=None)
        if key not in self._bases:
            self._bases[key] = self._fit_base(key)
        return self._bases[key]

    def _fit_base(self, recipe: Recipe) -> AffineMap:
        source, target, unit = self.pairs.source, self.pairs.target, self.pairs.unit
        system = self.uncentred if recipe.centring == "none" else self.system
        if recipe.family == "procrustes":
            return system.to_map(system.rotation)
        if recipe.family == "distilled":
            return self._distil(recipe).recentred(system.source_mean, system.target_mean)
        if recipe.family == "coherence":
            return fit_coherence(system, target, ridge=recipe.ridge)
        if recipe.family == "whitened":
            return fit_whitened(system, target, ridge=recipe.ridge)
        if recipe.family == "lowrank":
            rank = min(recipe.rank, source.shape[1], target.shape[1])
            return fit_low_rank(source, target, rank=rank, ridge=recipe.ridge, pull=recipe.pull, normalise=unit)
        fitted = system.fit(recipe.ridge, pull=recipe.pull)
        return scale_columns(fitted, source, target) if recipe.family == "scaled" else fitted

    def _local(self, recipe: Recipe) -> LocalMap:
        """Experts on the documents' map; recipes that differ in the gate alone share them."""
        assert recipe.experts is not None
        shared = replace(recipe.experts, temperature=1.0, active=1)
        key = replace(recipe, centring="documents", offset=1.0, experts=shared, memory=None)
        if key not in self._locals:
            clusters, prior = self._cluster(shared.clusters), shared.prior
            source, target, unit = self.pairs.source, self._target(recipe), self.pairs.unit
            self._locals[key] = fit_local(
                self._base(recipe), source, target, clusters=clusters, prior=prior, normalise=unit
            )
        return replace(self._locals[key], temperature=recipe.experts.temperature, active=recipe.experts.active)

    def _residual(self, recipe: Recipe) -> ResidualMap:
        """What the documents' map leaves; recipes that differ in the neighbours' weights alone share it."""
        assert recipe.memory is not None
        key = replace(recipe, centring="documents", offset=1.0, memory=Memory(1, 1.0, 1.0))
        if recipe.family == "distilled":
            key = replace(recipe, memory=key.memory)
        if key not in self._residuals:
            plain = replace(key, memory=None)
            documents = self._base(plain) if recipe.family == "distilled" else self.make(plain)
            source, target, unit = self.pairs.source, self._target(recipe), self.pairs.unit
            fitted = fit_residual(documents, source, target, normalise=unit)
            self._residuals[key] = fitted.ordered(source, self.pairs.target, seed=self._seed)
        shared, memory = self._residuals[key], recipe.memory
        return replace(
            shared,
            neighbours=memory.neighbours,
            temperature=memory.temperature,
            weight=memory.weight,
            ordering=shared.ordering.scaled(memory.order) if shared.ordering is not None and memory.order else None,
        )

    def _distil(self, recipe: Recipe) -> LinearMap:
        """The linear map of a recipe, taught to rank as the new model does; a tenth of the lessons choose the round."""
        key = replace(recipe, experts=None, memory=None)
        if key not in self._distilled:
            from .distill import fit_distilled  # its training needs torch
            from .training import neighbour_overlap

            base = self.make(replace(key, family="linear"))
            assert isinstance(base, LinearMap)
            lessons, exam = self._lessons(recipe.centring)
            source, target = self.pairs.source, self.pairs.target
            score = neighbour_overlap(exam, source, target)
            self._distilled[key] = fit_distilled(lessons, source, target, base, score=score, seed=self._seed)
        return self._distilled[key]

    def _lessons(self, centring: Centring) -> tuple[Float32, Float32]:
        """Queries to learn from and to choose by: documents moved to where queries live, and as many observed ones."""
        centre = self._centre(centring)
        asked = self.pairs.source + (centre - self.system.source_mean).astype(np.float32)
        if self.queries is not None and len(self.queries):
            asked = np.concatenate([asked, np.tile(self.queries, (max(1, len(asked) // len(self.queries)), 1))])
        order = np.random.default_rng(self._seed).permutation(len(asked))
        exam = order[: min(400, len(order) // 10)]
        return asked[order[len(exam) :]], asked[exam]

    def _cluster(self, clusters: int) -> Clusters:
        if clusters not in self._clusters:
            self._clusters[clusters] = fit_clusters(self.pairs.source, clusters, seed=self._seed)
        return self._clusters[clusters]
