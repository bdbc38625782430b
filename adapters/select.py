"""Fit an adapter: try the families, keep what retrieves best on held-out data, and keep the table of all.

Nothing is chosen by cosine or squared error: candidates.py tries recipes, trial.py judges them by retrieval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import JSON, Adapter, Card, Float32, Map, PairsCard, PairsError
from .calibrate import Calibration, Metric, fit_calibration, sample_scores
from .candidates import Progress, select_recipe
from .choice import Selection
from .fingerprint import Fingerprint, fit_fingerprint
from .local import LocalMap
from .metrics import Judgements
from .pairs import Pairs, check_finite
from .recipe import Memory, Recipe, Workshop
from .residual import ResidualMap
from .sides import check_sides
from .trial import AnyTrial, JudgedTrial, Trial, make_trials
from .vectors import as_rows

LEAST_FOR_FINGERPRINTS = 50
LEAST_FOR_CALIBRATION = 50  # held-out documents: fewer give no tail to match


def fit_adapter(
    pairs: Pairs,
    *,
    source_model: str = "new",
    target_model: str = "old",
    method: str = "auto",
    queries: NDArray[Any] | None = None,
    query_mean: NDArray[Any] | None = None,
    judged: tuple[NDArray[Any], NDArray[Any], Judgements] | None = None,
    corpus_size: int | None = None,
    metric: Metric = "cosine",
    seed: int = 0,
    budget_seconds: float | None = None,
    progress: Progress | None = None,
) -> Adapter:
    """Fit the query, document and reverse maps from pairs (new model first) and say on the card how they were chosen.

    method is one of METHODS; "all" and the distilled ones need torch. queries (n, source_dim) are unlabelled observed
    queries of the new model, query_mean their mean alone; either makes query-side centring a candidate. judged gives
    queries (n, source_dim), the old index's documents (m, target_dim) and {document row: gain} for each query: the
    choice is then made by these judgements instead of held-out neighbours. corpus_size is the number of documents in
    the index, metric the one it scores by. A budget stops trying further candidates (never below one per stage), so
    that the choice then depends on the machine; without one it depends on the seed alone. Raises PairsError for input
    that cannot be used, and for pairs that look swapped beside observed queries (sides.py).
    """
    mean, sample = _observed(pairs, queries, query_mean)
    if sample is not None:
        check_sides(pairs, sample, seed=seed)
    share = min(1.0, len(pairs) / corpus_size) if corpus_size else None
    folds = 2 if method.startswith("distilled") or method == "all" else None  # each fold is a training of torch's
    held_out = make_trials(pairs, queries=sample, query_mean=mean, share=share, folds=folds, seed=seed)
    trials: Sequence[AnyTrial] = held_out if judged is None else [_judged_trial(pairs, mean, *judged)]
    selection = select_recipe(
        trials, method=method, baselines=method == "auto", seed=seed, budget_seconds=budget_seconds,
        progress=progress, count=len(pairs),
    )  # fmt: skip
    chosen = selection.winner.recipe
    workshop = Workshop(pairs, mean, queries=sample, seed=seed)
    return Adapter(
        card=_make_card(pairs, selection, source_model, target_model, share, seed, method),
        query=served(workshop.make(chosen)),
        document=served(workshop.make(document_recipe(chosen))),
        reverse=Workshop(pairs.turned(), seed=seed).make(REVERSE),
        calibration=_calibrate(held_out[0], chosen, metric, seed),
        fingerprints=_fingerprint(pairs, source_model, target_model, sample, seed),
    )


def served(fitted: Map) -> Map:
    """The map as it is kept and applied: a residual's pairs in an index, experts in bytes."""
    if isinstance(fitted, ResidualMap):
        return replace(fitted.indexed(), base=served(fitted.base))
    return fitted.encoded() if isinstance(fitted, LocalMap) else fitted


def _calibrate(trial: Trial, chosen: Recipe, metric: Metric, seed: int) -> Calibration | None:
    """Scores of the first trial's queries among its documents, by a map fitted on neither; None for too few."""
    if len(trial.documents) < LEAST_FOR_CALIBRATION:
        return None
    adapted = Workshop(trial.fit, trial.query_mean, seed=seed).make(chosen).apply(trial.queries)
    return fit_calibration(*sample_scores(trial.queries, trial.sources, adapted, trial.documents, metric))


def _fingerprint(
    pairs: Pairs, source_model: str, target_model: str, sample: Float32 | None, seed: int
) -> dict[str, Fingerprint]:
    """What both models' vectors look like, from the pairs; none for too few."""
    if len(pairs) < LEAST_FOR_FINGERPRINTS:
        return {}
    observed = sample if sample is not None and len(sample) >= LEAST_FOR_FINGERPRINTS else None
    return {
        source_model: fit_fingerprint(pairs.source, queries=observed, seed=seed),
        target_model: fit_fingerprint(pairs.target, seed=seed),
    }


def _judged_trial(
    pairs: Pairs,
    mean: NDArray[np.float64] | None,
    queries: NDArray[Any],
    documents: NDArray[Any],
    judgements: Judgements,
) -> JudgedTrial:
    """Check and gather judged queries."""
    asked, searched = as_rows(queries, pairs.source.shape[1]), as_rows(documents, pairs.target.shape[1])
    if len(asked) != len(judgements) or not len(asked):
        raise PairsError(f"{len(asked)} judged queries with {len(judgements)} judgements: each query needs one mapping")
    return JudgedTrial(pairs, asked, searched, judgements, mean)


# The reverse map gives clients vectors instead of answering searches: plain ridge comes closest to the true ones.
REVERSE = Recipe(ridge=0.1, pull=0.0)
DOCUMENT_MEMORY = Memory(16, 0.05, 0.6)


def document_recipe(chosen: Recipe) -> Recipe:
    """The recipe for documents that clients write: the family chosen for queries, centred on documents.

    Documents are as the pairs are, so a weak ridge and the whole mean serve them best; a residual needs no experts
    below it (measured with old-model queries on scifact, cranfield and medquad: .85 to .99 of the status quo).
    """
    if chosen.centring == "none":
        return chosen
    family = "linear" if chosen.family in ("distilled", "coherence", "whitened") else chosen.family
    settled = replace(chosen, family=family, centring="documents", offset=1.0, ridge=min(chosen.ridge, 0.1))
    return settled if chosen.memory is None else replace(settled, experts=None, memory=DOCUMENT_MEMORY)


def _observed(
    pairs: Pairs, queries: NDArray[Any] | None, query_mean: NDArray[Any] | None
) -> tuple[NDArray[np.float64] | None, Float32 | None]:
    """The observed queries' mean and sample, checked."""
    dim = pairs.source.shape[1]
    sample = None
    if queries is not None and len(queries):
        sample = as_rows(queries, dim)
        check_finite(sample, "query")
        if query_mean is None:
            query_mean = sample.mean(axis=0, dtype=np.float64)
    if query_mean is None:
        return None, sample
    if query_mean.shape != (dim,):
        raise PairsError(f"query_mean has shape {query_mean.shape}, the pairs' source has {dim} dimensions")
    return query_mean.astype(np.float64), sample


def _make_card(
    pairs: Pairs,
    selection: Selection,
    source_model: str,
    target_model: str,
    share: float | None,
    seed: int,
    method: str,
) -> Card:
    winner = selection.winner
    table: list[JSON] = [candidate.row() for candidate in selection.table]
    return Card(
        source_model=source_model,
        target_model=target_model,
        source_dim=pairs.source.shape[1],
        target_dim=pairs.target.shape[1],
        method=winner.recipe.method,
        pairs=PairsCard(len(pairs), pairs.source_name, share),
        settings=winner.recipe.settings(),
        figures={
            "held_out": winner.row(),
            "asked": method,
            "finished": selection.finished,
            "duplicates_dropped": pairs.dropped,
            "candidates": table,
        },
        versions={"crossfade": version("crossfade"), "numpy": np.__version__},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
    )
