"""`crossfade fit`: an adapter from pairs in files, or from a live collection whose texts the new model encodes."""

from __future__ import annotations

import asyncio
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from crossfade.adapters.base import Adapter
    from crossfade.adapters.pairs import Pairs

    from .cli_sample import Material


class Distance(enum.StrEnum):
    """What an index scores by."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLID = "euclid"
    MANHATTAN = "manhattan"


def fit(
    source: Annotated[
        Path | None, typer.Option(help="The new model's document vectors (.npy).", show_default=False)
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="The same documents' vectors by the index's model (.npy).", show_default=False)
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Both in one file: source and target in a .npz or .parquet.", show_default=False),
    ] = None,
    from_collection: Annotated[
        tuple[Path, str] | None,
        typer.Option(
            metavar="CONFIG COLLECTION",
            help="Sample a live collection and encode its texts with the new model.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="The new model's name: what is mapped from.")] = "new",
    index_model: Annotated[str, typer.Option(help="The index's model, for files; a configuration knows it.")] = "old",
    out: Annotated[
        Path | None,
        typer.Option(help="Adapter directory; default: where the configuration expects it.", show_default=False),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="Observed queries of the new model: vectors (.npy), or texts (.txt, one a line; --from-collection).",
            show_default=False,
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="A method by name, or auto: the best on held-out retrieval.")] = "auto",
    seed: Annotated[int, typer.Option(help="The same seed gives the same adapter.")] = 0,
    budget: Annotated[
        str | None, typer.Option(help="Time for trying methods, such as 90s or 10m.", show_default=False)
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Documents to sample from the collection.")] = 8000,
    corpus_size: Annotated[
        int | None, typer.Option(min=1, help="Documents in the index, for files.", show_default=False)
    ] = None,
    metric: Annotated[
        Distance, typer.Option(help="What the index scores by, for files; a live collection knows it.")
    ] = Distance.COSINE,
    field: Annotated[str, typer.Option(help="Vector field of the collection; default: the unnamed or only one.")] = "",
    work: Annotated[
        Path | None,
        typer.Option(help="Where collected pairs are kept; default: beside --out.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fit an adapter from a new model into an index.

    From pairs of vectors in files, or from a live collection. A collection that was interrupted goes on where it was
    when the same command is given again. Where --queries gives none, the queries that `serve` observed count.
    """
    from .cli_sample import Collecting, Material, read_queries

    seconds = _seconds(budget)
    if from_collection is not None:
        _refuse_together("--from-collection", source=source, target=target, pairs=pairs)
        asked = Collecting(*from_collection, model, field, sample, seed, queries, out, work)
        material = asyncio.run(asked.run())
    else:
        read = _read_pairs(source, target, pairs)
        material = Material(read, read_queries(queries), model, index_model, corpus_size, metric.value, _need_out(out))
    adapter = _fit(material, method=method, seed=seed, seconds=seconds)
    _tell(adapter, material, as_json)


def _seconds(budget: str | None) -> float | None:
    from .config_values import parse_duration

    try:
        return parse_duration(budget) if budget is not None else None
    except ValueError as error:
        raise typer.BadParameter(f"{budget!r} {error}", param_hint="--budget") from error


def _refuse_together(option: str, **others: Path | None) -> None:
    given = [f"--{name}" for name, value in others.items() if value is not None]
    if given:
        raise typer.BadParameter("says the same as " + " and ".join(given) + "; give one of them", param_hint=option)


def _read_pairs(source: Path | None, target: Path | None, pairs: Path | None) -> Pairs:
    from crossfade.adapters.pairs import read_pairs

    if pairs is not None:
        _refuse_together("--pairs", source=source, target=target)
        return read_pairs(pairs)
    if source is None or target is None:
        wanted = "--source and --target, or --pairs, or --from-collection CONFIG COLLECTION"
        raise typer.BadParameter("nothing to fit on; say where the pairs are", param_hint=wanted)
    return read_pairs(source, target)


def _need_out(out: Path | None) -> Path:
    if out is None:
        raise typer.BadParameter("say where the new adapter goes", param_hint="--out")
    return out


def _fit(material: Material, *, method: str, seed: int, seconds: float | None) -> Adapter:
    from crossfade.adapters.select import fit_adapter
    from crossfade.adapters.store import save_adapter

    from .cli_output import progress_bar

    with progress_bar("candidates") as step:
        adapter = fit_adapter(
            material.pairs,
            source_model=material.model,
            target_model=material.index_model,
            method=method,
            queries=material.queries,
            query_mean=material.query_mean,
            corpus_size=material.corpus_size,
            metric=material.metric,
            seed=seed,
            budget_seconds=seconds,
            progress=lambda done, total, name: step(done, total),
        )
    save_adapter(adapter, material.out)
    return adapter


def _tell(adapter: Adapter, material: Material, as_json: bool) -> None:
    from dataclasses import asdict

    from .cli_output import print_json, print_table

    card = adapter.card
    if as_json:
        print_json({"out": material.out, "card": asdict(card)})
        return
    best: dict[str, dict[str, Any]] = {}
    for row in cast("list[dict[str, Any]]", card.figures.get("candidates", [])):
        best.setdefault(row["method"], row)
    rows = [
        [name, f"{row['score']:.4f} ± {row['error']:.4f}", "kept" if name == card.method else ""]
        for name, row in best.items()
    ]
    print_table(["method", "held-out retrieval", ""], rows)
    typer.echo(
        f"{material.out}: {card.method}, {card.source_model} ({card.source_dim}) -> {card.target_model} "
        f"({card.target_dim}), fitted on {card.pairs.count:,} pairs"
    )
