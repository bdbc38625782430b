"""Listwise relational distillation: the map whose rankings agree with the new model's, not whose vectors do.

For a query q the new model ranks documents by softmax(q . D_new / t); the mapped query ranks the same documents in the
old space by softmax(f(q) . D_old / t'). Training lowers the Kullback-Leibler divergence of the second from the first
(listwise distillation as in ListNet, Cao et al. 2007), starts from a fitted linear map and is held to it. Queries need
no judgements: `mix_queries` makes them of observed ones and documents, or of documents alone. The result is a plain
linear map; fitting needs torch. tests/bench/trained.py measures it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log
from typing import Any

import numpy as np

from .base import Float32, PairsError
from .linear import LinearMap
from .training import Score, best_of, load_torch, to_numpy
from .vectors import unit_rows


@dataclass(frozen=True)
class Schedule:
    """How to distil. Both temperatures start at the scores' own standard deviation over `sharpness`; t' is learnt on.

    `hold` weighs |W - W_base|^2 relative to |W_base|^2. At most `rounds` of `steps` steps by Adam with learning rate
    `rate`, each on `batch` queries and a list of `list_size` documents drawn at random; training ends after `patience`
    rounds without better retrieval.
    """

    sharpness: float = 2.0
    hold: float = 1.0
    rounds: int = 40
    steps: int = 16
    batch: int = 64
    list_size: int = 1024
    rate: float = 5e-4
    patience: int = 5


def fit_distilled(
    queries: Float32,
    docs_source: Float32,
    docs_target: Float32,
    base: LinearMap,
    *,
    score: Score,
    schedule: Schedule = Schedule(),
    seed: int = 0,
) -> LinearMap:
    """Fit a linear map that ranks docs_target (n, target_dim) for a query as docs_source (n, source_dim) are ranked.

    queries (q, source_dim) are those to learn from (`mix_queries`). `score` chooses the round on held-out vectors, the
    base included (`training.neighbour_overlap` makes one).
    Raises TrainingError without torch and PairsError when the arrays do not fit together.
    """
    shapes = (queries.shape[1], docs_source.shape[1], docs_target.shape[1])
    if shapes != (base.source_dim, base.source_dim, base.target_dim) or len(docs_source) != len(docs_target):
        raise PairsError(
            f"distill: queries {queries.shape}, documents {docs_source.shape} and {docs_target.shape} do not fit a map "
            f"{base.source_dim} -> {base.target_dim}; documents must be the same rows in both spaces"
        )
    if len(queries) < 2 or len(docs_source) < 32:
        raise PairsError(f"distill: {len(queries)} queries and {len(docs_source)} documents, at least 2 and 32 needed")
    candidates = _train(queries, docs_source, docs_target, base, schedule, seed)
    return best_of(base, candidates, score, patience=schedule.patience)


def mix_queries(observed: Float32, documents: Float32) -> Float32:
    """Queries to learn from: observed ones (m, dim), and documents (n, dim) moved to where those live, half and half.

    Observed queries are repeated to be as many as the documents; without any the documents are taken as they are. A
    document may stand in the lists it is asked of: finding itself is a part of the ranking too.
    """
    if not len(observed):
        return documents
    moved = documents - documents.mean(axis=0) + observed.mean(axis=0)
    repeated = np.tile(observed, (max(1, len(documents) // len(observed)), 1))
    return np.concatenate([repeated, moved]).astype(np.float32)


def _train(
    queries: Float32, docs_source: Float32, docs_target: Float32, base: LinearMap, schedule: Schedule, seed: int
) -> Iterator[LinearMap]:
    torch = load_torch()
    draw = torch.Generator().manual_seed(seed)
    asked, new, old = (torch.from_numpy(unit_rows(rows)) for rows in (queries, docs_source, docs_target))
    raw = torch.from_numpy(np.ascontiguousarray(queries, np.float32))
    start, start_bias = torch.tensor(base.weight), torch.tensor(base.bias)
    weight, bias = start.clone().requires_grad_(), start_bias.clone().requires_grad_()
    teacher = _spread(asked @ new.T) / schedule.sharpness
    student = _spread(_unit(torch, raw @ start + start_bias) @ old.T) / schedule.sharpness
    cooling = torch.tensor(log(student), requires_grad=True)
    groups = [{"params": [weight, bias]}, {"params": [cooling], "lr": 10 * schedule.rate}]
    optimiser = torch.optim.Adam(groups, lr=schedule.rate)
    size = float(start.square().sum())
    for _ in range(schedule.rounds):
        for _ in range(schedule.steps):
            rows = torch.randint(len(raw), (schedule.batch,), generator=draw)
            listed = torch.randperm(len(new), generator=draw)[: schedule.list_size]
            wanted = torch.softmax(asked[rows] @ new[listed].T / teacher, dim=1)
            ranked = _unit(torch, raw[rows] @ weight + bias) @ old[listed].T / cooling.exp()
            distance = (weight - start).square().sum() / size
            loss = torch.nn.functional.cross_entropy(ranked, wanted) + schedule.hold * distance
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        yield replace(base, weight=to_numpy(weight), bias=to_numpy(bias))


def _spread(scores: Any) -> float:
    """The standard deviation of a query's scores (q, n) over documents, averaged over queries."""
    return float(scores.std(dim=1).mean())


def _unit(torch: Any, rows: Any) -> Any:
    return torch.nn.functional.normalize(rows, dim=1)
