"""How rows lie in an index: 2 bits a number, in blocks of 32 rows, so that a query scores a block by table look-ups.

A number of a row becomes -3, -1, 1 or 3 in units of half a step, which for numbers that are spread alike and normally
is nearly the best that 2 bits can do: .119 of the square is lost where the best four levels lose .117 (Max 1960). Rows
are turned at random first, so that all their numbers are spread alike. A query's numbers become whole ones, so small
that what a pair of numbers adds fits into 6 bits (kernel/scan.inc).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Float32
from .vectors import aligned

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

STEP = 0.9957  # standard deviations between two levels
ROWS = 32  # of a block
PAIR = np.float32(9.99)  # the largest sum of two of a query's numbers: 10 when both are rounded up
ZERO, MOST = 64, 127  # the code of nought in centroids, the largest code of a query
LANES, GROUP = 16, 4  # centroids of a block, numbers of a centroid that lie together


@dataclass(frozen=True)
class Packed:
    """Codes as the kernel reads them: codes (blocks, narrow / 4, ROWS) with four numbers in a byte, rows
    (blocks * ROWS,), -1 where a list's last block is filled up, starts (lists + 1,) the first block of each list,
    centroids as codes of 7 bits (blocks, narrow / GROUP, LANES, GROUP), and so directions, which are rounded to whole
    numbers (dim, narrow) first; reach, how long centroids in codes are."""

    codes: NDArray[np.uint8]
    centroids: NDArray[np.uint8]
    rows: Int32
    starts: Int32
    rounded: Float32
    directions: NDArray[np.uint8]
    reach: float


def pack(keys: Float32, basis: Float32, centroids: Float32) -> Packed:
    """Lay rows (n, dim) out by the nearest of centroids (lists, narrow), narrowed on basis (dim, narrow)."""
    rounded: Float32 = np.rint(basis * np.float32((ZERO - 1) / max(float(np.abs(basis).max()), 1e-30)))
    narrow = keys @ rounded
    lists = len(centroids)
    members = nearest_lists(narrow, centroids)
    sizes = np.bincount(members, minlength=lists)
    starts = np.concatenate([[0], np.cumsum(-(-sizes // ROWS))]).astype(np.int32)
    order = np.argsort(members, kind="stable")
    first = np.repeat(starts[:-1] * ROWS - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
    places = np.arange(len(narrow)) + first
    rows = np.full(starts[-1] * ROWS, -1, np.int32)
    rows[places] = order
    laid = np.zeros((len(rows), narrow.shape[1]), np.uint8)
    laid[places] = levels(narrow)[order]
    wide = -(-len(basis) // (2 * GROUP)) * 2 * GROUP
    directions = np.full((basis.shape[1], wide), ZERO, np.float32)
    directions[:, : len(basis)] += rounded.T
    encoded = encode_centroids(centroids)
    reach = float(np.median(np.sqrt(np.square(encoded - ZERO).sum(axis=1))))
    return Packed(aligned(_lay(laid)), _lay_products(encoded), rows, starts, rounded, _lay_products(directions), reach)


def nearest_lists(narrow: Float32, centroids: Float32) -> Int64:
    """The list (n,) of each narrowed row (n, narrow)."""
    found: Int64 = np.argmax(narrow @ centroids.T, axis=1).astype(np.int64)
    return found


def levels(narrow: Float32) -> NDArray[np.uint8]:
    """Numbers of rows as the number of their level, 0 to 3."""
    step = np.float32(STEP * max(float(np.sqrt(np.square(narrow[:: -(-len(narrow) // 4_096)]).mean())), 1e-30))
    found: NDArray[np.uint8] = (np.clip(np.floor(narrow / step), -2, 1) + 2).astype(np.uint8)
    return found


def whole_numbers(narrow: Float32) -> Float32:
    """A query's numbers (n, narrow) as the tables of the kernel have them."""
    sizes = np.abs(narrow)
    pairs = (sizes[:, ::2] + sizes[:, 1::2]).max(axis=1, keepdims=True)
    found: Float32 = np.rint(narrow * (PAIR / np.maximum(pairs, np.float32(1e-30))))
    return found


def encode_centroids(centroids: Float32) -> Float32:
    """Codes 1 to MOST of centroids (lists, narrow), whose scale is their own; a few outliers are cut off."""
    some = np.abs(centroids[:: -(-len(centroids) // 4_096)])
    scale = (ZERO - 1) / max(float(np.quantile(some, 0.9999)), 1e-30)
    codes: Float32 = np.clip(np.rint(centroids * np.float32(scale)), 1 - ZERO, ZERO - 1) + np.float32(ZERO)
    return codes


def _lay(laid: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Levels (blocks * ROWS, narrow) four in a byte, the first half of a block's rows in the even bytes."""
    four = laid.reshape(len(laid), -1, 4)
    joined = four[..., 0] | four[..., 1] << 2 | four[..., 2] << 4 | four[..., 3] << 6
    halves = joined.reshape(-1, 2, ROWS // 2, joined.shape[1]).transpose(0, 3, 2, 1)
    return np.ascontiguousarray(halves).reshape(len(halves), joined.shape[1], ROWS)


def _lay_products(codes: Float32) -> NDArray[np.uint8]:
    """Codes (n, numbers) in blocks of LANES rows, GROUP numbers of each together, for products of bytes."""
    laid = np.full((-(-len(codes) // LANES) * LANES, codes.shape[1]), ZERO, np.uint8)
    laid[: len(codes)] = codes
    return np.ascontiguousarray(laid.reshape(-1, LANES, codes.shape[1] // GROUP, GROUP).transpose(0, 2, 1, 3))


def unpack(packed: Packed) -> tuple[Float32, Int64]:
    """Levels -3, -1, 1, 3 (n, narrow) by row, and the list of each row (n,)."""
    count, narrow = len(packed.codes), packed.codes.shape[1] * 4
    joined = packed.codes.reshape(count, -1, ROWS // 2, 2).transpose(0, 3, 2, 1).reshape(count * ROWS, -1)
    four = np.stack([joined >> shift & 3 for shift in (0, 2, 4, 6)], axis=2).reshape(-1, narrow)
    real = packed.rows >= 0
    found: Float32 = np.empty((int(real.sum()), narrow), np.float32)
    found[packed.rows[real]] = 2 * four[real].astype(np.float32) - 3
    members: NDArray[Any] = np.empty(len(found), np.int64)
    members[packed.rows[real]] = np.repeat(np.arange(len(packed.starts) - 1), np.diff(packed.starts) * ROWS)[real]
    return found, members
