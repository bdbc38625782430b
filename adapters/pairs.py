"""Validated pairs: the same documents embedded by two models, row by row.

What is done with input that is not clean:
- NaN, infinite and zero vectors, unequal counts, fewer than FEWEST pairs and wrong dimensions are refused, with rows
and figures; - pairs whose order does not agree are refused ("these pairs look shuffled"): the similarities among the
source rows must
  correlate with those among the target rows;
- exact duplicates (the same source and target row) are dropped and counted, since they would stand on both sides of a
split; - constant columns and fewer pairs than dimensions are accepted: every fit here is regularised towards a
rotation, which
  leaves directions that the pairs do not span alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Float32, PairsError
from .vectors import are_unit, as_rows, unit_rows

FEWEST = 20
LEAST_AGREEMENT = (
    0.3  # measured on 13 collections: real pairs .55 to .93, shuffled -.09 to .07, shifted by a row up to .29
)
_SAMPLE = 1000


@dataclass(frozen=True)
class Pairs:
    """The same documents in the source space (n, source_dim) and the target space (n, target_dim), float32.

    dropped counts exact duplicates left out; rows are the kept rows' places in the input; source_name says where the
    pairs came from; unit says whether the target vectors have length 1, so that maps into it must too.
    """

    source: Float32
    target: Float32
    rows: NDArray[np.int64]
    dropped: int = 0
    source_name: str = ""
    unit: bool = True

    def __len__(self) -> int:
        return len(self.source)

    def take(self, rows: NDArray[Any] | Sequence[int] | slice) -> Pairs:
        """The pairs of some rows."""
        return Pairs(self.source[rows], self.target[rows], self.rows[rows], 0, self.source_name, self.unit)

    def turned(self) -> Pairs:
        """The same pairs from the target space into the source space."""
        return Pairs(self.target, self.source, self.rows, self.dropped, self.source_name, are_unit(self.source))


def make_pairs(
    source: NDArray[Any],
    target: NDArray[Any],
    *,
    source_dim: int | None = None,
    target_dim: int | None = None,
    source_name: str = "",
    check_order: bool = True,
) -> Pairs:
    """Check and de-duplicate pairs source (n, source_dim), target (n, target_dim).

    Raises PairsError for everything that the module's docstring says is refused.
    """
    _check_shapes(source, target, source_dim, target_dim)
    first, second = as_rows(source), as_rows(target)
    for side, vectors in (("source", first), ("target", second)):
        check_finite(vectors, side)
    kept = _first_of_each(first, second)
    pairs = Pairs(first[kept], second[kept], kept, len(first) - len(kept), source_name, are_unit(second))
    if len(pairs) < FEWEST:
        raise PairsError(
            f"{len(pairs)} different pairs ({pairs.dropped} duplicates dropped): at least {FEWEST} are needed, "
            "and 1,000 or more are advised"
        )
    if check_order:
        _check_order(pairs)
    return pairs


def check_finite(vectors: Float32, side: str) -> None:
    """Refuse NaN, infinite and zero vectors (n, dim), naming the first rows. Raises PairsError."""
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        count = f"{bad.size} of {len(vectors)} {side} vectors"
        raise PairsError(f"{count} have NaN or infinite values (rows {_few(bad)}): embed them again")
    zero = np.flatnonzero(~vectors.any(axis=1))
    if zero.size:
        count = f"{zero.size} of {len(vectors)} {side} vectors"
        raise PairsError(f"{count} are zero (rows {_few(zero)}): was their text empty? leave them out")


def agreement(source: Float32, target: Float32, *, seed: int = 0) -> float:
    """Correlate similarities among source rows (n, dim) with those among target rows; about 0 when shuffled."""
    chosen = np.random.default_rng(seed).permutation(len(source))[:_SAMPLE]
    profiles = [_similarities(vectors[chosen]) for vectors in (source, target)]
    return float(np.corrcoef(profiles[0], profiles[1])[0, 1])


def read_pairs(
    path: str | Path,
    target_path: str | Path | None = None,
    *,
    source_key: str = "source",
    target_key: str = "target",
    source_dim: int | None = None,
    target_dim: int | None = None,
) -> Pairs:
    """Read pairs from two .npy files, or from one .npz or .parquet file with the arrays or columns `source_key` and
    `target_key`.

    Raises PairsError for a file that is missing, of another kind, or without these names.
    """
    place = Path(path)
    for file in (place, Path(target_path) if target_path is not None else place):
        if not file.is_file():
            raise PairsError(f"{file} is missing: pairs are read from two .npy files, or one .npz or .parquet file")
    if place.suffix == ".npy":
        if target_path is None:
            raise PairsError(f"{place} holds one side: give the file of the other model's vectors too")
        source, target = load_vectors(place), load_vectors(Path(target_path))
    else:
        source, target = _read_columns(place, (source_key, target_key))
    name = str(place) if target_path is None else f"{place}, {target_path}"
    return make_pairs(source, target, source_dim=source_dim, target_dim=target_dim, source_name=name)


def load_vectors(path: Path) -> NDArray[Any]:
    """Read one .npy array without running code from it. Raises PairsError."""
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise PairsError(f"{path} is not a .npy array of numbers: {error}") from error
    return array


def _read_columns(path: Path, keys: tuple[str, str]) -> tuple[NDArray[Any], NDArray[Any]]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            names = list(stored)
            _check_names(path, keys, names)
            return stored[keys[0]], stored[keys[1]]
    if path.suffix == ".parquet":
        return _read_parquet(path, keys)
    raise PairsError(f"{path} has the ending {path.suffix!r}: pairs are read from .npy, .npz and .parquet")


def _read_parquet(path: Path, keys: tuple[str, str]) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise PairsError(f"{path} needs pyarrow: install crossfade[parquet]") from error
    file = parquet.ParquetFile(path)
    _check_names(path, keys, file.schema_arrow.names)
    columns = file.read(columns=list(keys))
    stacked = [_stack(path, key, columns[key]) for key in keys]
    return stacked[0], stacked[1]


def _stack(path: Path, key: str, column: Any) -> Float32:
    """Turn a list column into (n, dim); rows of unequal length are an error."""
    chunk = column.combine_chunks()
    rows, flat = len(chunk), chunk.flatten().to_numpy(zero_copy_only=False)
    lengths = {len(row) for row in (chunk[0], chunk[-1])} if rows else set()
    if column.null_count or len(lengths) != 1 or flat.size != rows * next(iter(lengths)):
        raise PairsError(
            f"{path}, column {key}: vectors missing or of unequal length ({flat.size} numbers in {rows} rows)"
        )
    stacked: Float32 = flat.reshape(rows, -1).astype(np.float32)
    return stacked


def _check_names(path: Path, keys: tuple[str, str], names: list[str]) -> None:
    missing = [key for key in keys if key not in names]
    if missing:
        raise PairsError(f"{path} has no {' and no '.join(missing)}: it has {', '.join(names) or 'nothing'}")


def _check_shapes(source: NDArray[Any], target: NDArray[Any], source_dim: int | None, target_dim: int | None) -> None:
    if source.ndim != 2 or target.ndim != 2:
        raise PairsError(f"source has shape {source.shape}, target {target.shape}: expected (n, dim) each")
    if len(source) != len(target):
        raise PairsError(
            f"{len(source)} source and {len(target)} target vectors: pairs need one of each for every document"
        )
    found, wanted = (source.shape[1], target.shape[1]), (source_dim or source.shape[1], target_dim or target.shape[1])
    if found != wanted:
        swapped = "; they look swapped: give the new model's vectors first" if found == wanted[::-1] else ""
        raise PairsError(
            f"pairs have {found[0]} -> {found[1]} dimensions, the models {wanted[0]} -> {wanted[1]}{swapped}"
        )


def _first_of_each(source: Float32, target: Float32) -> NDArray[np.int64]:
    """Rows of the first of each different pair, in order, by the bytes of both vectors."""
    seen: dict[tuple[bytes, bytes], int] = {}
    for row in range(len(source)):
        seen.setdefault((source[row].tobytes(), target[row].tobytes()), row)
    return np.fromiter(seen.values(), np.int64, len(seen))


def _check_order(pairs: Pairs) -> None:
    found = agreement(pairs.source, pairs.target)
    if not found >= LEAST_AGREEMENT:  # also when it is NaN: all rows of one side alike
        raise PairsError(
            f"these pairs look shuffled: similarities among {min(len(pairs), _SAMPLE)} source rows and the same target "
            f"rows correlate by {found:.2f}, real pairs by {LEAST_AGREEMENT} or more; "
            "row i of both sides must be the same document"
        )


def _similarities(vectors: Float32) -> Float32:
    """Upper triangle of the cosines among rows, after centring."""
    unit = unit_rows(vectors - vectors.mean(axis=0))
    upper: Float32 = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    return upper


def _few(rows: NDArray[Any], most: int = 5) -> str:
    shown = ", ".join(str(row) for row in rows[:most].tolist())
    return shown + (", ..." if len(rows) > most else "")
