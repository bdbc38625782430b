"""A residual on top of any map: what the base map got wrong for the nearest paired documents is put right.

For a query x the correction is weight * sum_i g_i r_i over the `neighbours` pairs nearest to x in the source space,
with g = softmax(cosine / temperature) and r_i = y_i - base(x_i). It is the Nadaraya-Watson estimate (1964) of the
residual, cut to the nearest pairs; it grows with every document that the re-encode finishes.

Fits search exactly. `indexed` puts many pairs into a graph (HNSW, Malkov and Yashunin 2016, by usearch), which is what
is kept and served. A missed neighbour matters: lists by k-means that read as much lose half of what a residual gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from .base import JSON, Arrays, Float32, Map, PairsError
from .graph import add_rows, build_graph, is_available, open_graph, search_graph
from .registry import describe_map, restore_map, with_prefix, without_prefix
from .search import best, blocks
from .vectors import normalise_rows, unit_rows, unnormalised

EXACT_UP_TO = 2_000  # pairs; a product over fewer is as fast as the graph, and misses nothing


@dataclass(frozen=True)
class ResidualMap:
    """A base map that does not normalise, and the residuals it left on its pairs.

    keys (n, source_dim) are the pairs' source vectors, centred on the documents' mean and of unit length, or no rows
    where `graph` (bytes,) holds them; values (n, target_dim) their residuals; centre (source_dim,) is taken from what
    is mapped before the keys are searched.
    """

    kind: ClassVar[str] = "residual"
    base: Map
    keys: Float32
    values: Float32
    centre: Float32
    neighbours: int
    temperature: float
    weight: float
    normalise: bool = True
    graph: NDArray[np.uint8] | None = None

    @cached_property
    def _opened(self) -> Any:
        assert self.graph is not None
        return open_graph(self.graph)

    @property
    def source_dim(self) -> int:
        return self.base.source_dim

    @property
    def target_dim(self) -> int:
        return self.base.target_dim

    def __len__(self) -> int:
        """How many pairs correct."""
        return len(self.values)

    def apply(self, vectors: Float32) -> Float32:
        """Map vectors (n, source_dim) to float32 (n, target_dim)."""
        mapped = self.base.apply(vectors)
        probes = normalise_rows(vectors - self.centre)
        for start, stop in blocks(len(probes), len(self.keys)):
            rows, scores = self._nearest(probes[start:stop])
            mapped[start:stop] += self._correct(rows, scores)
        return normalise_rows(mapped) if self.normalise else mapped

    def _nearest(self, probes: Float32) -> tuple[NDArray[Any], NDArray[Any]]:
        """Rows and cosines of the nearest keys (n, neighbours) for unit probes (n, source_dim), nearest first."""
        if self.graph is None:
            return best(probes @ self.keys.T, self.neighbours)
        return search_graph(self._opened, probes, min(self.neighbours, len(self)))

    def _correct(self, rows: NDArray[Any], scores: NDArray[Any]) -> Float32:
        """The weighted residuals (n, target_dim) of the neighbours (n, neighbours)."""
        gates = np.exp((scores - scores[:, :1]) / np.float32(self.temperature))
        gates *= np.float32(self.weight) / gates.sum(axis=1, keepdims=True)
        if len(rows) == 1:
            return cast("Float32", gates @ self.values[rows[0]])
        corrections: Float32 = np.matmul(gates[:, None, :], self.values[rows])[:, 0]
        return corrections

    def arrays(self) -> dict[str, NDArray[Any]]:
        own: dict[str, NDArray[Any]] = {"keys": self.keys, "values": self.values, "centre": self.centre}
        if self.graph is not None:
            own["graph"] = self.graph
        return own | with_prefix("base", self.base.arrays())

    def settings(self) -> dict[str, JSON]:
        return {
            "base": describe_map(self.base),
            "neighbours": self.neighbours,
            "temperature": self.temperature,
            "weight": self.weight,
            "normalise": self.normalise,
        }

    @classmethod
    def restore(cls, arrays: Arrays, settings: Mapping[str, JSON]) -> Self:
        base = restore_map(without_prefix("base", arrays), cast("dict[str, JSON]", settings["base"]))
        return cls(
            base=base,
            keys=arrays["keys"],
            values=arrays["values"],
            centre=arrays["centre"],
            neighbours=int(cast("int", settings["neighbours"])),
            temperature=float(cast("float", settings["temperature"])),
            weight=float(cast("float", settings["weight"])),
            normalise=bool(settings["normalise"]),
            graph=arrays.get("graph"),
        )

    def recentred(self, base: Map, centre: NDArray[Any]) -> ResidualMap:
        """The same residuals under another base and centre: query-side centring shares the documents' bank."""
        return replace(self, base=unnormalised(base), centre=np.asarray(centre, np.float32))

    def indexed(self) -> ResidualMap:
        """The same map, its keys in a graph where they are many; deterministic for the same keys."""
        if self.graph is not None or len(self) <= EXACT_UP_TO or not is_available():
            return self
        return replace(self, keys=self.keys[:0], graph=build_graph(self.keys))

    def grown(self, source: Float32, target: Float32, mean: NDArray[Any], documents: Map | None = None) -> ResidualMap:
        """The map with more pairs source (n, source_dim), target (n, target_dim) in its bank.

        mean (source_dim,) is the documents' mean, as at the fit; `documents` the documents' map where the base is
        another (query-side centring). Costs the new pairs alone.
        """
        raw = self.base if documents is None else unnormalised(documents)
        keys, values = _bank(raw, source, target, mean)
        joined = np.concatenate([self.values, values])
        if self.graph is None:
            return replace(self, keys=np.concatenate([self.keys, keys]), values=joined).indexed()
        return replace(self, values=joined, graph=add_rows(self.graph, keys))


def fit_residual(
    base: Map,
    source: Float32,
    target: Float32,
    *,
    neighbours: int = 8,
    temperature: float = 0.05,
    weight: float = 0.3,
    normalise: bool = True,
) -> ResidualMap:
    """Keep what `base` gets wrong on the pairs source (n, source_dim), target (n, target_dim).

    `base` is the map of the *documents*, normalising or not; temperature is in units of cosine. Raises PairsError for
    settings out of range.
    """
    if neighbours < 1 or temperature <= 0:
        raise PairsError(f"neighbours is {neighbours} and temperature {temperature}: both must be above 0")
    mean = source.mean(axis=0, dtype=np.float64).astype(np.float32)
    raw = unnormalised(base)
    keys, values = _bank(raw, source, target, mean)
    return ResidualMap(raw, keys, values, mean, neighbours, temperature, weight, normalise)


def _bank(base: Map, source: Float32, target: Float32, mean: NDArray[Any]) -> tuple[Float32, Float32]:
    return unit_rows(source - np.asarray(mean, np.float32)), np.ascontiguousarray(
        target - base.apply(source), np.float32
    )
