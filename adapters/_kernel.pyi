"""The compiled part (kernel/): what the modules beside it do in numpy where there was no C compiler."""

from typing import Any

CALLS: int

def search(
    codes: Any, block_rows: Any, starts: Any, centroids: Any, directions: Any, keys: Any, probes: Any,
    rows: Any, scores: Any, dim: int, narrowed: int, count: int, visited: int, kept: int, top: int,
    unit: float, reach: float, margin: float, near: float, below: float, /,
) -> None:  # fmt: skip
    """Write the rows found and their scores. Raises ValueError where sizes do not agree."""

def serve(
    codes: Any, block_rows: Any, starts: Any, centroids: Any, directions: Any, keys: Any, values: Any, units: Any,
    targets: Any, target_units: Any, centre: Any,
    base_codes: Any, base_scales: Any, base_offsets: Any, base_centre: Any,
    expert_codes: Any, expert_scales: Any, expert_offsets: Any, routes: Any,
    unit: float, reach: float, margin: float, near: float, below: float,
    temperature: float, weight: float, spread: float, ridge: float, gating: float,
    dim: int, narrowed: int, visited: int, kept: int, top: int, out_dim: int, active: int, nibbles: bool,
    normalise: bool, count: int,
    vectors: Any, out: Any, /,
) -> None:  # fmt: skip
    """Write what a residual map makes of vectors, or of what its base left in out where base arrays are None; experts
    correct the base unless theirs are. Without a centre of its own the base has that of the residual. Raises
    ValueError where sizes do not agree."""

def add(
    rows: Any, scores: Any, values: Any, units: Any, out: Any,
    count: int, top: int, dim: int, temperature: float, weight: float, /,
) -> None:  # fmt: skip
    """Add the gated values of the rows found to out. Raises ValueError where sizes do not agree."""

def order(
    rows: Any, scores: Any, targets: Any, units: Any, out: Any,
    count: int, top: int, dim: int, spread: float, ridge: float, /,
) -> None:  # fmt: skip
    """Turn out by the rows found, so that they come in the order of their scores. Raises ValueError where sizes do not
    agree."""

def correct(
    codes: Any, scales: Any, offsets: Any, given: Any, scores: Any, out: Any,
    experts: int, source: int, dim: int, count: int, active: int, nibbles: bool, temperature: float, /,
) -> None:  # fmt: skip
    """Add to out what the best experts make of what is given. Raises ValueError where sizes do not agree."""

def instructions(name: str = ..., /) -> str:
    """The instructions in use, after taking those named. Raises ValueError where the processor lacks them."""
