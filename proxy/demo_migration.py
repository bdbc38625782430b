"""The demo's second half: everything is re-encoded, verified and switched over while clients ask and write."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .admin_client import AdminClient
from .demo_ask import Answers
from .demo_database import HOST, Database, Ports
from .demo_models import NEW
from .demo_report import Row, make_row
from .demo_serving import COLLECTION, DemoFailed, add_migration, generation_of, wait_for_reload
from .demo_stage import Stage
from .demo_traffic import Pass, Stored, Traffic

TARGET = f"{COLLECTION}--{NEW}"
_WAIT_SECONDS = 240.0
_POLL_SECONDS = 0.2
_PACE_SECONDS = 25.0  # the re-encode takes at least so long, so that there is something to watch,
_PACE_MOST = 60.0  # but is not held below so many documents a second
_STEPS = (
    ("switch", 10, "a tenth of the queries is answered by the new index"),
    ("switch", 100, "all of them"),
    ("reverse", 0, "all of them by the old index again; it has every write"),
    ("switch", 100, "and over again"),
    ("complete", 100, "the new index stands alone, under the old name"),
)
_MARKS = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares at which quality is shown


@dataclass(frozen=True, slots=True)
class Moved:
    """What came of it: quality on the way, and what clients saw."""

    steps: tuple[Row, ...]
    queries: int
    writes: int
    failed: tuple[str, ...]
    lost: int  # acknowledged writes that the new index does not show
    copied: int
    verified: str


class Mover:
    """Says the verbs to the running Crossfade, as `crossfade migrate` does, and waits for what follows."""

    def __init__(self, stage: Stage, ports: Ports) -> None:
        self._stage = stage
        self._client = AdminClient(f"http://{HOST}:{ports.admin}")
        self.share = 0.0

    def status(self) -> Any:
        """How the migration stands."""
        one = self._client.get(COLLECTION)
        self.share = one["migrated"]
        if one["state"] == "FAILED":
            raise DemoFailed(f"the migration has failed: {one['error']}")
        return one

    def say(self, verb: str, told: str, until: Callable[[Any], bool], **body: Any) -> Any:
        """Say a verb and show a line when its outcome is there."""
        return self._stage.run(told, partial(self._say, verb, until, body))

    def _say(self, verb: str, until: Callable[[Any], bool], body: dict[str, Any]) -> Any:
        self._client.say(COLLECTION, verb, {"reason": "demo", **body})
        deadline = time.monotonic() + _WAIT_SECONDS
        while not until(one := self.status()):
            if time.monotonic() > deadline:
                raise DemoFailed(f"{verb} has not come to its end within {_WAIT_SECONDS:g} s: {one}")
            time.sleep(_POLL_SECONDS)
        return one

    def copy(self, traffic: Traffic) -> Any:
        """Start, and show a bar with what clients do meanwhile, until the target is in step."""
        columns = (TextColumn("  {task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
        told = TextColumn("[bright_black]{task.fields[told]}[/]")
        console, started = self._stage.console, time.perf_counter()
        self._client.say(COLLECTION, "start", {"reason": "demo"})
        with Progress(*columns, told, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("re-encoding", total=None, told="")
            while (one := self.status())["state"] != "SYNCED":
                if time.perf_counter() - started > _WAIT_SECONDS:
                    raise DemoFailed(f"the re-encode has not ended within {_WAIT_SECONDS:g} s: {one}")
                seen = f"{traffic.queries:,} queries, {traffic.writes:,} writes, {len(traffic.failed)} failed"
                progress.update(task, completed=one["copied"], total=one["total"] or None, told=seen)
                time.sleep(_POLL_SECONDS)
        line = f"[bold]migrate start[/]: {one['copied']:,} documents re-encoded with {NEW} while clients ask and write"
        self._stage.done(line, started)
        return one


def migrate(stage: Stage, folder: Path, database: Database, ports: Ports, stored: Stored) -> Moved:
    """Go through a whole migration. Raises DemoFailed, NotServing, Refused."""
    before = generation_of(ports)
    config = folder / "crossfade.yaml"
    seconds = min(_PACE_SECONDS, len(stored.packages) / _PACE_MOST)
    config.write_text(add_migration(config.read_text(), NEW, len(stored.packages) / seconds))
    stage.run(f"migrate: {{to: {NEW}}} added to {config}", partial(wait_for_reload, ports, before))
    mover = Mover(stage, ports)
    traffic = Traffic(lambda: mover.share)
    client, writer = database.connect(ports.front, database.transports[0]), database.writer(ports.front)
    assert writer is not None  # asked only of a database that the demo migrates
    with traffic.run(client, writer, stored):
        copied = mover.copy(traffic)
        _wait(lambda: traffic.passes and traffic.passes[-1].share == 1.0)
        climbing = _choose(traffic.passes)
        verified = _verify(mover)
        later = _switch(mover, traffic)
    return Moved(
        steps=(*climbing, *later),
        queries=traffic.queries,
        writes=traffic.writes,
        failed=tuple(traffic.failed),
        lost=_count_lost(database, ports, traffic),
        copied=copied["copied"],
        verified=verified,
    )


def _switch(mover: Mover, traffic: Traffic) -> list[Row]:
    """Over, back, over again, and the end; after each verb every query is asked once."""
    rows = []
    for verb, percent, told in _STEPS:
        body = {"percent": percent} if verb == "switch" else {}
        until = _is_completed if verb == "complete" else _reads(percent)
        said = f"{verb} {percent} %" if verb == "switch" else verb
        mover.say(verb, f"[bold]migrate {said}[/]: {told}", until, **body)
        _wait_for_passes(traffic, len(traffic.passes) + 2)  # the first of them began before
        rows.append(_judge(said, traffic.passes[-1].answers))
    return rows


def _verify(mover: Mover) -> str:
    told = "[bold]migrate verify[/]: every document of both compared, a sample encoded again"
    one = mover.say("verify", told, _is_verified)
    found = ", ".join(f"{count} {kind}" for kind, count in one["findings"].items())
    if found:
        raise DemoFailed(f"the verification found {found}")
    return f"{one['compared']:,} documents compared, nothing found"


def _is_verified(one: Any) -> bool:
    """Compared, and nothing stands against a switch any more; writes may still have to be brought over."""
    done = one["verified_at"] is not None and not one["verifying"]
    return done and bool(one["findings"] or not one["gates"])


def _is_completed(one: Any) -> bool:
    return bool(one["cleaned"])


def _reads(percent: float) -> Callable[[Any], bool]:
    return lambda one: one["percent"] == percent


def _wait_for_passes(traffic: Traffic, count: int) -> None:
    _wait(lambda: len(traffic.passes) >= count)


def _wait(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise DemoFailed(f"clients have not asked every query once within {_WAIT_SECONDS:g} s")
        time.sleep(_POLL_SECONDS)


def _count_lost(database: Database, ports: Ports, traffic: Traffic) -> int:
    """Documents whose last acknowledged write the new index, asked past Crossfade, does not show."""
    direct = database.writer(ports.direct)
    assert direct is not None  # as above
    seen = direct.editions(TARGET, list(traffic.editions))
    return sum(seen.get(at) != edition for at, edition in traffic.editions.items())


def _choose(passes: list[Pass]) -> list[Row]:
    """The passes nearest to the marks, each once, in the order of their shares."""
    nearest = {min(passes, key=lambda one: abs(one.share - mark)).share: mark for mark in _MARKS}
    firsts = {one.share: one.answers for one in reversed(passes)}
    return [_judge(f"{share:.0%} re-encoded", firsts[share]) for share in sorted(nearest)]


def _judge(name: str, answers: Answers) -> Row:
    return make_row(name, f"{NEW} -> both", answers)


def show_moved(console: Console, moved: Moved) -> None:
    """Print how quality climbed, and what clients saw."""
    from rich import box
    from rich.table import Table

    table = Table(
        title="the same queries, over and over, while it happened",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
    )
    for column in ("", "nDCG@10", "95 % interval", ""):
        table.add_column(column, justify="left" if column != "nDCG@10" else "right")
    for row in moved.steps:
        full = round(row.ndcg * 30)
        line = f"[green]{'━' * full}[/][bright_black]{'·' * (30 - full)}[/]"
        table.add_row(f"[bold]{row.name}[/]", f"[bold]{row.ndcg:.3f}[/]", f"{row.low:.3f} - {row.high:.3f}", line)
    console.print(table)
    failed = f"[red]{len(moved.failed)} failed: {moved.failed[0]}[/]" if moved.failed else "[green]0 failed[/]"
    lost = f"[red]{moved.lost} lost[/]" if moved.lost else "[green]0 lost[/]"
    told = f"  {moved.queries:,} queries and {moved.writes:,} writes meanwhile: {failed}; acknowledged writes: {lost}"
    console.print(told, highlight=False)
