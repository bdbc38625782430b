"""Nearest rows among thousands: short codes in inverted lists are scanned, and the best re-scored by fixed-point rows.

An inverted file (IVF; Jegou, Douze and Schmid 2011) in three steps. Rows are projected on their leading principal
directions and rounded to 2 bits (packing.py); of these codes, those in the lists nearest to a query are scanned; the
KEPT best are scored by the whole rows, 8 bits a number, and the best of these are found. Every score is a sum of
integers, so that the compiled search (kernel/) and numpy's, which takes its place where there was no C compiler, find
the same rows.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Arrays, Float32
from .native import compiled
from .packing import MOST, ZERO, Packed, encode_centroids, nearest_lists, pack, unpack, whole_numbers
from .search import Int64, best
from .vectors import aligned, unit_rows

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]

NARROW = 192  # directions kept: fewer lose neighbours, more are read in vain
ONE_LIST_UP_TO = 3_000  # rows; so many are scanned in about the time that choosing among lists takes and saves
LEAST_SCANNED = 2_816  # rows, where lists are chosen
KEPT = 112  # candidates by code for each query, at most
# Of the KEPT, those are not re-scored that are so far below the last which is asked for, in units of the length of the
# query's whole numbers, in which scores by code are wrong. Of scifact, msmarco-dl and mixed collections 42 to 102 are
# left, and .0000 to .0003 of the neighbours lost; with 2 it were 37 to 85 and .0000 to .004.
MARGIN = 2.5
# A quarter of the lists to visit are, and the others where their cosine reaches NEAR * (that of the best)^4 - BELOW:
# who is close to one list finds the others in vain. Of msmarco-dl a third is scanned, of scifact and mixed collections
# .85 to .92, and .0000 to .004 of the neighbours are lost (most with 4,146 pairs of scifact).
NEAR, BELOW = 0.75, 0.05
FORMAT = 2  # of the arrays; earlier ones had no number, and fewer directions
SHIFT = 6  # bits that scores of lists lose, to fit into 16


@dataclass(frozen=True)
class IvfIndex:
    """Unit rows to search: keys (n, dim) in units of `unit` (1,), basis (dim, narrow), centroids (lists, narrow)."""

    keys: Int8
    unit: Float32
    basis: Float32
    centroids: Float32

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def packed(self) -> Packed:
        return pack(self.keys.astype(np.float32) * self.unit, self.basis, self.centroids)

    def given_arrays(self) -> tuple[NDArray[Any], ...]:
        """What the kernel takes of an index."""
        packed = self.packed
        return packed.codes, packed.rows, packed.starts, packed.centroids, packed.directions, self.keys

    def sizes(self, top: int) -> tuple[int, ...]:
        """What the kernel takes beside: directions, and how many lists, candidates and rows are searched for."""
        return self.basis.shape[1], self.visited, max(KEPT, top), top

    @cached_property
    def numbers(self) -> tuple[float, ...]:
        """What the kernel takes at last: the unit of keys, and what tells how much is scanned and scored."""
        return float(self.unit[0]), self.packed.reach, MARGIN, NEAR, BELOW

    @cached_property
    def visited(self) -> int:
        """Lists that a query visits: few enough rows to scan, and more of them the more there are."""
        lists, rows = len(self.centroids), len(self.keys)
        wanted = max(LEAST_SCANNED, 28.0 * rows**0.5)
        return min(lists, int(np.ceil(lists * wanted / max(rows, 1))))

    def search(self, probes: Float32, top: int) -> tuple[Int32, Float32]:
        """Rows and cosines (n, top), best first, for probes (n, dim) of any length; row -1 where fewer were found."""
        probes = np.ascontiguousarray(probes, np.float32)
        if compiled is None:
            return self._search_numpy(probes, top)
        rows, scores = np.empty((len(probes), top), np.int32), np.empty((len(probes), top), np.float32)
        narrow, *sizes = self.sizes(top)
        compiled.search(
            *(*self.given_arrays(), probes, rows, scores),
            *(probes.shape[1], narrow, len(probes), *sizes, *self.numbers),
        )
        return rows, scores

    def _border(self, lists: Float32, lengths: Float32) -> Float32:
        """The least score (n, 1) of a list to visit; scores (n, lists) are `lengths` (n, 1) for a cosine of 1."""
        ordered = np.sort(lists, axis=1)[:, ::-1]
        border = ordered[:, self.visited - 1, None]
        cosines = ordered[:, :1] / np.maximum(lengths, np.float32(1e-30))
        least = np.floor((np.float32(NEAR) * cosines**4 - np.float32(BELOW)) * lengths)
        least = np.minimum(least, ordered[:, (self.visited + 3) // 4 - 1, None])
        found: Float32 = np.where((cosines > 0) & (least > border), least, border)
        return found

    def extended(self, rows: Float32) -> IvfIndex:
        """The index with further unit rows (n, dim) after those it has; made for fewer, it may find less of them."""
        return replace(self, keys=aligned(np.concatenate([self.keys, _rounded(rows, self.unit)])))

    def arrays(self) -> dict[str, NDArray[Any]]:
        own: dict[str, NDArray[Any]] = {"keys": self.keys, "unit": self.unit, "basis": self.basis}
        return own | {"centroids": self.centroids, "format": np.array([FORMAT], np.int32)}

    @classmethod
    def restore(cls, arrays: Arrays) -> IvfIndex:
        index = cls(aligned(arrays["keys"]), arrays["unit"], arrays["basis"], arrays["centroids"])
        if "format" not in arrays:  # directions and lists are made again, for the keys as they lie
            made, _ = build_ivf(unit_rows(index.keys.astype(np.float32) * index.unit))
            index = replace(index, basis=made.basis, centroids=made.centroids)
        _ = index.packed  # now, and not in the first request
        return index

    @cached_property
    def _plain(self) -> tuple[Float32, Int64]:
        return unpack(self.packed)

    def candidates(self, whole: Float32, top: int) -> tuple[Int64, Float32, NDArray[np.bool_]]:
        """What is re-scored for probes in whole numbers (n, dim): rows and scores by code (n, KEPT), best first, -inf
        for those left out; and which rows (n, rows) were scanned."""
        codes, members = self._plain
        narrow: Float32 = whole @ self.packed.rounded
        coarse = whole_numbers(narrow)
        scores = coarse @ codes.T
        scanned = np.ones(scores.shape, np.bool_)
        if self.visited < len(self.centroids):
            scale = np.float32(MOST) / np.maximum(np.abs(narrow).max(axis=1, keepdims=True), np.float32(1e-30))
            coded = np.rint(narrow * scale)
            lists = np.floor((coded @ (encode_centroids(self.centroids) - ZERO).T) * np.float32(0.5**SHIFT))
            lengths = np.sqrt(np.square(narrow).sum(axis=1, keepdims=True)) * scale
            border = self._border(lists, lengths * np.float32(self.packed.reach * 0.5**SHIFT))
            scanned = (lists >= border)[:, members]
            scores[~scanned] = -np.inf
        kept, reached = best(scores, max(KEPT, top))
        margin = np.floor(np.float32(MARGIN) * np.sqrt(np.square(coarse).sum(axis=1, keepdims=True)))
        last = reached[:, min(top, reached.shape[1]) - 1, None]
        reached[reached < last - margin] = -np.inf
        return kept, reached, scanned

    def _search_numpy(self, probes: Float32, top: int) -> tuple[Int32, Float32]:
        """What the kernel does, in as few products as numpy can; equal codes at the border may be kept otherwise."""
        most = np.maximum(np.abs(probes).max(axis=1, keepdims=True), np.float32(1e-30))
        whole = np.rint(probes * (np.float32(MOST) / most))
        kept, reached, _ = self.candidates(whole, top)
        exact = np.matmul(self.keys[kept].astype(np.float64), whole[:, :, None].astype(np.float64))[:, :, 0]
        exact[reached == -np.inf] = -np.inf
        order = np.lexsort((kept, -exact))[:, :top]
        rows, cosines = np.take_along_axis(kept, order, axis=1), np.take_along_axis(exact, order, axis=1)
        rows, cosines = _widen(rows, top, -1), _widen(cosines, top, -np.inf)
        missing = cosines == -np.inf
        lengths = np.maximum(np.sqrt(np.einsum("nd,nd->n", probes, probes)), np.float32(1e-15))[:, None]
        return np.where(missing, -1, rows).astype(np.int32), np.where(
            missing, 0, cosines * (self.unit[0] * most / MOST / lengths)
        ).astype(np.float32)


def build_ivf(rows: Float32, *, seed: int = 0) -> tuple[IvfIndex, Int64]:
    """An index over unit rows (n, dim), and which row (n,) each of its own is: those of a list lie together.

    The same rows give the same index.
    """
    from scipy.cluster.vq import kmeans2

    unit = np.array([np.abs(rows).max() / MOST], np.float32)
    basis = _directions(rows, seed)
    narrow = rows @ basis
    if len(rows) <= ONE_LIST_UP_TO:
        centroids = unit_rows(narrow.mean(axis=0, keepdims=True))
        return IvfIndex(_rounded(rows, unit), unit, basis, centroids), np.arange(len(rows))
    count = round(1.5 * len(rows) ** 0.5)
    sample = narrow[np.random.default_rng(seed).permutation(len(rows))[: 32 * count]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster is an empty list
        centroids = unit_rows(kmeans2(sample, count, iter=8, minit="points", missing="warn", seed=seed)[0])
    order = np.argsort(nearest_lists(narrow, centroids), kind="stable")
    return IvfIndex(_rounded(rows[order], unit), unit, basis, centroids), order


def _rounded(rows: Float32, unit: Float32) -> Int8:
    """Rows (n, dim) in units of `unit` (1,)."""
    found: Int8 = aligned(np.clip(np.rint(rows / unit), -MOST, MOST).astype(np.int8))
    return found


def _directions(rows: Float32, seed: int) -> Float32:
    """The leading principal directions of rows (n, dim), turned at random among themselves (dim, NARROW).

    Numbers along them are spread alike; principal directions themselves would differ in how much 2 bits lose. Rows of
    fewer dimensions are told by more numbers than they have, which makes up for how coarse these are.
    """
    _, vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64))
    leading = vectors[:, ::-1][:, :NARROW]
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(NARROW, NARROW)))
    return np.ascontiguousarray(leading @ turn[: leading.shape[1]], np.float32)


def _widen(found: NDArray[Any], top: int, filler: float) -> NDArray[Any]:
    """Columns of the filler where fewer than `top` were found."""
    return np.pad(found, ((0, 0), (0, max(0, top - found.shape[1]))), constant_values=filler)
