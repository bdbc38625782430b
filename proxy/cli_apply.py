"""`crossfade apply`: an adapter used on a file of vectors."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from crossfade.adapters.base import Map

_BLOCK = 65_536  # rows mapped at once, so that a file larger than memory can be mapped


class Direction(enum.StrEnum):
    """Which of an adapter's maps is applied."""

    QUERY = "query"
    DOCUMENT = "document"
    REVERSE = "reverse"


def apply(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Adapter directory.", show_default=False)],
    source: Annotated[Path, typer.Argument(metavar="IN.npy", help="Vectors (n, dim).", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="OUT.npy", help="Where the mapped ones go.", show_default=False)],
    direction: Annotated[
        Direction, typer.Option(help="query or document: new model -> index; reverse: index -> new model.")
    ] = Direction.QUERY,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Map a file of vectors with an adapter.

    Block by block, so that the file may be larger than memory; what comes out is float32.
    """
    from crossfade.adapters.store import load_adapter

    from .cli_output import print_json

    loaded = load_adapter(adapter)
    fitted: Map = getattr(loaded, direction.value)
    count = _map_file(fitted, source, target)
    models = (loaded.card.source_model, loaded.card.target_model)
    origin, goal = reversed(models) if direction is Direction.REVERSE else models
    told: dict[str, Any] = {
        "adapter": adapter,
        "direction": direction.value,
        "rows": count,
        "from": {"model": origin, "dim": fitted.source_dim},
        "to": {"model": goal, "dim": fitted.target_dim},
        "out": target,
    }
    if as_json:
        print_json(told)
    else:
        typer.echo(
            f"{target}: {count:,} vectors, {origin} ({fitted.source_dim}) -> {goal} ({fitted.target_dim}), "
            f"{direction.value} map of {adapter}"
        )


def _map_file(fitted: Map, source: Path, target: Path) -> int:
    """Map block by block into a file beside the target, which then takes its name: a reader never sees half of it."""
    import numpy as np

    vectors = _open_vectors(source, fitted.source_dim)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        mapped = np.lib.format.open_memmap(fresh, "w+", dtype=np.float32, shape=(len(vectors), fitted.target_dim))
        for first in range(0, len(vectors), _BLOCK):
            block = np.ascontiguousarray(vectors[first : first + _BLOCK], dtype=np.float32)
            if not np.isfinite(block).all():
                row = first + int(np.argmin(np.isfinite(block).all(axis=1)))
                raise _unusable(f"{source}: row {row} has NaN or infinity; embed it again")
            mapped[first : first + len(block)] = fitted.apply(block)
        mapped.flush()
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    return len(vectors)


def _open_vectors(path: Path, dim: int) -> Any:
    import numpy as np

    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise _unusable(f"{path} is not a .npy array of numbers: {error}") from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        shape = getattr(vectors, "shape", "no")
        raise _unusable(f"{path} has shape {shape}; expected numbers with two axes (n, dim)")
    if vectors.shape[1] != dim:
        raise _unusable(
            f"{path} has vectors of {vectors.shape[1]} dimensions, but the map takes {dim}; were they made by the "
            "model it maps from, and is the direction right?"
        )
    return vectors


def _unusable(message: str) -> Exception:
    from .cli_output import UsageProblem

    return UsageProblem(message)
