"""What the torch families share: torch itself, loaded on demand, and early stopping by held-out retrieval.

Training loss says little about retrieval, so a family yields a map after every epoch and `best_of` keeps the one that
retrieves best, the map it was started from included: a fit can end where it began, but not below it on what was held
out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

from .base import AdapterError, Float32, Map
from .search import search_exact
from .vectors import unit_rows

if TYPE_CHECKING:
    import torch

Score = Callable[[Map], float]
"""How well a map retrieves on vectors that were held out of the fit; higher is better."""
AnyMap = TypeVar("AnyMap", bound=Map)


class TrainingError(AdapterError):
    """A family that is fitted with torch cannot be fitted here."""


def best_of(start: AnyMap, rounds: Iterable[AnyMap], score: Score, *, patience: int) -> AnyMap:
    """Return the best scored of `start` and `rounds`, and stop after `patience` rounds without a better one."""
    best, height, waited = start, score(start), 0
    for candidate in rounds:
        reached = score(candidate)
        if reached > height:
            best, height, waited = candidate, reached, 0
        else:
            waited += 1
        if waited >= patience:
            break
    return best


def neighbour_overlap(
    queries: NDArray[Any], docs_source: NDArray[Any], docs_target: NDArray[Any], *, top: int = 10
) -> Score:
    """Score a map by the share of each query's `top` neighbours in its own space that it finds in the target space.

    queries (q, source_dim) are held out of the fit; docs_source (n, source_dim) and docs_target (n, target_dim) are the
    same documents. Needs no judgements; where there are some, score by them instead.
    """
    source, target = unit_rows(docs_source), unit_rows(docs_target)
    asked: Float32 = unit_rows(queries)
    wanted = [set(row.tolist()) for row in search_exact(asked, source, top)[0]]

    def score(fitted: Map) -> float:
        found = search_exact(unit_rows(fitted.apply(asked)), target, top)[0]
        shared = sum(len(want.intersection(row.tolist())) for want, row in zip(wanted, found, strict=True))
        return shared / sum(len(want) for want in wanted)

    return score


def load_torch() -> Any:
    """Import torch, which only fitting needs. Raises TrainingError naming the extra when it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise TrainingError(
            "fitting this family needs torch, which is not installed: pip install 'crossfade[train]' "
            "(applying a fitted one does not need it)"
        ) from error
    return torch


def to_numpy(tensor: torch.Tensor) -> Float32:
    """A float32 copy of a tensor, detached from what training does to it next."""
    copy: Float32 = tensor.detach().cpu().numpy().astype("float32", copy=True)
    return copy
