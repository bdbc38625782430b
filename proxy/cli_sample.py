"""What an adapter is fitted on, and how a live collection gives it: stored vectors, and their texts encoded anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossfade.adapters.base import Float32
    from crossfade.adapters.calibrate import Metric
    from crossfade.adapters.pairs import Pairs

    from .config import Config
    from .config_fields import VectorField


_FEWEST_OBSERVED = 50
_DRAWN = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Pairs, observed queries of the new model, both names, the index's size and metric, the adapter's place.

    query_mean is that of the queries that `serve` observed; queries are then drawn from their distribution.
    """

    pairs: Pairs
    queries: Float32 | None
    model: str
    index_model: str
    corpus_size: int | None
    metric: Metric
    out: Path
    query_mean: NDArray[np.float64] | None = None


def read_queries(path: Path | None) -> Float32 | None:
    """The vectors (n, dim) of a .npy file, None for no file. Raises PairsError."""
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
        field, text = self.find(config)
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
                own = config.collections[self.collection].fields
                found_field = await check_field(index, self.collection, field.name, dim, field.index_model, own)
                count = await index.count(self.collection)
                documents = StoredDocuments(index, self.collection, found_field.name, text)
                _say_kept(work)
                with progress_bar("documents") as step:
                    found = await collect_pairs(documents, encoder, plan, work, parallel=parallel, progress=step)
            queries, mean = await self._queries(encoder), None
            if queries is None and config.detect.observe:
                queries, mean = self.observed(config, found_field.name)
        finally:
            await encoder.close()
        _say_left_out(found.without_text, found.without_vector)
        pairs = make_pairs(found.source, found.target, source_name=f"{self.collection} on {upstream}")
        return Material(pairs, queries, self.model, field.index_model, count, found_field.distance, out, mean)

    def find(self, config: Config) -> tuple[VectorField, str]:
        """The field, and where its documents' texts are; raises UsageProblem for what cannot be sampled."""
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

    def observed(self, config: Config, field: str) -> tuple[Float32 | None, NDArray[np.float64] | None]:
        """Vectors drawn as the queries that `serve` saw are distributed, and these queries' mean; None for too few."""
        from .observing import Key, read_observed

        found = read_observed(config.state, Key(self.collection, field, self.model), config.models[self.model].dim)
        if found is None:
            return None, None
        used = found.count >= _FEWEST_OBSERVED
        doing = "used" if used else f"too few to be used, {_FEWEST_OBSERVED} would be enough"
        typer.echo(f"observed queries of {self.model} in {config.state}: {found.count:,}, {doing}", err=True)
        if not used:
            return None, None
        return found.sample(_DRAWN, seed=self.seed) if found.has_spread else None, found.mean

    async def _queries(self, encoder: Any) -> Float32 | None:
        if self.queries is None or self.queries.suffix != ".txt":
            return read_queries(self.queries)
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
