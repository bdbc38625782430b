"""`crossfade evaluate`: what an adapter is worth on judged queries, beside the three rows that it is compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from crossfade.adapters.base import Adapter, Float32
    from crossfade.adapters.evaluate import Evaluation, Judged, Row

REPORT = "evaluation"  # .json, .md and .png


@dataclass(frozen=True, slots=True)
class Asked:
    """How adapters are fitted: on how many documents, by which methods, how often, having observed how many queries."""

    pairs: int
    methods: tuple[str, ...]
    seeds: int
    observed: int


def evaluate(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="Folder in the evaluation format.", show_default=False)
    ],
    old: Annotated[str, typer.Option(help="The index's model.", show_default=False)],
    new: Annotated[str, typer.Option(help="The new model, whose queries are mapped.", show_default=False)],
    adapter: Annotated[
        Path | None, typer.Option(help="An adapter to judge; otherwise one is fitted.", show_default=False)
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Documents of the collection to fit on.")] = 2500,
    method: Annotated[
        list[str] | None, typer.Option(help="Method to fit, or auto; may be given several times.  [default: auto]")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Fits, each on other documents; figures are their means.")] = 1,
    observe: Annotated[
        float,
        typer.Option(min=0.0, max=0.9, help="Share of the queries that the fit sees as traffic, and is not judged on."),
    ] = 0.0,
    out: Annotated[Path, typer.Option(help="Folder for evaluation.json, .md and .png.")] = Path("build/report"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Measure an adapter on judged queries.

    Prints four rows: status quo (old queries, old index), naive (new queries as they are), adapted (new queries,
    mapped) and oracle (new queries, new index), with 95 % intervals by bootstrap over queries.
    """
    judged, observed = _read(dataset, old, new, observe if adapter is None else 0.0)
    if adapter is not None:
        asked, found = None, [_judge_adapter(judged, adapter)]
    else:
        asked = Asked(pairs, tuple(method or ("auto",)), seeds, len(observed))
        found = list(_fit_and_judge(judged, observed, asked))
    rows = _merge(found)
    _write(out, judged, asked, adapter, rows, found)
    _print(judged, asked, rows, out, as_json)


def _read(folder: Path, old: str, new: str, observe: float) -> tuple[Judged, Float32]:
    """The collection cut to the documents that both models have, without the observed queries, and their vectors."""
    import numpy as np

    from crossfade.adapters.dataset import DOCS, models_in, read_dataset, rows_of
    from crossfade.adapters.evaluate import load_judged

    known = models_in(folder)
    rows = rows_of(folder, [old, new]) if (folder / DOCS).is_file() and {old, new} <= set(known) else None
    dataset = read_dataset(folder, rows=rows)
    order = np.random.default_rng(0).permutation(len(dataset.query_ids))  # one split for all seeds and methods
    observed, rest = np.split(order, [round(observe * len(order))])
    return load_judged(dataset, old, new, np.sort(rest).tolist()), dataset.queries(new)[np.sort(observed)]


def _judge_adapter(judged: Judged, path: Path) -> Evaluation:
    from crossfade.adapters.evaluate import evaluate as measure
    from crossfade.adapters.store import load_adapter

    adapter = load_adapter(path, source_model=judged.new_model, target_model=judged.old_model)
    card = adapter.card
    return measure(judged, {"adapted": adapter}, pairs=card.pairs.count, share=card.pairs.share, note=card.method)


def _fit_and_judge(judged: Judged, observed: Float32, asked: Asked) -> Iterator[Evaluation]:
    """One evaluation for each seed, with a row for each method."""
    from crossfade.adapters.evaluate import evaluate as measure

    documents = len(judged.old_documents)
    if asked.pairs > documents:
        raise _unusable(
            f"{judged.dataset.name} has {documents:,} documents with vectors of both models; "
            f"--pairs {asked.pairs:,} is more"
        )
    for seed in range(asked.seeds):
        adapters = {_row_name(method): _fit(judged, observed, asked.pairs, method, seed) for method in asked.methods}
        labels = {"pairs": asked.pairs, "share": asked.pairs / documents, "seed": seed}
        measured = measure(judged, adapters, **labels)
        notes = {name: adapter.card.method for name, adapter in adapters.items()}
        yield replace(measured, rows=tuple(replace(row, note=notes.get(row.method, row.note)) for row in measured.rows))


def _row_name(method: str) -> str:
    return f"adapted ({method})"


def _fit(judged: Judged, observed: Float32, count: int, method: str, seed: int) -> Adapter:
    import numpy as np

    from crossfade.adapters.pairs import make_pairs
    from crossfade.adapters.select import fit_adapter

    from .cli_output import progress_bar

    documents = len(judged.old_documents)
    chosen = np.random.default_rng(seed).permutation(documents)[:count]
    pairs = make_pairs(judged.new_documents[chosen], judged.old_documents[chosen], source_name=judged.dataset.name)
    with progress_bar(f"{method}, seed {seed}") as step:
        return fit_adapter(
            pairs,
            source_model=judged.new_model,
            target_model=judged.old_model,
            method=method,
            queries=observed if len(observed) else None,
            corpus_size=documents,
            seed=seed,
            progress=lambda done, total, name: step(done, total),
        )


def _merge(found: list[Evaluation]) -> list[Row]:
    """Means over seeds; intervals and p by bootstrap over queries of each query's mean over seeds."""
    import numpy as np

    from crossfade.adapters.evaluate import STATUS_QUO
    from crossfade.adapters.metrics import bootstrap_interval, paired_bootstrap

    if len(found) == 1:
        return list(found[0].rows)
    values = {name: np.mean([one.values[name] for one in found], axis=0) for name in found[0].values}
    merged = []
    for at, row in enumerate(found[0].rows):
        same = [one.rows[at] for one in found]
        means: dict[str, Any] = {key: float(np.mean([getattr(one, key) for one in same])) for key in _MEANS}
        low, high = bootstrap_interval(values[row.method])
        p = 1.0 if row.method == STATUS_QUO else paired_bootstrap(values[row.method], values[STATUS_QUO])[2]
        chosen = Counter(one.note for one in same)
        note = ", ".join(name if times == len(same) else f"{name} x{times}" for name, times in chosen.most_common())
        merged.append(replace(row, **means, low=low, high=high, p=p, seed=None, note=note))
    return merged


_MEANS = ("ndcg10", "recall10", "recall100", "mrr10", "overlap10", "of_status_quo", "of_oracle")


def _write(
    out: Path, judged: Judged, asked: Asked | None, adapter: Path | None, rows: list[Row], found: list[Evaluation]
) -> None:
    import orjson

    from crossfade.adapters.report import plot_rows, to_markdown

    out.mkdir(parents=True, exist_ok=True)
    told = {
        "collection": judged.dataset.name,
        "documents": len(judged.old_documents),
        "queries": len(judged.rows),
        "fitted": asdict(asked) if asked is not None else None,
        "adapter": str(adapter) if adapter is not None else None,
        "rows": [row.to_json() for row in rows],
        "by_seed": [row.to_json() for one in found for row in one.rows] if len(found) > 1 else [],
    }
    (out / f"{REPORT}.json").write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))
    (out / f"{REPORT}.md").write_text(f"# {_headline(judged, asked)}\n\n{to_markdown(rows)}", encoding="utf-8")
    plot_rows(rows, out / f"{REPORT}.png")


def _headline(judged: Judged, asked: Asked | None) -> str:
    name, documents, queries = judged.dataset.name, len(judged.old_documents), len(judged.rows)
    fitted = ""
    if asked is not None:
        times = f", mean of {asked.seeds} seeds" if asked.seeds > 1 else ""
        fitted = f"; fitted on {asked.pairs:,} pairs ({asked.pairs / documents:.0%}){times}"
        fitted += f", having observed {asked.observed:,} other queries" if asked.observed else ""
    models = f"{judged.old_model} -> {judged.new_model}"
    return f"{name}: {models}, {documents:,} documents, {queries:,} judged queries{fitted}"


def _print(judged: Judged, asked: Asked | None, rows: list[Row], out: Path, as_json: bool) -> None:
    from .cli_output import print_json, print_table

    if as_json:
        print_json([row.to_json() for row in rows])
        return
    typer.echo(_headline(judged, asked))
    columns = ["row", "nDCG@10 [95 %]", "of status quo", "p", "R@10", "R@100", "MRR@10", "overlap@10", ""]
    print_table(columns, [_cells(row) for row in rows])
    typer.echo(f"truth: the collection's judgements, exact search; {out / REPORT}.json, .md, .png")


def _cells(row: Row) -> list[str]:
    others = (row.recall10, row.recall100, row.mrr10, row.overlap10)
    return [
        row.method,
        f"{row.ndcg10:.3f} [{row.low:.3f}, {row.high:.3f}]",
        f"{row.of_status_quo:.3f}",
        f"{row.p:.3f}",
        *(f"{figure:.3f}" for figure in others),
        row.note,
    ]


def _unusable(message: str) -> Exception:
    from .cli_output import UsageProblem

    return UsageProblem(message)
