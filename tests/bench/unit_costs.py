"""Unit costs of the controller's bookkeeping, for docs/scale.md: `python -m tests.bench.unit_costs --points 100000`.

Bytes that a point costs in the store, and the processor time of noting it; the same of a mark in the journal; what
the list of open pages weighs in the record.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.proxy.migration.journal import Journal
from crossfade.proxy.migration.ledger import Ledger, sign_vector
from crossfade.proxy.migration.pace import LARGEST
from crossfade.proxy.migration.store import Store


async def note(folder: Path, points: int) -> dict[str, Any]:
    """Signatures of so many points, page by page."""
    store = Store(f"sqlite:///{folder / 'store.db'}")
    lease = await store.acquire("bench", "me", 3600)
    assert lease is not None
    rows = np.random.default_rng(0).normal(size=(LARGEST, 384)).astype(np.float32)
    signed = [sign_vector(row) for row in rows]
    began, processor = time.perf_counter(), time.process_time()
    for first in range(0, points, LARGEST):
        page: dict[int | str, bytes] = dict(zip(range(first, first + LARGEST), signed, strict=True))
        await Ledger(store).note_moved("m", signed=page, unsigned=[], dead={}, healed=list(page), lease=lease)
    spent, taken = time.process_time() - processor, time.perf_counter() - began
    store.shut()
    return {
        "store_bytes_a_point": round((folder / "store.db").stat().st_size / points, 1),
        "store_processor_us_a_point": round(spent / points * 1e6, 1),
        "store_us_a_point": round(taken / points * 1e6, 1),
    }


async def mark(folder: Path, marks: int) -> dict[str, Any]:
    """So many writes of one point each, 64 under way at a time, and their clearing."""
    journal = Journal(f"sqlite:///{folder / 'journal.db'}")
    began, processor = time.perf_counter(), time.process_time()
    for first in range(0, marks, 64):
        made = await asyncio.gather(*(journal.mark("m", [at], "w") for at in range(first, first + 64)))
        await asyncio.gather(*(journal.close(one) for one in made))
    spent, taken = time.process_time() - processor, time.perf_counter() - began
    size = (folder / "journal.db").stat().st_size / marks
    began = time.perf_counter()
    while seen := await journal.dirty("m", 512):
        await journal.clear("m", seen)
    cleared = time.perf_counter() - began
    journal.shut()
    return {
        "journal_bytes_a_mark": round(size, 1),
        "journal_processor_us_a_mark": round(spent / marks * 1e6, 1),
        "journal_us_a_mark": round(taken / marks * 1e6, 1),
        "journal_us_a_mark_cleared": round(cleared / marks * 1e6, 1),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--marks", type=int, default=10_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(note(Path(folder), asked.points)) | asyncio.run(mark(Path(folder), asked.marks))
    print(json.dumps(figures, indent=2))  # noqa: T201 # a bench's result
    return 0


if __name__ == "__main__":
    sys.exit(main())
