"""The steps of the demo: encode, build the old index, fit adapters, ask in every way, and take the times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from crossfade.adapters.base import Adapter, Float32
from crossfade.adapters.pairs import make_pairs
from crossfade.adapters.select import fit_adapter
from crossfade.adapters.store import save_adapter

from .demo_ask import Answers, Latency, ask_all, measure_latency, route
from .demo_database import Client, Database, Ports
from .demo_models import NEW, OLD, MiniLM, UniversalSentenceEncoder, embed_all
from .demo_report import Row, make_row
from .demo_serving import COLLECTION, DemoFailed, flip_flag, generation_of, reload_crossfade, wait_for_reload
from .demo_stage import Stage
from .demo_text import Package

SHARES = (0.25, 0.5, 0.75)  # of the documents that the new model has encoded so far
REENCODED = f"{COLLECTION}-oracle"
_MOST_TIMED = 400
_WARM_UP = 50
_SEED = 7
_METHOD = "residual"  # a linear map and what it got wrong near by: `auto` tries more, and nobody watches it try


@dataclass(frozen=True, slots=True)
class Vectors:
    """Both models' unit vectors of the documents (documents, dim) and of the queries (queries, dim)."""

    old_documents: Float32
    old_queries: Float32
    new_documents: Float32
    new_queries: Float32


@dataclass(frozen=True, slots=True)
class Found:
    """Every row of the table, the answers to compare one by one, and what an answer says of itself.

    `new` and `adapter` are of the largest share of pairs; `equal` counts the answers over each other transport that
    equal those of `new`.
    """

    adapter: Adapter
    rows: tuple[Row, ...]
    old: Answers
    new: Answers
    mark: str
    equal: dict[str, int]


def embed(stage: Stage, packages: Sequence[Package], queries: int, threads: int) -> Vectors:
    """Run both models over the descriptions and the first packages' synopses."""
    documents = [package.description for package in packages]
    asked = [package.synopsis for package in packages[:queries]]
    made: list[Float32] = []
    for name, load in ((OLD, UniversalSentenceEncoder), (NEW, MiniLM)):
        with stage.bar(f"{name} encodes documents and queries", len(documents) + len(asked)) as advance:
            encoder = load(threads)
            made += [embed_all(encoder, texts, advance) for texts in (documents, asked)]
    return Vectors(*made)


def build(stage: Stage, database: Database, ports: Ports, packages: Sequence[Package], vectors: Vectors) -> None:
    """Store the old index straight in the database, and for the oracle alone the re-encoded one."""
    direct = database.connect(ports.direct, database.transports[0])
    for name, stored in ((COLLECTION, vectors.old_documents), (REENCODED, vectors.new_documents)):
        title = f"the database holds {name!r} with {stored.shape[1]} dimensions"
        stage.run(title, partial(direct.build, name, packages, stored))


def fit(stage: Stage, folder: Path, vectors: Vectors, share: float) -> Adapter:
    """Fit on a random share of the documents and store the adapter; a larger share contains the smaller one."""
    total = len(vectors.old_documents)
    rows = np.random.default_rng(_SEED).permutation(total)[: round(total * share)]
    pairs = make_pairs(vectors.new_documents[rows], vectors.old_documents[rows])
    work = partial(
        fit_adapter, pairs, source_model=NEW, target_model=OLD, method=_METHOD, corpus_size=total, seed=_SEED
    )
    adapter = stage.run(f"adapter {NEW} -> {OLD} fitted on {len(pairs):,} pairs, {share:.0%} of the documents", work)
    save_adapter(adapter, folder / "adapter")
    return adapter


def flip(stage: Stage, config: Path, ports: Ports) -> None:
    """Change one word of the configuration, as an operator would; Crossfade sees that the file changed."""
    before = generation_of(ports)
    config.write_text(flip_flag(config.read_text(), NEW))
    stage.run(f"flag flipped in {config}: query_model: {NEW}", partial(wait_for_reload, ports, before))


def compare(stage: Stage, folder: Path, database: Database, ports: Ports, vectors: Vectors, adapter: Adapter) -> Found:
    """Ask every query in every way, refitting the adapter as the new model gets through the documents."""
    direct = database.connect(ports.direct, database.transports[0])
    front = database.connect(ports.front, database.transports[0])
    old = _ask(stage, "status quo", front, COLLECTION, vectors.old_queries)
    naive = _ask(stage, "naive", direct, COLLECTION, vectors.new_queries)
    rows = [make_row("status quo", f"{OLD} -> {OLD}", old), make_row("naive", f"{NEW} -> {OLD}", naive)]
    flip(stage, folder / "crossfade.yaml", ports)
    new = old
    for share in SHARES:
        if share != SHARES[0]:
            adapter = fit(stage, folder, vectors, share)
            stage.run("Crossfade serves with it", partial(reload_crossfade, ports))
        new = _ask(stage, f"adapted, {share:.0%}", front, COLLECTION, vectors.new_queries)
        _refuse_failures(new)
        rows.append(make_row(f"adapted, {share:.0%} paired", f"{NEW} -> {OLD}", new))
    equal = {}
    for transport in database.transports[1:]:
        other = database.connect(ports.front, transport)
        answers = _ask(stage, f"adapted, over {transport}", other, COLLECTION, vectors.new_queries)
        equal[transport] = int((answers.rankings == new.rankings).all(axis=1).sum())
    mark = database.read_mark(ports.front, COLLECTION, vectors.new_queries[0].tolist())
    oracle = _ask(stage, "oracle", direct, REENCODED, vectors.new_queries)
    rows.append(make_row("oracle", f"{NEW} -> {NEW}", oracle))
    return Found(adapter, tuple(rows), old, new, mark, equal)


def _ask(stage: Stage, name: str, client: Client, collection: str, vectors: Float32) -> Answers:
    with stage.bar(f"{len(vectors):,} queries: {name}", len(vectors)) as advance:
        return ask_all(client, collection, vectors, advance)


def _refuse_failures(answers: Answers) -> None:
    if answers.refused:
        raise DemoFailed(f"{answers.refused} of {len(answers.rankings)} adapted queries failed: {answers.message}")


def take_times(
    stage: Stage, database: Database, ports: Ports, vectors: Vectors, adapter: Adapter
) -> dict[str, Latency]:
    """Time single queries in turn: ready-made old-space vectors straight to the database, new ones by Crossfade."""
    mapped = adapter.query.apply(vectors.new_queries)
    routes = {}
    for name in database.transports:
        direct, front = database.connect(ports.direct, name), database.connect(ports.front, name)
        routes[f"{name}, straight to the database"] = route(direct, COLLECTION, mapped)
        routes[f"{name}, through Crossfade, adapted"] = route(front, COLLECTION, vectors.new_queries)
    for ask in routes.values():
        for at in range(_WARM_UP):
            ask(at)
    count = min(_MOST_TIMED, 4 * len(mapped))
    with stage.bar(f"{count:,} single queries timed each way", count) as advance:
        measured = measure_latency(list(routes.values()), count, advance)
    return dict(zip(routes, measured, strict=True))
