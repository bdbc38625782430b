"""`crossfade fit`: an adapter from pairs in files, or from a live collection whose texts the new model encodes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from crossfade.adapters.base import Adapter, Float32
    from crossfade.adapters.pairs import Pairs

    from .config import Config
    from .config_fields import VectorField


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What an adapter is fitted on: pairs, observed queries of the new model, both names, the index's size, a place."""

    pairs: Pairs
    queries: Float32 | None
    model: str
    index_model: str
    corpus_size: int | None
    out: Path


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
    field: Annotated[str, typer.Option(help="Named vector of the collection; default: the unnamed one.")] = "",
    work: Annotated[
        Path | None,
        typer.Option(help="Where collected pairs are kept; default: beside --out.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fit an adapter from a new model into an index.

    From pairs of vectors in files, or from a live collection. A collection that was interrupted goes on where it was
    when the same command is given again.
    """
    seconds = _seconds(budget)
    if from_collection is not None:
        _refuse_together("--from-collection", source=source, target=target, pairs=pairs)
        asked = Collecting(*from_collection, model, field, sample, seed, queries, out, work)
        material = asyncio.run(asked.run())
    else:
        read = _read_pairs(source, target, pairs)
        material = Material(read, _read_queries(queries), model, index_model, corpus_size, _need_out(out))
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


def _read_queries(path: Path | None) -> Float32 | None:
    from crossfade.adapters.pairs import load_vectors
    from crossfade.adapters.vectors import as_rows

    return as_rows(load_vectors(path)) if path is not None else None


@dataclass(frozen=True, slots=True)
class Collecting:
    """What `--from-collection` was asked for."""

    config_path: Path
    collection: str
    model: str
    field: str
    sample: int
    seed: int
    queries: Path | None
    out: Path | None
    work: Path | None

    async def run(self) -> Material:
        """Collect the pairs, showing a progress bar; what is done stays done when this is stopped."""
        from crossfade.adapters.pairs import make_pairs

        from .cli_collect import Plan, collect_pairs
        from .cli_index import StoredDocuments, check_field, open_index
        from .cli_output import progress_bar
        from .encoders import build_encoder
        from .loading import load_config

        config = load_config(self.config_path)
        field, text = self._find(config)
        out = self._out(field)
        upstream = config.collections[self.collection].upstream or ""
        encoder = build_encoder(self.model, config.models[self.model])
        plan = Plan(
            upstream, self.collection, field.name, field.index_model, self.model, encoder.endpoint, text,
            self.sample, self.seed,
        )  # fmt: skip
        work = self.work or out.with_name(f"{out.name}.pairs")
        parallel = config.models[self.model].encoder.chosen.concurrency  # type: ignore[union-attr]  # it was built
        try:
            async with open_index(config, upstream) as index:
                dim = config.models[field.index_model].dim
                await check_field(index, self.collection, field.name, dim, field.index_model)
                count = await index.count(self.collection)
                documents = StoredDocuments(index, self.collection, field.name, text)
                _say_kept(work)
                with progress_bar("documents") as step:
                    found = await collect_pairs(documents, encoder, plan, work, parallel=parallel, progress=step)
            queries = await self._queries(encoder)
        finally:
            await encoder.close()
        _say_left_out(found.without_text, found.without_vector)
        pairs = make_pairs(found.source, found.target, source_name=f"{self.collection} on {upstream}")
        return Material(pairs, queries, self.model, field.index_model, count, out)

    def _find(self, config: Config) -> tuple[VectorField, str]:
        from .cli_output import UsageProblem
        from .config_fields import resolve_field

        if self.collection not in config.collections:
            known = ", ".join(config.collections) or "none"
            raise UsageProblem(f"{self.config_path} has no collection {self.collection!r}; it has {known}")
        if self.model not in config.models:
            raise UsageProblem(f"{self.config_path} has no model {self.model!r}; it has {', '.join(config.models)}")
        collection = config.collections[self.collection]
        field = resolve_field(collection, self.field)
        if field.index_model == self.model:
            raise UsageProblem(f"collection {self.collection!r} was made with {self.model!r} already: nothing to map")
        if collection.text is None:
            raise UsageProblem(
                f"collections.{self.collection}.text is missing; say where a document's text is (payload.text)"
            )
        return field, collection.text

    def _out(self, field: VectorField) -> Path:
        from .cli_output import UsageProblem

        if self.out is None and self.model not in field.adapters:
            raise UsageProblem(
                f"{self.config_path} does not say where the adapter from {self.model!r} belongs; give --out, or add "
                f"collections.{self.collection}.adapters.{self.model}"
            )
        return self.out or field.adapters[self.model]

    async def _queries(self, encoder: Any) -> Float32 | None:
        if self.queries is None or self.queries.suffix != ".txt":
            return _read_queries(self.queries)
        texts = [line.strip() for line in self.queries.read_text(encoding="utf-8").splitlines() if line.strip()]
        encoded: Float32 = await encoder.encode(texts, "query")
        return encoded


def _say_kept(work: Path) -> None:
    kept = len(list(work.glob("batch-*.npz")))
    if kept:
        typer.echo(f"going on with {kept} batches of pairs in {work}; remove it to collect afresh", err=True)
    else:
        typer.echo(f"pairs are kept in {work} as they are collected", err=True)


def _say_left_out(without_text: int, without_vector: int) -> None:
    if without_text or without_vector:
        told = f"{without_text:,} without text, {without_vector:,} without a vector"
        typer.echo(f"left out of the sample: {told}", err=True)


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
            corpus_size=material.corpus_size,
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
