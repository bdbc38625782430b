"""Chaos through real processes: `python -m tests.bench.chaos --points 200 --operations 1000000 --out build/chaos.json`.

kills        kill -9 of workers, supervisor (with the controller) and upstream at moments drawn from the seed, under 16
             writers of every kind, by ids and by filter, over gRPC and REST; all content compared at each run's end
history      a migration to its end without faults, under clients whose histories are checked point by point
faults       the same with five in a hundred calls of the upstream failing, half of them after they were carried out
constant     a load of reads and writes over start, verify, every step of the switch, reverse, reload and complete
controller   the controller alone, on an embedded upstream, with writers that play the proxy's part

`make chaos` runs them all in a short form; ARGS names the length.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from crossfade.backends.embedded.qdrant.server import QdrantServer
from tests.chaos.runs import Killed, Watched, run_constant, run_history, run_kills
from tests.proxy.migration.chaos_runs import Outcome, run_chaos

_KILLS: Final = 25  # in one run
KINDS: Final = ("kills", "history", "faults", "constant", "controller")
_FAULTS: Final = 0.05


def tell(line: str) -> None:
    """Progress, to the standard error."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)  # noqa: T201  # a bench's progress


def kill(points: int, seed: int, keep: Path | None) -> dict[str, Any]:
    """As many runs as it takes for so many kills; a run's kills count as equal when its content was."""
    runs: list[Killed] = []
    for number in range(-(-points // _KILLS)):
        folder = Path(tempfile.mkdtemp(prefix="crossfade-chaos-"))
        kills = min(_KILLS, points - number * _KILLS)
        try:
            one = asyncio.run(run_kills(folder, kills, seed + number, tell))
        except BaseException:
            tell(f"run {number} failed; its files are in {folder}")
            raise
        assert one.compared is not None
        tell(f"run {number}: {one.compared} {one.points}")
        if one.compared.equal:
            shutil.rmtree(folder)
        else:
            tell(f"run {number} differs; its files are in {folder}")
        runs.append(one)
        if keep is not None:
            _save(keep, {"kills": _sum_kills(runs)})
    return _sum_kills(runs)


def _sum_kills(runs: list[Killed]) -> dict[str, Any]:
    compared = [(one, one.compared) for one in runs if one.compared is not None]
    return {
        "kind": "kills",
        "points": sum(one.points.total() for one in runs),
        "equal": sum(one.points.total() for one, found in compared if found.equal),
        "lost": sum(len(found.lost) for _, found in compared),
        "resurrected": sum(len(found.resurrected) for _, found in compared),
        "stale": sum(len(found.stale) for _, found in compared),
        "requests": sum(one.told.requests for one in runs),
        "failed_requests": sum(len(one.told.failures) for one in runs),
        "at": dict(sorted(sum((one.points for one in runs), Counter()).items())),
        "ended": dict(Counter(one.after for one in runs)),
    }


def watch(kind: str, operations: int, seed: int) -> dict[str, Any]:
    """One history."""
    folder = Path(tempfile.mkdtemp(prefix="crossfade-chaos-"))
    one: Watched = asyncio.run(run_history(folder, operations, seed, tell, faults=_FAULTS if kind == "faults" else 0.0))
    violations = {name: len(keys) for name, keys in one.violations.items()}
    if one.compared.equal and not any(violations.values()):
        shutil.rmtree(folder)
    else:
        tell(f"{one.compared} {one.violations}; the files are in {folder}")
    return {
        "kind": kind,
        "operations": one.checked,
        "equal": one.compared.equal,
        "lost": len(one.compared.lost),
        "resurrected": len(one.compared.resurrected),
        "stale": len(one.compared.stale),
        "violations": violations,
        "requests": one.told.requests,
        "failed_requests": len(one.told.failures),
        "reasons": dict(Counter(reason[:400] for reason in one.told.failures).most_common(3)),
        "seconds": round(one.seconds, 1),
    }


def constant(seed: int) -> dict[str, Any]:
    """The load that must not fail."""
    folder = Path(tempfile.mkdtemp(prefix="crossfade-chaos-"))
    figures = asyncio.run(run_constant(folder, seed, tell))
    if not figures["failed_requests"]:
        shutil.rmtree(folder)
    return {"kind": "constant", **figures}


def controller(points: int, seed: int) -> dict[str, Any]:
    """Kills of the controller alone."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as data, QdrantServer(Path(data)) as server:
        for number in range(-(-points // _KILLS)):
            kills = min(_KILLS, points - number * _KILLS)
            with tempfile.TemporaryDirectory() as folder:
                run = run_chaos(
                    server.grpc_port, server.rest_port, Path(folder), kills=kills, seed=seed + number, writers=16
                )
                outcomes.append(asyncio.run(run))
            tell(f"run {number}: {outcomes[-1]}")
    return {
        "kind": "controller",
        "points": sum(one.kills.total() for one in outcomes),
        "equal": sum(one.kills.total() for one in outcomes if one.differences.none),
        "lost": sum(len(one.differences.lost) for one in outcomes),
        "resurrected": sum(len(one.differences.resurrected) for one in outcomes),
        "stale": sum(len(one.differences.stale) for one in outcomes),
        "failed_requests": sum(one.failed_writes for one in outcomes),
        "requests": sum(one.writes for one in outcomes),
        "at": dict(sum((one.kills for one in outcomes), Counter())),
    }


def is_sound(kind: str, figures: dict[str, Any]) -> bool:
    """Whether nothing was lost; where nothing is broken on purpose, no request may fail either."""
    sound = not (figures.get("lost") or figures.get("resurrected") or figures.get("stale"))
    if kind in ("kills", "controller"):
        sound = sound and figures["equal"] == figures["points"]
    if kind in ("history", "faults"):
        sound = sound and figures["equal"] and not any(figures["violations"].values())
    if kind in ("history", "constant", "controller"):
        sound = sound and not figures["failed_requests"]
    return bool(sound)


def _save(path: Path, figures: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | figures, indent=2) + "\n")


def main() -> int:
    """Run, write the figures after each kind, and fail when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--points", type=int, default=10, help="how many kills")
    parser.add_argument("--operations", type=int, default=50_000, help="of the history without faults")
    parser.add_argument("--faulty-operations", type=int, default=20_000, help="of the history with faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/chaos.json"))
    asked = parser.parse_args()
    sound = True
    for kind in asked.kinds:
        tell(f"--- {kind}")
        match kind:
            case "kills":
                figures = kill(asked.points, asked.seed, asked.out)
            case "history":
                figures = watch(kind, asked.operations, asked.seed)
            case "faults":
                figures = watch(kind, asked.faulty_operations, asked.seed)
            case "constant":
                figures = constant(asked.seed)
            case _:
                figures = controller(asked.points, asked.seed)
        _save(asked.out, {kind: figures})
        print(json.dumps(figures, indent=2), flush=True)  # noqa: T201  # a bench's result
        sound = sound and is_sound(kind, figures)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
