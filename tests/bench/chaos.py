"""kill -9 of the migration's controller, many times: `python -m tests.bench.chaos --points 200 --out build/chaos.json`.

Each run is one migration of a fresh collection under writers on hot keys (all nine kinds of writes of Qdrant); its
controller is killed ten times, at moments drawn from the seed, and the content is compared at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from crossfade.backends.embedded.qdrant.server import QdrantServer
from tests.proxy.migration.chaos_runs import Outcome, run_chaos

_KILLS = 10  # in one run


async def run(points: int, seed: int) -> list[Outcome]:
    """As many runs as it takes for so many kills."""
    outcomes = []
    with tempfile.TemporaryDirectory() as data, QdrantServer(Path(data)) as server:
        for number in range(-(-points // _KILLS)):
            kills = min(_KILLS, points - number * _KILLS)
            with tempfile.TemporaryDirectory() as folder:
                outcome = await run_chaos(
                    server.grpc_port, server.rest_port, Path(folder), kills=kills, seed=seed + number, writers=16
                )
            outcomes.append(outcome)
            print(f"run {number}: {outcome}", file=sys.stderr, flush=True)  # noqa: T201  # a bench's progress
    return outcomes


def sum_up(outcomes: list[Outcome]) -> dict[str, Any]:
    """The figures of all runs; a run's kills count as equal when its content was."""
    return {
        "kind": "controller",
        "points": sum(one.kills.total() for one in outcomes),
        "equal": sum(one.kills.total() for one in outcomes if one.differences.none),
        "lost": sum(len(one.differences.lost) for one in outcomes),
        "resurrected": sum(len(one.differences.resurrected) for one in outcomes),
        "stale": sum(len(one.differences.stale) for one in outcomes),
        "failed_requests": sum(one.failed_writes for one in outcomes),
        "writes": sum(one.writes for one in outcomes),
        "states": dict(sum((one.kills for one in outcomes), Counter())),
    }


def main() -> int:
    """Run, write the figures, and fail when any content differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20, help="how many kills")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/chaos.json"))
    asked = parser.parse_args()
    figures = sum_up(asyncio.run(run(asked.points, asked.seed)))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))  # noqa: T201  # a bench's result
    return 0 if figures["equal"] == figures["points"] and not figures["failed_requests"] else 1


if __name__ == "__main__":
    sys.exit(main())
