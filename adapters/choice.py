"""Which of the recipes that were tried wins, for each method.

Of those that held-out retrieval cannot tell from the best by a paired standard error, the plainest wins; unit vectors
are corrected by nearest pairs whatever it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .base import JSON
from .recipe import Recipe

METHODS = (
    "auto",  # every family whose fit needs no torch
    "all",  # auto and the distilled ones
    "procrustes",
    "linear",
    "coherence",
    "whitened",
    "ridge",
    "scaled",
    "lowrank",
    "local",
    "residual",
    "local+residual",
    "distilled",
    "distilled+residual",
)
PLAIN = ("linear", "coherence", "whitened")
BASELINES = ("procrustes", "ridge", "scaled", "lowrank")


@dataclass(frozen=True)
class Candidate:
    """One recipe's held-out retrieval: mean over queries and folds, its standard error, seconds to fit and try.

    values (queries * folds,) are what the mean is of, the same queries for every candidate.
    """

    recipe: Recipe
    score: float
    error: float
    seconds: float
    values: NDArray[np.float32] = field(repr=False, compare=False, default_factory=lambda: np.zeros(1, np.float32))

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
    plain: tuple[str, ...] = PLAIN
    judged: bool = False

    def best_of(self, method: str) -> Candidate | None:
        """What a method would choose of all that was tried, None when nothing of it was."""
        allowed = [candidate for candidate in self.table if belongs(candidate.recipe, method, self.plain)]
        if not any(candidate.recipe.method == method for candidate in allowed):
            return None
        return choose(allowed, judged=self.judged)


def belongs(recipe: Recipe, method: str, plain_ones: Sequence[str]) -> bool:
    """Whether a recipe may win under a method, with the plain maps that may lead; corrections may be best left away.

    `auto` and `all` leave the others to those who ask for them by name: they are tried for the table alone.
    """
    plain = recipe.method in plain_ones
    if method in ("auto", "all"):
        return plain or recipe.method not in (*PLAIN, *BASELINES)
    below: dict[str, tuple[str, ...]] = {
        "local": (),
        "residual": (),
        "local+residual": ("local", "residual"),
        "distilled": (),
        "distilled+residual": ("residual", "distilled"),
    }
    return recipe.method == method or (method in below and (plain or recipe.method in below[method]))


def _turned(tried: Sequence[Candidate]) -> Sequence[Candidate]:
    """Those whose queries are turned by their nearest pairs, all where none are.

    Whether to turn is not for held-out neighbours to say: the ten nearest of the hundred documents that few pairs leave
    are coarse company, among which turned queries lose .003 to .01 where by judgements they gain .013 to .019 (three
    upgrades with a tenth of the documents paired).
    """
    found = [one for one in tried if one.recipe.memory is not None and one.recipe.memory.order]
    return found or tried


def choose(tried: Sequence[Candidate], *, judged: bool = False) -> Candidate:
    """The plainest that is not worse than the best by more than the standard error of their paired difference.

    Queries are turned by their nearest pairs unless judged queries say otherwise. Experts below a residual have to be
    twice as sure of themselves: held-out neighbours took them for better where judged queries lost .002 to .01 nDCG@10
    by them (four collections of one subject each; a mixed one gained .008).
    """
    tried = tried if judged else _turned(tried)
    first = max(tried, key=lambda candidate: candidate.score)

    def is_close(one: Candidate) -> bool:
        apart = (first.values - one.values).astype(np.float64)
        doubt = 2.0 if (first.recipe.method, one.recipe.method) == ("local+residual", "residual") else 1.0
        return bool(apart.mean() <= doubt * apart.std() / len(apart) ** 0.5)

    return min((one for one in tried if one is first or is_close(one)), key=lambda one: _weight(one.recipe))


def _weight(recipe: Recipe) -> tuple[float, ...]:
    """How far a recipe goes beyond a linear map: experts before anything else, then the residual."""
    experts = recipe.experts
    own = (0.0, 0.0, 0.0) if experts is None else (1.0, 1 / experts.prior, float(experts.active))
    return (*own, recipe.memory.weight if recipe.memory is not None else 0.0)
