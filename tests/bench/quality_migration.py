"""A collection of the pack half migrated, by every way of asking; a part of quality.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.base import Float32
from crossfade.adapters.candidates import select_recipe
from crossfade.adapters.evaluate import Judged, load_judged, measure
from crossfade.adapters.half_migrated import HalfMigrated
from crossfade.adapters.merge import blend_queries, fit_matcher
from crossfade.adapters.pairs import make_pairs
from crossfade.adapters.recipe import Workshop
from crossfade.adapters.scene import Scene
from crossfade.adapters.search import search_exact
from crossfade.adapters.strategies import weigh_at
from crossfade.adapters.trial import make_trials
from crossfade.adapters.vectors import unit_rows
from crossfade.adapters.weights import Choice, Chosen, Weighed, Weights, choose_weights, usual_weights
from tests.bench.quality_cases import MOST_PAIRS, MOST_TESTED, Case, dataset_of, halves, with_values

MIGRATED = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def measure_migration(case: Case) -> list[dict[str, Any]]:
    """Adapt only, and both indexes together with adapted or blended queries, by the share migrated.

    The adapter is fitted anew on what is migrated. With everything migrated the new index answers alone, unless a
    verdict says otherwise. "by a verdict" is what `auto` does that follows a probe (adapters/weights.py): judgements of
    the observed half choose.
    """
    dataset = dataset_of(case.collection, case.old, case.new)
    tested, seen, documents = halves(case, dataset)
    judged, probed = (load_judged(dataset, case.old, case.new, rows) for rows in (tested, seen[:MOST_TESTED]))
    observed = unit_rows(dataset.queries(case.new)[seen])
    mean = observed.mean(axis=0, dtype=np.float64)
    found: list[Reached] = []
    weighed: list[Weighed] = []
    for migrated in MIGRATED:
        known = documents[: min(max(round(migrated * len(documents)), case.pairs), MOST_PAIRS)]
        pairs = make_pairs(judged.new_documents[known], judged.old_documents[known])
        share = len(known) / len(documents)
        trials = make_trials(pairs, queries=observed, query_mean=mean, share=share, seed=case.seed)
        recipe = select_recipe(trials, method="residual", count=len(pairs), seed=case.seed).winner.recipe
        fitted = Workshop(pairs, mean, seed=case.seed).make(recipe)
        matcher = fit_matcher(judged.new_documents[known], judged.old_documents[known])
        done = documents[: round(migrated * len(documents))]
        asked = fitted.apply(judged.new_queries)
        found.append(Reached(HalfMigrated(scene_of(judged), done, matcher), asked, migrated, share, recipe.method))
        if migrated < 1:
            weighed.append(weigh_at(scene_of(probed), fitted.apply(probed.new_queries), done, migrated, matcher))
    chosen = choose_weights(weighed)
    rows: list[dict[str, Any]] = []
    for reached, choice in zip(found, (*chosen, replace(chosen[-1], migrated=1.0)), strict=True):
        evaluation = measure(
            judged, reached.ways(choice), pairs=round(reached.share * len(documents)), share=reached.share,
            migrated=reached.migrated,
        )  # fmt: skip
        told = {"migrated": reached.migrated, "chosen": reached.method}
        told |= {
            "weights": {
                name: kept and list(kept) for name, kept in (("vectors", choice.vectors), ("texts", choice.texts))
            }
        }
        rows += [with_values(row, evaluation.values[row.method], judged, case.seed) | told for row in evaluation.rows]
    return rows


def scene_of(judged: Judged) -> Scene:
    """The same as strategies are measured on."""
    return Scene(judged.old_documents, judged.new_documents, judged.new_queries, judged.old_queries, judged.judgements)


@dataclass(frozen=True, eq=False)
class Reached:
    """A migration at one share: the collection, queries mapped to (n, old_dim), what is paired, the method."""

    half: HalfMigrated
    adapted: Float32
    migrated: float
    share: float
    method: str

    def ways(self, chosen: Chosen) -> dict[str, NDArray[np.int64]]:
        """Rankings (n, 100) by each way of asking."""
        scene = self.half.scene
        assert scene.old_queries is not None  # judged data has both models' queries
        return {
            "status quo": search_exact(scene.old_queries, scene.old_documents, 100)[0],
            "oracle": search_exact(scene.new_queries, scene.new_documents, 100)[0],
            "adapt": self.rank(None),
            "crossfade": self.rank(usual_weights(self.migrated)),
            "crossfade, true scores alone": self.rank(Weights(1.0, 1.0)),
            "crossfade, legacy-encoded": self.rank(usual_weights(self.migrated, texts=True)),
            "crossfade, legacy-encoded alone": self.rank(Weights(0.0, usual_weights(self.migrated).trust)),
            "by a verdict": self.rank(chosen.vectors),
            "by a verdict, texts": self.rank(chosen.texts),
        }

    def rank(self, choice: Choice) -> NDArray[np.int64]:
        """The best 100 documents (n, 100) by a choice; those of the new index alone once it is whole and trusted."""
        scene = self.half.scene
        if choice is None:
            return search_exact(self.adapted, scene.old_documents, 100)[0]
        if self.migrated >= 1 and choice.trust >= 1:
            return search_exact(scene.new_queries, scene.new_documents, 100)[0]
        asked = self.adapted
        if choice.adapted < 1:
            assert scene.old_queries is not None  # as above
            asked = blend_queries(scene.old_queries, self.adapted, choice.adapted)
        return self.half.rank(asked, [choice.trust], 100)[0]
