"""How fast adapters apply, beside what the machine can do at best: a table and build/bench-adapters.json.

Run as `python -m tests.bench.bench_adapters [--quick]`, best with OPENBLAS_NUM_THREADS=1: figures are for one core.
Maps are as they are served. For each family, dimensions and batch size the median of several rounds, of the median call
in each, gives microseconds of CPU a query: what others do meanwhile does not count, but their use of the caches does.
Calls take other queries in turn, so that no processor can learn their way. The limit is the larger of two times:
reading once what a batch needs at the measured read bandwidth (of an array as large, so caches count alike), and its
multiply-adds at the measured rate of a large product, those of bytes at four times it. Vectors lie around some hundred
centres, in directions that fade, as embeddings do; what they mean does not matter.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.table import Table

from crossfade.adapters.base import Adapter, Card, Float32, Map, PairsCard
from crossfade.adapters.candidates import NEIGHBOURS, SHARPNESS
from crossfade.adapters.linear import LinearMap, fit_linear, fit_procrustes
from crossfade.adapters.local import LocalMap, fit_local
from crossfade.adapters.lowrank import LowRankMap, fit_low_rank
from crossfade.adapters.packing import MOST
from crossfade.adapters.residual import ResidualMap, fit_residual
from crossfade.adapters.rounded import RoundedLinear
from crossfade.adapters.select import served
from crossfade.adapters.store import TENSORS, save_adapter
from crossfade.adapters.vectors import unit_rows

BATCHES = (1, 8, 64)
ROUNDS = 9
ACTIVE = 4  # experts that a query asks, as `auto` fits them
ASKED = {(384, 1): 60.0, (384, 64): 15.0}  # microseconds a query at 384 dimensions, by batch
ASKED_TIMES = 3.0  # of the limit, at 1536 -> 1536 in batches of 64
OUT = Path(__file__).parents[2] / "build" / "bench-adapters.json"


@dataclass(frozen=True)
class Line:
    """One measured case; times are microseconds a query, on however many threads BLAS was given."""

    family: str
    source_dim: int
    target_dim: int
    pairs: int
    batch: int
    us: float
    limit_us: float
    times_limit: float
    fit_seconds: float
    bytes_on_disk: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="384 dimensions and 2,000 pairs only")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    cases = (
        [(384, 384, 2_000)]
        if arguments.quick
        else [(384, 384, 2_000), (384, 384, 8_000), (384, 384, 20_000), (768, 384, 4_000), (1536, 1536, 4_000)]
    )
    rate = arithmetic_rate()
    lines = [line for case in cases for line in measure_case(*case, rate)]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps([asdict(line) for line in lines], indent=1))
    show(lines, rate)


def measure_case(source_dim: int, target_dim: int, pairs: int, rate: float) -> list[Line]:
    """Every family at one size."""
    rng = np.random.default_rng(0)
    middles, fade = rng.normal(size=(150, source_dim)), np.linspace(1.0, 0.2, source_dim)
    drawn = unit_rows((middles[rng.integers(0, 150, pairs + 640)] + rng.normal(size=(pairs + 640, source_dim))) * fade)
    source, queries = drawn[:pairs], drawn[pairs:]
    target = unit_rows(source @ rng.normal(size=(source_dim, target_dim)) + 0.2 * rng.normal(size=(pairs, target_dim)))
    base = fit_linear(source, target)
    clusters = 12 if pairs < 4_000 else 32

    def fit_experts(count: int) -> LocalMap:
        return fit_local(base, source, target, clusters=count, temperature=0.2, active=ACTIVE)

    def correct(map_: Map) -> Map:
        fitted = fit_residual(map_, source, target, neighbours=NEIGHBOURS, temperature=SHARPNESS)
        return fitted.ordered(source, target)

    families: dict[str, Callable[[], Map]] = {
        "procrustes": lambda: fit_procrustes(source, target),
        "linear": lambda: fit_linear(source, target),
        "lowrank 64": lambda: fit_low_rank(source, target, rank=64),
        f"local {clusters}, {ACTIVE} active": lambda: fit_experts(clusters),
        "residual": lambda: correct(base),
        "local+residual": lambda: correct(fit_experts(clusters)),
    }
    lines = []
    for family, fit in families.items():
        start = time.perf_counter()
        fitted = served(fit())
        seconds = time.perf_counter() - start
        size = bytes_on_disk(fitted)
        for batch in BATCHES:
            taken = microseconds(fitted.apply, [queries[at : at + batch] for at in range(0, 640, batch)]) / batch
            limit = limit_microseconds(fitted, batch, rate, queries) / batch
            lines.append(Line(family, source_dim, target_dim, pairs, batch, taken, limit, taken / limit, seconds, size))
    return lines


def microseconds(call: Callable[[Float32], object], given: list[Float32], *, seconds: float = 0.5) -> float:
    """Microseconds of CPU a call: the median of rounds' medians; calls take what is given in turn."""
    medians = []
    at = 0
    for _ in range(ROUNDS):
        taken: list[float] = []
        start = time.process_time()
        while time.process_time() - start < seconds / ROUNDS or len(taken) < 5:
            one = time.process_time()
            call(given[at % len(given)])
            taken.append(time.process_time() - one)
            at += 1
        medians.append(median(taken))
    return median(medians) * 1e6


def limit_microseconds(fitted: Map, batch: int, rate: float, queries: Float32) -> float:
    """The least time for a batch: weights read once, or multiply-adds done, whichever takes longer."""
    weights, products = work(fitted, batch, queries)
    block = np.ones(max(weights, 64_000) // 4, np.float32)
    reading = microseconds(lambda given: given.max(), [block], seconds=0.1) * weights / block.nbytes
    return max(reading, batch * products / rate * 1e6)


def work(fitted: Map | RoundedLinear, batch: int, queries: Float32) -> tuple[int, int]:
    """Bytes that a batch must read, and multiply-adds that a query must do, those of bytes as a quarter; as many as
    queries (n, source_dim) need on average."""
    if isinstance(fitted, LinearMap):
        return fitted.weight.nbytes, fitted.weight.size
    if isinstance(fitted, RoundedLinear):
        return fitted.expert.codes.size, fitted.expert.codes.size // 4
    if isinstance(fitted, LowRankMap):
        return fitted.down.nbytes + fitted.up.nbytes, fitted.down.size + fitted.up.size
    if isinstance(fitted, LocalMap):
        read, products = work(fitted._rounded or fitted.base, batch, queries)
        assert fitted.coded is not None
        expert = fitted.coded.codes[0].size  # weights of half a byte
        active = min(fitted.active * batch, len(fitted.routes))  # that a batch needs, at least
        return (
            read + fitted.routes.nbytes + active * expert // 2,
            products + fitted.routes.size + fitted.active * expert // 4,
        )
    assert isinstance(fitted, ResidualMap)
    read, products = work(fitted._rounded or fitted.base, batch, queries)
    near = fitted.neighbours * fitted.target_dim
    if fitted.index is None:
        return read + fitted.keys.nbytes + 4 * near, products + fitted.keys.size + near
    index = fitted.index
    narrow = index.centroids.shape[1]
    whole = queries - fitted.centre
    whole = np.rint(whole * (MOST / np.abs(whole).max(axis=1, keepdims=True))).astype(np.float32)
    _, reached, seen = index.candidates(whole, fitted.neighbours)
    scanned = round(seen.sum(axis=1).mean()) * narrow  # numbers
    scored = round(np.isfinite(reached).sum(axis=1).mean()) * fitted.source_dim
    turning = 0 if fitted.ordering is None else near  # rows to read, and their products with each other
    around = index.basis.size + index.centroids.size + near  # a byte each
    paired = turning * (fitted.neighbours + 1) // 2
    # A scanned number is a quarter of a byte, and two are looked up as fast as one byte is multiplied.
    read += around + turning + scanned // 4 + scored
    return read, products + (around + turning + paired + scanned // 2 + scored) // 4


def arithmetic_rate(size: int = 384) -> float:
    """Multiply-adds a second of a large float32 product."""
    block = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    return size**3 / (microseconds(lambda given: given @ given, [block]) / 1e6)


def bytes_on_disk(fitted: Map) -> int:
    """Size of the tensors of an adapter whose three maps are this one, as a stand-in for the reverse of equal size."""
    card = Card("new", "old", fitted.source_dim, fitted.target_dim, fitted.kind, PairsCard(0))
    turned = LinearMap(
        np.zeros((fitted.target_dim, fitted.source_dim), np.float32), np.zeros(fitted.source_dim, np.float32)
    )
    with TemporaryDirectory() as folder:
        save_adapter(Adapter(card, fitted, fitted, turned), Path(folder) / "a")
        return (Path(folder) / "a" / TENSORS).stat().st_size


def asked(line: Line) -> str:
    """What was asked of a line, and whether it is reached; nothing was asked of most."""
    wanted = ASKED.get((line.source_dim, line.batch))
    if wanted is not None and line.source_dim == line.target_dim:
        return f"<= {wanted:.0f}: {'yes' if line.us <= wanted else 'NO'}"
    if (line.source_dim, line.target_dim, line.batch) == (1536, 1536, 64):
        return f"<= {ASKED_TIMES:.0f}x: {'yes' if line.times_limit <= ASKED_TIMES else 'NO'}"
    return ""


def show(lines: list[Line], rate: float) -> None:
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "all")
    table = Table(title=f"microseconds of CPU a query ({threads} BLAS threads; {rate / 1e9:.0f} G multiply-adds/s)")
    for column in ("family", "dims", "pairs", "batch", "us", "limit", "x limit", "asked", "fit s", "MB"):
        table.add_column(column, justify="left" if column == "family" else "right", no_wrap=True)
    for line in lines:
        dims = f"{line.source_dim}->{line.target_dim}"
        figures = (f"{line.us:.1f}", f"{line.limit_us:.1f}", f"{line.times_limit:.1f}", asked(line))
        table.add_row(
            line.family,
            dims,
            f"{line.pairs:,}",
            str(line.batch),
            *figures,
            f"{line.fit_seconds:.2f}",
            f"{line.bytes_on_disk / 1e6:.1f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
