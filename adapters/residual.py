"""A residual on top of any map: what the base map got wrong for the nearest paired documents is put right.

For a query x the correction is weight * sum_i g_i r_i over the `neighbours` pairs nearest to x in the source space,
with g = softmax(cosine / temperature) and r_i = y_i - base(x_i). It is the Nadaraya-Watson estimate (1964) of the
residual, cut to the nearest pairs; it grows with every document that the re-encode finishes.

Fits search exactly. `indexed` puts pairs into an index of short codes (ivf.py), which is what is kept and served. A
missed neighbour matters: at .8 to .87 of the nearest found a residual lost half of what it gains; at .95 nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from .base import JSON, Arrays, Float32, Map, PairsError, StoreError
from .ivf import IvfIndex, build_ivf
from .local import LocalMap
from .native import compiled
from .ordering import Ordering, fit_ordering
from .registry import describe_map, restore_map, with_prefix, without_prefix
from .rounded import NOTHING, RoundedLinear, given_arrays, rounded
from .search import best, blocks
from .values import CodedValues, add_values, encode_values
from .vectors import normalise_rows, unit_rows, unnormalised

NO_CODES, NO_FLOATS = np.empty(0, np.int8), np.empty(0, np.float32)
EXACT_UP_TO = 256  # pairs; a product over fewer is as fast as the index


@dataclass(frozen=True)
class ResidualMap:
    """A base map that does not normalise, and the residuals it left on its pairs.

    keys (n, source_dim) are the pairs' source vectors, centred on the documents' mean and of unit length, or no rows
    where `index` holds them; values (n, target_dim) their residuals, or no rows where `coded` holds them; centre
    (source_dim,) is taken from what is mapped before the keys are searched.
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
    index: IvfIndex | None = None
    coded: CodedValues | None = None
    ordering: Ordering | None = None

    @property
    def source_dim(self) -> int:
        return self.base.source_dim

    @property
    def target_dim(self) -> int:
        return self.base.target_dim

    def __len__(self) -> int:
        """How many pairs correct."""
        return len(self.values if self.coded is None else self.coded)

    @cached_property
    def _rounded(self) -> RoundedLinear | None:
        """The base map in bytes, where what corrects it is in bytes and it can be."""
        return rounded(self.base, self.centre) if self.index is not None else None

    def apply(self, vectors: Float32) -> Float32:
        """Map vectors (n, source_dim) to float32 (n, target_dim)."""
        if compiled is not None and self._given is not None:
            left, shape = self._left, (len(vectors), self.target_dim)
            out = np.empty(shape, np.float32) if left is None else left.apply(vectors)
            compiled.serve(*self._given, len(vectors), np.ascontiguousarray(vectors, np.float32), out)
            return out
        probes: Float32 = vectors - self.centre
        mapped = self.base.apply(vectors) if self._rounded is None else self._rounded.apply(probes)
        values = self.values if self.coded is None else self.coded
        for start, stop in blocks(len(probes), len(self)):
            rows, scores = self._nearest(probes[start:stop])
            add_values(
                values, rows, scores, mapped[start:stop], temperature=self.temperature, weight=self.weight
            )  # fmt: skip
            if self.ordering is not None:
                self.ordering.turn(rows, scores, mapped[start:stop])
        return normalise_rows(mapped) if self.normalise else mapped

    @cached_property
    def _local(self) -> LocalMap | None:
        """The base map, where it is one whose experts are in bytes."""
        local = self.base if isinstance(self.base, LocalMap) else None
        return local if local is not None and local.coded is not None and not local.normalise else None

    @cached_property
    def _left(self) -> Map | None:
        """What the compiled map finds done: what of the base map is not in bytes."""
        if self._local is not None:
            return self._local.left
        return self.base if self._rounded is None else None

    @cached_property
    def _given(self) -> tuple[Any, ...] | None:
        """What the compiled map takes before vectors, where all of this is in bytes."""
        ordering = self.ordering
        if self.index is None or self.coded is None or (ordering and not isinstance(ordering.targets, CodedValues)):
            return None
        targets = cast("CodedValues", ordering.targets) if ordering else CodedValues(NO_CODES, NO_FLOATS)
        gating, active, nibbles = 1.0, 0, False
        under: tuple[NDArray[Any] | None, ...] = *given_arrays(self._rounded), None, *NOTHING, None
        if self._local is not None and self._local.coded is not None:
            local, experts, under = self._local, self._local.coded, self._local.given_arrays(self.centre)
            gating, active, nibbles = local.temperature, min(local.active, len(local.routes)), experts.nibbles
        return (
            *(*self.index.given_arrays(), self.coded.codes, self.coded.units, targets.codes, targets.units),
            *(self.centre, *under, *self.index.numbers, self.temperature, self.weight),
            *((ordering.spread, ordering.ridge) if ordering else (0.0, 0.0)),
            *(gating, self.source_dim, *self.index.sizes(self.neighbours), self.target_dim),
            *(active, nibbles, self.normalise),
        )

    def _nearest(self, probes: Float32) -> tuple[NDArray[np.int32], Float32]:
        """Rows and cosines of the nearest keys (n, neighbours) for probes (n, source_dim), nearest first."""
        if self.index is not None:
            return self.index.search(probes, self.neighbours)
        rows, scores = best(normalise_rows(probes) @ self.keys.T, self.neighbours)
        return rows.astype(np.int32), np.ascontiguousarray(scores, np.float32)

    def arrays(self) -> dict[str, NDArray[Any]]:
        own: dict[str, NDArray[Any]] = {"keys": self.keys, "values": self.values, "centre": self.centre}
        if self.index is not None:
            own |= with_prefix("index", self.index.arrays())
        if self.coded is not None:
            own |= with_prefix("coded", self.coded.arrays())
        if self.ordering is not None:
            own |= with_prefix("ordering", self.ordering.arrays())
        return own | with_prefix("base", self.base.arrays())

    def settings(self) -> dict[str, JSON]:
        return {
            "base": describe_map(self.base),
            "neighbours": self.neighbours,
            "temperature": self.temperature,
            "weight": self.weight,
            "normalise": self.normalise,
            "ordering": None if self.ordering is None else self.ordering.settings(),
        }

    @classmethod
    def restore(cls, arrays: Arrays, settings: Mapping[str, JSON]) -> Self:
        if "graph" in arrays:
            raise StoreError("residual: an earlier version kept its pairs in a graph; fit the adapter again")
        base = restore_map(without_prefix("base", arrays), cast("dict[str, JSON]", settings["base"]))
        described = without_prefix("index", arrays)
        index = IvfIndex.restore(described) if described else None
        rounded = without_prefix("coded", arrays)
        coded = CodedValues.restore(rounded) if rounded else None
        ordered = cast("dict[str, JSON] | None", settings.get("ordering"))  # earlier versions had none
        keys, values = arrays["keys"], arrays["values"]
        counts = len(values if coded is None else coded), len(keys if index is None else index)
        if counts[0] != counts[1]:
            raise StoreError(f"residual: {counts[0]} values for {counts[1]} keys; fit the adapter again")
        made = cls(
            base=base,
            keys=keys,
            values=values,
            centre=arrays["centre"],
            neighbours=int(cast("int", settings["neighbours"])),
            temperature=float(cast("float", settings["temperature"])),
            weight=float(cast("float", settings["weight"])),
            normalise=bool(settings["normalise"]),
            index=index,
            coded=coded,
            ordering=Ordering.restore(without_prefix("ordering", arrays), ordered) if ordered else None,
        )
        _ = made._rounded, made._given  # now, and not in the first request
        return made

    def recentred(self, base: Map, centre: NDArray[Any]) -> ResidualMap:
        """The same residuals under another base and centre: query-side centring shares the documents' bank."""
        return replace(self, base=unnormalised(base), centre=np.asarray(centre, np.float32))

    def ordered(self, source: Float32, target: Float32, *, seed: int = 0) -> ResidualMap:
        """The same map, which then turns what it maps by the pairs it was fitted on (ordering.py), before `indexed`.

        target (n, target_dim) is the pairs' other side as the index holds it, also where residuals were fitted to
        another.
        """
        return replace(self, ordering=fit_ordering(self.base, self.keys, source, target, seed=seed))

    def indexed(self) -> ResidualMap:
        """The same map, its keys in an index and values in bytes unless they are few; the same for the same pairs."""
        if self.index is not None or len(self) <= EXACT_UP_TO:
            return self
        index, order = build_ivf(self.keys)
        coded = encode_values(self.values[order])
        ordering = None if self.ordering is None else self.ordering.encoded(order)
        return replace(self, keys=self.keys[:0], values=self.values[:0], index=index, coded=coded, ordering=ordering)

    def grown(self, source: Float32, target: Float32, mean: NDArray[Any], documents: Map | None = None) -> ResidualMap:
        """The map with more pairs source (n, source_dim), target (n, target_dim) in its bank.

        mean (source_dim,) is the documents' mean, as at the fit; `documents` the documents' map where the base is
        another (query-side centring). Costs the new pairs alone.
        """
        raw = self.base if documents is None else unnormalised(documents)
        keys, values = _bank(raw, source, target, mean)
        ordering = None if self.ordering is None else self.ordering.grown(target)
        if self.index is not None and self.coded is not None:
            return replace(self, coded=self.coded.joined(values), index=self.index.extended(keys), ordering=ordering)
        joined = np.concatenate([self.values, values])
        return replace(self, keys=np.concatenate([self.keys, keys]), values=joined, ordering=ordering).indexed()


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
