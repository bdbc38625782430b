"""Nearest rows among many thousands: a navigable small-world graph over half-precision vectors, kept as bytes.

usearch does the work (Malkov and Yashunin 2016). One thread builds, so the same rows give the same graph. Where it is
not installed (a platform without its wheel) `is_available` says so, and rows are searched exactly.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Float32, StoreError

CONNECTIVITY = 16
BUILD_BEAM = 96
# Candidates kept while searching; time grows in proportion. Queries lie off the documents that the graph is made of, so
# fewer miss neighbours: 12 over int8 found .79 to .87 of the 8 nearest on real queries and cost .03 to .05 nDCG@10.
SEARCH_BEAM = 64


def is_available() -> bool:
    """Whether graphs can be built and searched here."""
    return find_spec("usearch") is not None


def build_graph(rows: Float32) -> NDArray[np.uint8]:
    """A graph over unit rows (n, dim), named by their place, as bytes."""
    from usearch.index import Index

    graph = Index(
        ndim=rows.shape[1], metric="cos", dtype="f16", connectivity=CONNECTIVITY, expansion_add=BUILD_BEAM, multi=False
    )
    return _add(graph, rows)


def add_rows(graph: NDArray[np.uint8], rows: Float32) -> NDArray[np.uint8]:
    """The graph with further unit rows (n, dim) after those it has."""
    return _add(_restore(graph), rows)


def open_graph(graph: NDArray[np.uint8]) -> Any:
    """The graph of these bytes, to search. Raises StoreError where they are none."""
    opened = _restore(graph)
    opened.expansion_search = SEARCH_BEAM
    return opened


def search_graph(opened: Any, probes: Float32, top: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows and cosines (n, top), nearest first, for unit probes (n, dim)."""
    found = opened.search(probes, top, threads=1)
    keys, distances = found.keys.astype(np.int64, copy=False), found.distances
    if keys.ndim == 1:
        keys, distances = keys[None], distances[None]
    return keys, np.float32(1.0) - distances


def _add(graph: Any, rows: Float32) -> NDArray[np.uint8]:
    graph.add(np.arange(len(graph), len(graph) + len(rows)), rows, threads=1)
    return np.frombuffer(bytes(graph.save()), np.uint8)


def _restore(graph: NDArray[np.uint8]) -> Any:
    from usearch.index import Index

    try:
        opened = Index.restore(graph.tobytes())
    except Exception as error:  # usearch raises bare RuntimeError and others from C++
        raise StoreError(f"residual: its graph cannot be read ({error}); fit the adapter again") from error
    if opened is None:
        raise StoreError("residual: its graph cannot be read; fit the adapter again")
    return opened
