"""`crossfade demo`: an upgrade of an embedding model in front of you, on real text, with two real models.

An old index is built with the old model in an embedded Qdrant or Milvus; an adapter is fitted from the documents that
the new model has encoded so far; Crossfade is put in front, the flag in its configuration is flipped, and the same
unmodified client asks with the new model's vectors. Then everything is re-encoded while clients ask and write,
verified, switched over and back, and completed. Every figure is measured while it runs.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from rich.console import Console
from rich.markup import escape

from .demo_ask import Latency
from .demo_database import HOST, Database, Kind, Ports, open_database
from .demo_migration import Moved, migrate, show_moved
from .demo_models import NEW, OLD
from .demo_report import choose_examples, count_changes, show_examples, show_latency, show_rows, to_json
from .demo_serving import COLLECTION, choose_ports, start_crossfade, start_database, write_config
from .demo_stage import Stage
from .demo_steps import SHARES, Found, Vectors, build, compare, embed, fit, take_times
from .demo_text import Package, read_machine, read_sample
from .demo_traffic import Stored

_WIDTH = 112  # of the picture, and where the output is no terminal


@dataclass(frozen=True, slots=True)
class Settings:
    """What the demo is asked to do; port 0 takes free ones."""

    folder: Path
    backend: Kind = "qdrant"
    documents: int = 1500
    queries: int = 300
    port: int = 0
    from_machine: bool = False
    keep: bool = False
    picture: Path | None = None
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)


def run_demo(settings: Settings) -> None:
    """Run the whole demo; raises CrossfadeError when a step cannot be done."""
    started = time.perf_counter()
    database = open_database(settings.backend)
    ports = choose_ports(settings.port, one_port=database.one_port)
    packages = read_machine(settings.documents) if settings.from_machine else read_sample(settings.documents)
    folder = _prepare(settings)
    console = _open_console(settings)
    stage = Stage(console)
    console.print(_headline(packages, database, settings), highlight=False)
    vectors = embed(stage, packages, settings.queries, settings.threads)
    with ExitStack() as running:
        running.enter_context(start_database(folder, database, ports))
        build(stage, database, ports, packages, vectors)
        adapter = fit(stage, folder, vectors, SHARES[0])
        write_config(folder / "crossfade.yaml", database, ports)
        stage.run("Crossfade starts in front of it", lambda: running.enter_context(start_crossfade(folder, ports)))
        found = compare(stage, folder, database, ports, vectors, adapter)
        latency = take_times(stage, database, ports, vectors, found.adapter)
        _report(console, packages, found, latency)
        moved = None
        if database.writer(ports.front) is not None:
            console.print("\n[bold]Now everything is re-encoded, while clients go on[/]\n", highlight=False)
            stored = Stored(COLLECTION, packages, vectors.new_documents, vectors.new_queries)
            moved = migrate(stage, folder, database, ports, stored)
            console.print()
            show_moved(console, moved)
        _write(folder / "demo.json", database, packages, found, latency, moved)
        seconds = time.perf_counter() - started
        console.print(f"[bright_black]{seconds:.0f} s in all; {folder / 'demo.json'}[/]", highlight=False)
        if settings.picture is not None:
            console.save_svg(str(settings.picture), title="crossfade demo")
        if settings.keep:
            _keep(console, folder, database, ports, vectors)


def _open_console(settings: Settings) -> Console:
    console = Console(record=settings.picture is not None)
    if settings.picture is not None or not console.is_terminal:
        console.width = _WIDTH
    return console


def _prepare(settings: Settings) -> Path:
    """The demo's own folder, emptied of what an earlier run left."""
    folder = settings.folder
    folder.mkdir(parents=True, exist_ok=True)
    for left in (settings.backend, "adapter", ".crossfade"):
        shutil.rmtree(folder / left, ignore_errors=True)
    return folder


def _headline(packages: list[Package], database: Database, settings: Settings) -> str:
    count = min(settings.queries, len(packages))
    return (
        f"\n[bold]{len(packages):,} descriptions of Debian packages, asked {count:,} of their own synopses[/]\n"
        f"index in {database.title} made with {OLD} (Universal Sentence Encoder, 512 dimensions)\n"
        f"moving to {NEW} (all-MiniLM-L6-v2, 384 dimensions)\n"
    )


def _report(console: Console, packages: list[Package], found: Found, latency: dict[str, Latency]) -> None:
    better, same, worse = count_changes(found.old, found.new)
    console.print()
    show_rows(console, found.rows, f"{len(found.old.rankings)} queries; the right answer is the synopsis' own package")
    refusal = next((row for row in found.rows if row.refused), None)
    if refusal is not None:
        told = f"  [red]naive: {refusal.refused} refused[/] by the database: {escape(refusal.note)}\n"
        console.print(told, highlight=False)
    examples = choose_examples(packages, found.old, found.new, gains=2, losses=1)
    show_examples(
        console,
        examples,
        f"{better} queries got better, {same} stayed the same, {worse} got worse; two of the first, one of the last",
    )
    show_latency(console, latency, "one query at a time on this machine, each way in turn")
    console.print(f"  answers say what was done: [bold]x-crossfade: {escape(found.mark)}[/]", highlight=False)
    for transport, equal in found.equal.items():
        told = f"  over {transport} {equal} of {len(found.new.rankings)} answers equal those over gRPC"
        console.print(told, highlight=False)


def _write(
    path: Path,
    database: Database,
    packages: list[Package],
    found: Found,
    latency: dict[str, Latency],
    moved: Moved | None,
) -> None:
    stated = to_json(
        backend=database.kind,
        documents=len(packages),
        queries=len(found.old.rankings),
        models={"old": OLD, "new": NEW},
        rows=found.rows,
        changes=dict(zip(("better", "same", "worse"), count_changes(found.old, found.new), strict=True)),
        latency_ms=latency,
        equal=found.equal,
        mark=found.mark,
        migration=moved,
    )
    path.write_bytes(orjson.dumps(stated, option=orjson.OPT_INDENT_2))


def _keep(console: Console, folder: Path, database: Database, ports: Ports, vectors: Vectors) -> None:
    """Leave everything running until Ctrl-C, and say what can be tried."""
    query = folder / "query.json"
    query.write_bytes(orjson.dumps({"query": vectors.new_queries[0].tolist(), "limit": 3, "with_payload": ["name"]}))
    console.print("\n[bold]Everything keeps running until Ctrl-C.[/] Try:\n")
    console.print(what_to_try(folder, database, ports), highlight=False, markup=False, soft_wrap=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("ending")


def what_to_try(folder: Path, database: Database, ports: Ports) -> str:
    """Commands to copy into another terminal, as they stand."""
    return f"""\
{database.what_to_try(ports, COLLECTION, folder / "query.json")}
curl -s http://{HOST}:{ports.admin}/metrics | grep ^crossfade
$EDITOR {folder / "crossfade.yaml"}    # query_model: {OLD} takes it back
"""
