"""Nearest rows among thousands: short codes in inverted lists are scanned, and the best re-scored by fixed-point rows.

An inverted file (IVF; Jegou, Douze and Schmid 2011) in three steps. Rows are projected on their leading principal
directions and rounded to 7 bits; of these codes, those in the lists nearest to a query are scanned; the KEPT best are
scored by the whole rows, 8 bits a number, and the best of these are found. Every score is a sum of integers, so that
the compiled search (kernel/) and numpy's, which takes its place where there was no C compiler, find the same rows.
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
from .search import Int64, best
from .vectors import unit_rows

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]

NARROW = 128  # directions kept: fewer lose neighbours, more are read in vain
ONE_LIST_UP_TO = 5_000  # rows; so many are scanned in about the time that choosing among lists takes and saves
LEAST_SCANNED = 3_584  # rows, where lists are chosen
KEPT = 128  # candidates by code for each query
MOST = 127  # codes of rows are 1 to MOST, those of queries and whole rows -MOST to MOST
ZERO = 64  # the code of nought
SHIFT = 6  # bits that scores by code lose, to fit into 16
LANES, GROUP = 16, 4  # rows of a block, numbers of a row that lie together: kernel/search.h


@dataclass(frozen=True)
class Packed:
    """Codes as the kernel reads them: codes (blocks, narrow / GROUP, LANES, GROUP), rows (blocks * LANES,), -1 where a
    list's last block is filled up, starts (lists + 1,) the first block of each list, centroids as codes."""

    codes: NDArray[np.uint8]
    centroids: NDArray[np.uint8]
    rows: Int32
    starts: Int32


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
        return _pack(self.keys.astype(np.float32) * self.unit, self.basis, self.centroids)

    @cached_property
    def visited(self) -> int:
        """Lists that a query visits: few enough rows to scan, and more of them the more there are."""
        lists, rows = len(self.centroids), len(self.keys)
        wanted = max(LEAST_SCANNED, 28.0 * rows**0.5)
        return min(lists, int(np.ceil(lists * wanted / max(rows, 1))))

    def search(self, probes: Float32, top: int) -> tuple[Int32, Float32]:
        """Rows and cosines (n, top), best first, for unit probes (n, dim); row -1 where fewer were found."""
        probes = np.ascontiguousarray(probes, np.float32)
        narrow: Float32 = probes @ self.basis
        if compiled is None:
            return self._search_numpy(probes, narrow, top)
        count, packed = len(probes), self.packed
        rows, scores = np.empty((count, top), np.int32), np.empty((count, top), np.float32)
        compiled.search(
            *(packed.codes, packed.rows, packed.starts, packed.centroids, self.keys, narrow, probes),
            *(
                rows,
                scores,
                probes.shape[1],
                narrow.shape[1],
                count,
                self.visited,
                max(KEPT, top),
                top,
                float(self.unit[0]),
            ),
        )
        return rows, scores

    def extended(self, rows: Float32) -> IvfIndex:
        """The index with further unit rows (n, dim) after those it has; made for fewer, it may find less of them."""
        return replace(self, keys=np.concatenate([self.keys, _rounded(rows, self.unit)]))

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"keys": self.keys, "unit": self.unit, "basis": self.basis, "centroids": self.centroids}

    @classmethod
    def restore(cls, arrays: Arrays) -> IvfIndex:
        index = cls(arrays["keys"], arrays["unit"], arrays["basis"], arrays["centroids"])
        _ = index.packed  # now, and not in the first request
        return index

    @cached_property
    def _plain(self) -> tuple[Float32, Int64]:
        """Codes (n, narrow) less ZERO, by row, and the list of each row (n,)."""
        packed = self.packed
        flat = packed.codes.transpose(0, 2, 1, 3).reshape(len(packed.rows), -1)
        real = packed.rows >= 0
        codes = np.empty((len(self.keys), flat.shape[1]), np.float32)
        codes[packed.rows[real]] = flat[real].astype(np.float32) - ZERO
        members = np.empty(len(self.keys), np.int64)
        members[packed.rows[real]] = np.repeat(np.arange(len(packed.starts) - 1), np.diff(packed.starts) * LANES)[real]
        return codes, members

    def _search_numpy(self, probes: Float32, narrow: Float32, top: int) -> tuple[Int32, Float32]:
        """What the kernel does, in as few products as numpy can; equal codes at the border may be kept otherwise."""
        codes, members = self._plain
        scale = np.float32(MOST) / np.maximum(np.abs(narrow).max(axis=1, keepdims=True), np.float32(1e-30))
        coded = np.rint(narrow * scale)
        scores = np.floor((coded @ codes.T) * np.float32(0.5**SHIFT))
        if self.visited < len(self.centroids):
            lists = np.floor((coded @ (_encode(self.centroids) - ZERO).T) * np.float32(0.5**SHIFT))
            border = np.partition(lists, -self.visited, axis=1)[:, -self.visited, None]
            scores[~(lists >= border)[:, members]] = -np.inf
        kept, reached = best(scores, max(KEPT, top))
        most = np.maximum(np.abs(probes).max(axis=1, keepdims=True), np.float32(1e-30))
        whole = np.rint(probes * (np.float32(MOST) / most)).astype(np.float64)
        exact = np.matmul(self.keys[kept].astype(np.float64), whole[:, :, None])[:, :, 0]
        exact[reached == -np.inf] = -np.inf
        order = np.lexsort((kept, -exact))[:, :top]
        rows, cosines = np.take_along_axis(kept, order, axis=1), np.take_along_axis(exact, order, axis=1)
        rows, cosines = _widen(rows, top, -1), _widen(cosines, top, -np.inf)
        missing = cosines == -np.inf
        return np.where(missing, -1, rows).astype(np.int32), np.where(
            missing, 0, cosines * (self.unit[0] * most / MOST)
        ).astype(np.float32)


def build_ivf(rows: Float32, *, seed: int = 0) -> tuple[IvfIndex, Int64]:
    """An index over unit rows (n, dim), and which row (n,) each of its own is: those of a list lie together.

    The same rows give the same index.
    """
    from scipy.cluster.vq import kmeans2

    unit = np.array([np.abs(rows).max() / MOST], np.float32)
    basis = _principal(rows, min(NARROW, rows.shape[1]))
    narrow = rows @ basis
    if len(rows) <= ONE_LIST_UP_TO:
        centroids = unit_rows(narrow.mean(axis=0, keepdims=True))
        return IvfIndex(_rounded(rows, unit), unit, basis, centroids), np.arange(len(rows))
    count = round(2 * len(rows) ** 0.5)
    sample = narrow[np.random.default_rng(seed).permutation(len(rows))[: 32 * count]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster is an empty list
        centroids = unit_rows(kmeans2(sample, count, iter=8, minit="points", missing="warn", seed=seed)[0])
    order = np.argsort(np.argmax(narrow @ centroids.T, axis=1), kind="stable")
    return IvfIndex(_rounded(rows[order], unit), unit, basis, centroids), order


def _rounded(rows: Float32, unit: Float32) -> Int8:
    """Rows (n, dim) in units of `unit` (1,)."""
    found: Int8 = np.clip(np.rint(rows / unit), -MOST, MOST).astype(np.int8)
    return found


def _principal(rows: Float32, count: int) -> Float32:
    """The leading principal directions (dim, count), with columns of noughts up to a multiple of two GROUPs."""
    _, vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64))
    basis = np.zeros((rows.shape[1], -(-count // (2 * GROUP)) * 2 * GROUP), np.float32)
    basis[:, :count] = vectors[:, ::-1][:, :count]
    return basis


def _encode(narrow: Float32) -> Float32:
    """Codes 1 to MOST of narrowed rows (n, narrow), whose scale is their own; a few outliers are cut off."""
    some = np.abs(narrow[:: -(-len(narrow) // 4_096)])
    scale = (ZERO - 1) / max(float(np.quantile(some, 0.9999)), 1e-30)
    codes: Float32 = np.clip(np.rint(narrow * np.float32(scale)), 1 - ZERO, ZERO - 1) + np.float32(ZERO)
    return codes


def _lay(codes: Float32, places: Int64, size: int) -> NDArray[np.uint8]:
    """Codes (n, narrow) at their places among `size`, a multiple of LANES, as the kernel reads them."""
    laid = np.full((size, codes.shape[1]), ZERO, np.uint8)
    laid[places] = codes
    blocks = laid.reshape(-1, LANES, codes.shape[1] // GROUP, GROUP).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(blocks)


def _pack(keys: Float32, basis: Float32, centroids: Float32) -> Packed:
    narrow = keys @ basis
    lists = len(centroids)
    members = np.argmax(narrow @ centroids.T, axis=1)
    sizes = np.bincount(members, minlength=lists)
    starts = np.concatenate([[0], np.cumsum(-(-sizes // LANES))]).astype(np.int32)
    order = np.argsort(members, kind="stable")
    first = np.repeat(starts[:-1] * LANES - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
    places = np.arange(len(keys)) + first
    rows = np.full(starts[-1] * LANES, -1, np.int32)
    rows[places] = order
    coded = _lay(_encode(narrow)[order], places, len(rows))
    return Packed(coded, _lay(_encode(centroids), np.arange(lists), -(-lists // LANES) * LANES), rows, starts)


def _widen(found: NDArray[Any], top: int, filler: float) -> NDArray[Any]:
    """Columns of the filler where fewer than `top` were found."""
    return np.pad(found, ((0, 0), (0, max(0, top - found.shape[1]))), constant_values=filler)
