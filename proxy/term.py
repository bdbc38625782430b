"""Until when a worker may act on what it knows of migrations, where replicas share them (migration/replicas.py).

The supervisor writes a time of the machine's monotonic clock into the run directory; where there is no such file, a
replica is alone and may act for ever.
"""

from __future__ import annotations

from pathlib import Path

from .telemetry import write_atomically

TERM = "term"


def write_term(run_dir: Path, until: float) -> None:
    """Let the workers act until then."""
    write_atomically(run_dir / TERM, repr(until).encode())


def read_term(run_dir: Path) -> float:
    """Until when the workers may act."""
    try:
        return float((run_dir / TERM).read_text())
    except FileNotFoundError:
        return float("inf")
