"""`crossfade probe`: what each way of changing the model would give, how sure that is, what it costs, what to do."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from crossfade.adapters.base import Adapter
    from crossfade.adapters.verdict import Standing, Verdict
    from crossfade.adapters.weights import Chosen

    from .probing import Gathered

REPORT = "probe"  # .json and .html


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """What was measured and what follows from it."""

    gathered: Gathered
    adapter: Adapter
    table: tuple[Standing, ...]
    verdict: Verdict
    chosen: tuple[Chosen, ...]


def probe(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="The configuration file (YAML).", show_default=False)
    ],
    collection: Annotated[str, typer.Argument(help="The live collection.", show_default=False)],
    model: Annotated[str, typer.Option(help="The new model, by its name in the configuration.", show_default=False)],
    sample: Annotated[int, typer.Option(min=100, help="Documents to sample and encode.")] = 4000,
    judged: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET_DIR", help="Judged queries: a folder in the evaluation format.", show_default=False
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help="Your queries: texts (.txt, one a line), or the new model's vectors (.npy)."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for probe.html, probe.json and the collected pairs.")] = Path(
        "build/probe"
    ),
    field: Annotated[str, typer.Option(help="Vector field of the collection; default: the unnamed or only one.")] = "",
    method: Annotated[str, typer.Option(help="How the adapter is fitted.")] = "auto",
    budget: Annotated[
        str | None, typer.Option(help="Time for trying methods, such as 90s or 10m.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same sample and figures.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say what a new model would give, before anything changes.

    Samples a live collection, encodes the sample with the new model, fits an adapter, and measures every strategy: the
    status quo, new queries as they are, adapted ones, crossfade on the way, and the full re-encode. Nothing is written
    to the database. A probe that was interrupted goes on where it was.
    """
    from .cli_fit import _refuse_together, _seconds
    from .probing import Probing

    if judged is not None:
        _refuse_together("--judged", queries=queries)
    seconds = _seconds(budget)
    asked = Probing(config, collection, model, field, sample, seed, judged, queries, out / "pairs")
    found = measure(asyncio.run(asked.gather()), method=method, seconds=seconds, seed=seed)
    told = describe(found)
    _write(out, found, told)
    if as_json:
        from .cli_output import print_json

        print_json(told)
    else:
        _print(found, out)


def measure(gathered: Gathered, *, method: str, seconds: float | None, seed: int) -> Probe:
    """Fit an adapter, measure every strategy, and decide. Raises PairsError."""
    from crossfade.adapters.merge import fit_matcher
    from crossfade.adapters.pairs import make_pairs
    from crossfade.adapters.rehearsal import rehearse
    from crossfade.adapters.select import fit_adapter
    from crossfade.adapters.strategies import measure_strategies, weigh
    from crossfade.adapters.verdict import Truth, decide, stand
    from crossfade.adapters.weights import choose_weights

    from .cli_output import progress_bar

    observed, mean = gathered.observed
    pairs = make_pairs(gathered.source, gathered.target, source_name=gathered.collection)
    with progress_bar("candidates") as step:
        adapter = fit_adapter(
            pairs,
            source_model=gathered.model,
            target_model=gathered.index_model,
            method=method,
            queries=observed,
            query_mean=mean,
            corpus_size=max(gathered.cost.documents, len(pairs)),
            metric=gathered.metric,
            seed=seed,
            budget_seconds=seconds,
            progress=lambda done, total, name: step(done, total),
        )
    matcher = fit_matcher(gathered.source, gathered.target, seed=seed)
    maps = rehearse(adapter, pairs, gathered.scene, queries=observed, query_mean=mean, seed=seed)
    weighed = weigh(gathered.scene, maps, matcher, seed=seed)
    table = stand(measure_strategies(gathered.scene, adapter.query, weighed))
    verdict = decide(table, gathered.truth, can_encode_old=gathered.can_encode_old)
    # The new model's own neighbours would have it count alone, whichever model is better.
    judged = gathered.truth is not Truth.NEIGHBOURS
    return Probe(gathered, adapter, table, verdict, choose_weights(weighed) if judged else ())


def describe(found: Probe) -> dict[str, Any]:
    """Everything a probe found, for probe.json."""
    gathered, cost, verdict = found.gathered, found.gathered.cost, found.verdict
    return {
        "collection": gathered.collection,
        "index_model": gathered.index_model,
        "model": gathered.model,
        "recommendation": verdict.sentence,
        "reasons": list(verdict.reasons),
        "more_queries": verdict.more_queries,
        "truth": gathered.truth.value,
        "asked": gathered.asked,
        "queries": len(gathered.scene.new_queries),
        "searched": len(gathered.scene.new_documents),
        "strategies": [asdict(one) for one in found.table],
        "weights": [one.to_json() for one in found.chosen],
        "adapter": {"method": found.adapter.card.method, "pairs": found.adapter.card.pairs.count},
        "cost": {
            "documents": cost.documents,
            "pairs": cost.pairs,
            "documents_a_second": cost.documents_a_second,
            "minutes": cost.minutes,
            "tokens_estimated": cost.tokens,
            "vector_bytes": cost.index_bytes,
        },
    }


def _write(out: Path, found: Probe, told: dict[str, Any]) -> None:
    import orjson

    from .probe_report import render_html

    out.mkdir(parents=True, exist_ok=True)
    (out / f"{REPORT}.json").write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))
    (out / f"{REPORT}.html").write_text(render_html(found), encoding="utf-8")


def _print(found: Probe, out: Path) -> None:
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    from .cli_output import print_table
    from .probe_report import cells, cost_lines, headline
    from .probe_weights import COLUMNS, NOTE, weight_cells

    console = Console()
    reasons = "\n".join(f"- {reason}" for reason in found.verdict.reasons)
    told = Panel(Text(f"{found.verdict.sentence}\n{reasons}"), title=Text(headline(found)), title_align="left")
    console.print(told)
    columns = ["strategy", "re-encoded", "nDCG@10 [95 %]", "against the status quo [95 %]", "p", "of the oracle"]
    print_table(columns, [cells(one) for one in found.table])
    if found.chosen:
        print_table(list(COLUMNS), [weight_cells(one) for one in found.chosen])
        typer.echo(NOTE)
    gathered = found.gathered
    typer.echo(
        f"truth: {gathered.truth}; asked: {gathered.asked}; {len(gathered.scene.new_documents):,} documents searched "
        f"exactly by cosine; adapter: {found.adapter.card.method}, {found.adapter.card.pairs.count:,} pairs"
    )
    for line in cost_lines(gathered.cost):
        typer.echo(line)
    typer.echo(f"{out / REPORT}.html, .json")
    if found.chosen:
        typer.echo(f"migrate.verdict: {out / REPORT}.json has auto weigh both models like this")
