"""Local experts: a global map, and for each cluster of documents a correction held to it (Local Drift-Adapters,
shrunk).

Documents are clustered in the source space. Expert k corrects the global map by (x - mean_k) delta_k, fitted on the
residuals of its cluster by ridge regression *towards zero*, that is towards the global map: `prior` is the number of
pairs that the global map counts for, so the held-back share falls as 1 / n_k. The gate is
softmax(cosine(x, mean_k) / temperature) over the `active` nearest clusters, so that applying costs about one map for
each of them.

Experts turn, they do not shift: a cluster's own mean stays where the global map puts it. An offset for each cluster, as
the least-squares fit has it, moves queries towards the middle of their cluster, and so away from its single documents:
it costs .02 to .05 nDCG@10 on mixed collections, more than the experts gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from .base import JSON, Arrays, Float32, Map, PairsError
from .experts import CodedExperts, encode_experts
from .registry import describe_map, restore_map, with_prefix, without_prefix
from .rounded import RoundedLinear, given_arrays, rounded
from .search import best
from .vectors import normalise_rows, unit_rows, unnormalised

_SAMPLE = 2_500  # rows that k-means sees; the others only join the nearest cluster


@dataclass(frozen=True)
class LocalMap:
    """A base map that does not normalise, and one shrunk affine correction for each cluster.

    routes (clusters, source_dim) are unit directions from the documents' mean; deltas (clusters, source_dim,
    target_dim) and offsets (clusters, target_dim) the corrections with the cluster's mean folded in; centre
    (source_dim,) is taken from what is mapped before it is routed and corrected. Where `coded` holds the experts,
    deltas and offsets are without rows.
    """

    kind: ClassVar[str] = "local"
    base: Map
    routes: Float32
    deltas: Float32
    offsets: Float32
    centre: Float32
    temperature: float
    active: int
    normalise: bool = True
    coded: CodedExperts | None = None

    @property
    def source_dim(self) -> int:
        return self.base.source_dim

    @property
    def target_dim(self) -> int:
        return self.base.target_dim

    @cached_property
    def _rounded(self) -> RoundedLinear | None:
        """The base map in bytes, where what corrects it is in bytes and it can be."""
        return rounded(self.base, self.centre) if self.coded is not None else None

    @property
    def left(self) -> Map | None:
        """What of a map whose experts are in bytes is not: its base, where that cannot be."""
        return self.base if self._rounded is None else None

    def given_arrays(self, centre: Float32) -> tuple[NDArray[Any] | None, ...]:
        """What the kernel takes of a map whose experts are in bytes: of its base, its centre, and of its experts.

        None for a centre that is equal to this one (source_dim,), and vectors are then centred once.
        """
        assert self.coded is not None
        own = None if np.array_equal(self.centre, centre) else self.centre
        return *given_arrays(self._rounded), own, *self.coded.packed_arrays(), self.routes

    def apply(self, vectors: Float32) -> Float32:
        """Map vectors (n, source_dim) to float32 (n, target_dim)."""
        centred: Float32 = vectors - self.centre
        mapped = self.base.apply(vectors) if self._rounded is None else self._rounded.apply(centred)
        if self.coded is not None:
            scores: Float32 = centred @ self.routes.T
            self.coded.add(centred, scores, self.active, self.temperature, mapped)
        else:
            mapped += self._correct_one(centred[0]) if len(vectors) == 1 else self._correct(centred)
        return normalise_rows(mapped) if self.normalise else mapped

    def _correct_one(self, centred: Float32) -> Float32:
        """The correction (target_dim,) of one vector; half the time of the general path."""
        scores = self.routes @ centred
        scores *= np.float32(1.0 / max(float(centred @ centred) ** 0.5, 1e-12))
        count = min(self.active, len(scores))
        experts = np.argpartition(scores, len(scores) - count)[len(scores) - count :]
        gates = np.exp((scores[experts] - scores[experts].max()) / np.float32(self.temperature))
        gates /= gates.sum()
        correction: Float32 = gates @ self.offsets[experts]
        for expert, gate in zip(experts.tolist(), gates.tolist(), strict=True):
            correction += np.float32(gate) * (centred @ self.deltas[expert])
        return correction

    def _correct(self, centred: Float32) -> Float32:
        """The corrections (n, target_dim): one product for each expert, over the rows that it is active for."""
        experts, gates = self.gate(centred)
        count = experts.shape[1]
        order = np.argsort(experts, axis=None, kind="stable")
        sorted_experts = experts.ravel()[order]
        gathered = centred[order // count]
        found = np.empty((len(order), self.target_dim), np.float32)
        starts = np.flatnonzero(np.diff(sorted_experts, prepend=-1)).tolist()
        for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
            np.matmul(gathered[start:stop], self.deltas[sorted_experts[start]], out=found[start:stop])
        found += self.offsets[sorted_experts]
        found *= gates.ravel()[order, None]
        placed = np.empty_like(found)
        placed[order] = found
        corrections: Float32 = placed.reshape(len(centred), count, -1).sum(axis=1)
        return corrections

    def gate(self, centred: Float32) -> tuple[NDArray[np.int64], Float32]:
        """The active experts and their weights, both (n, active), for centred vectors (n, source_dim)."""
        experts, scores = best(unit_rows(centred) @ self.routes.T, self.active)
        gates = np.exp((scores - scores[:, :1]) / np.float32(self.temperature))
        return experts, gates / gates.sum(axis=1, keepdims=True)

    def arrays(self) -> dict[str, NDArray[Any]]:
        own = {"routes": self.routes, "deltas": self.deltas, "offsets": self.offsets, "centre": self.centre}
        if self.coded is not None:
            own |= with_prefix("coded", self.coded.arrays())
        return own | with_prefix("base", self.base.arrays())

    def settings(self) -> dict[str, JSON]:
        return {
            "base": describe_map(self.base),
            "temperature": self.temperature,
            "active": self.active,
            "normalise": self.normalise,
        }

    @classmethod
    def restore(cls, arrays: Arrays, settings: Mapping[str, JSON]) -> Self:
        coded = without_prefix("coded", arrays)
        made = cls(
            base=restore_map(without_prefix("base", arrays), cast("dict[str, JSON]", settings["base"])),
            routes=arrays["routes"],
            deltas=arrays["deltas"],
            offsets=arrays["offsets"],
            centre=arrays["centre"],
            temperature=float(cast("float", settings["temperature"])),
            active=int(cast("int", settings["active"])),
            normalise=bool(settings["normalise"]),
            coded=CodedExperts.restore(coded) if coded else None,
        )
        _ = made._rounded  # now, and not in the first request
        return made

    def encoded(self) -> LocalMap:
        """The same map, its experts in a byte a number."""
        if self.coded is not None:
            return self
        coded = encode_experts(self.deltas, self.offsets)
        return replace(self, deltas=self.deltas[:0], offsets=self.offsets[:0], coded=coded)

    def recentred(self, base: Map, centre: NDArray[Any]) -> LocalMap:
        """The same experts under another base and centre (query-side centring)."""
        return replace(self, base=unnormalised(base), centre=np.asarray(centre, np.float32))


@dataclass(frozen=True)
class Clusters:
    """Spherical k-means of centred pairs: mean (source_dim,), routes (clusters, source_dim), member (n,)."""

    mean: Float32
    routes: Float32
    member: NDArray[np.int64]


def fit_clusters(source: Float32, clusters: int, *, seed: int = 0, rounds: int = 15) -> Clusters:
    """Cluster source vectors (n, source_dim) by direction from their mean. Raises PairsError for too many clusters."""
    if not 1 <= clusters <= len(source) // 2:
        raise PairsError(f"{clusters} clusters from {len(source)} pairs: use 1 to {len(source) // 2}")
    from scipy.cluster.vq import kmeans2  # not at the top: whoever applies a map needs none of scipy, slow to import

    mean = source.mean(axis=0, dtype=np.float64).astype(np.float32)
    unit = unit_rows(source - mean)
    sample = unit[np.random.default_rng(seed).permutation(len(unit))[:_SAMPLE]]
    centres, _ = kmeans2(sample, clusters, iter=rounds, minit="++", missing="warn", seed=seed)
    routes = unit_rows(centres)
    kept, member = np.unique(np.argmax(unit @ routes.T, axis=1), return_inverse=True)  # some may be empty
    return Clusters(mean, routes[kept], member.astype(np.int64))


def fit_local(
    base: Map,
    source: Float32,
    target: Float32,
    *,
    clusters: int | Clusters = 16,
    prior: float = 300.0,
    temperature: float = 0.1,
    active: int = 2,
    normalise: bool = True,
    seed: int = 0,
) -> LocalMap:
    """Fit experts on what `base` leaves of the pairs source (n, source_dim), target (n, target_dim).

    `base` is the map of the *documents*; prior is the number of pairs that holding to it counts for. Raises
    PairsError for too many clusters or settings out of range.
    """
    if prior <= 0 or temperature <= 0 or active < 1:
        raise PairsError(f"prior is {prior}, temperature {temperature}, active {active}: all must be above 0")
    found = fit_clusters(source, clusters, seed=seed) if isinstance(clusters, int) else clusters
    raw = unnormalised(base)
    centred, left = source - found.mean, target - raw.apply(source)
    spread = float(np.einsum("ij,ij->", centred, centred)) / centred.size
    count = len(found.routes)
    deltas = np.empty((count, raw.source_dim, raw.target_dim), np.float32)
    offsets = np.empty((count, raw.target_dim), np.float32)
    for expert in range(count):
        rows = found.member == expert
        deltas[expert], offsets[expert] = _fit_expert(centred[rows], left[rows], prior, spread)
    return LocalMap(raw, found.routes, deltas, offsets, found.mean, temperature, active, normalise)


def _fit_expert(source: Float32, left: Float32, prior: float, spread: float) -> tuple[Float32, Float32]:
    """Ridge regression towards no correction: delta (source_dim, target_dim) and the offset that undoes it at the mean.

    The offset (target_dim,) is -mean delta, so that the cluster's mean is left alone.
    """
    from scipy.linalg import solve  # see fit_clusters

    x_mean = source.mean(axis=0)
    x, y = source - x_mean, left - left.mean(axis=0)
    held = np.float32(prior * spread)
    if len(x) < x.shape[1]:  # the dual form is smaller; float32 is enough under so strong a ridge
        delta = x.T @ solve(x @ x.T + held * np.eye(len(x), dtype=np.float32), y, assume_a="pos")
    else:
        delta = solve(x.T @ x + held * np.eye(x.shape[1], dtype=np.float32), x.T @ y, assume_a="pos")
    return np.ascontiguousarray(delta, np.float32), (-x_mean @ delta).astype(np.float32)
