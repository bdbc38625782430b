"""What the demo found: rows with their intervals, examples, and how they are shown. Pure but for the console given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from crossfade.adapters.metrics import bootstrap_interval, ndcg_at, recall_at

from .demo_ask import MISSED, Answers, Latency
from .demo_database import DEPTH
from .demo_models import NEW, OLD
from .demo_text import Package

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: who asked what, and how good the answers were (nDCG@10 with its 95 % interval)."""

    name: str
    asked: str
    ndcg: float
    low: float
    high: float
    recall: float
    refused: int
    note: str


@dataclass(frozen=True, slots=True)
class Example:
    """One query, the rank of the right document by each of two rankings (None: not among them), and the first hits."""

    query: str
    right: str
    old_rank: int | None
    new_rank: int | None
    old_first: tuple[str, ...]
    new_first: tuple[str, ...]


def score_queries(answers: Answers) -> Float64:
    """nDCG@10 of each query; query i is the synopsis of document i, which alone is right."""
    return ndcg_at(answers.rankings, _judgements(answers), DEPTH)


def make_row(name: str, asked: str, answers: Answers, note: str = "") -> Row:
    """Judge a run of queries."""
    values = score_queries(answers)
    low, high = bootstrap_interval(values)
    recall = float(recall_at(answers.rankings, _judgements(answers), DEPTH).mean())
    return Row(name, asked, float(values.mean()), low, high, recall, answers.refused, note or answers.message or "")


def _judgements(answers: Answers) -> list[dict[int, float]]:
    return [{at: 1.0} for at in range(len(answers.rankings))]


def choose_examples(packages: Sequence[Package], old: Answers, new: Answers, gains: int, losses: int) -> list[Example]:
    """The queries that gained most and those that lost most from `old` to `new`, in that order; ties by number."""
    change = score_queries(new) - score_queries(old)
    best = np.argsort(-change, kind="stable")[:gains]
    worst = np.argsort(change, kind="stable")[:losses]
    return [_example(packages, old, new, int(at)) for at in [*best, *worst]]


def _example(packages: Sequence[Package], old: Answers, new: Answers, at: int) -> Example:
    return Example(
        packages[at].synopsis,
        packages[at].name,
        _rank(old.rankings[at], at),
        _rank(new.rankings[at], at),
        _names(packages, old.rankings[at]),
        _names(packages, new.rankings[at]),
    )


def _rank(ranking: NDArray[np.int64], right: int) -> int | None:
    places = np.flatnonzero(ranking == right)
    return int(places[0]) + 1 if len(places) else None


def _names(packages: Sequence[Package], ranking: NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(packages[int(row)].name for row in ranking[:3] if row != MISSED)


def count_changes(old: Answers, new: Answers) -> tuple[int, int, int]:
    """How many queries got better, stayed and got worse from `old` to `new`."""
    change = score_queries(new) - score_queries(old)
    return int((change > 0).sum()), int((change == 0).sum()), int((change < 0).sum())


def show_rows(console: Console, rows: Sequence[Row], title: str) -> None:
    """Print the table of quality, with a bar for each row."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in ("", "query -> index", "nDCG@10", "95 % interval", "Recall@10", ""):
        table.add_column(column, justify="right" if column in ("nDCG@10", "Recall@10") else "left")
    for row in rows:
        interval = f"{row.low:.3f} - {row.high:.3f}"
        table.add_row(
            f"[bold]{row.name}[/]", row.asked, f"[bold]{row.ndcg:.3f}[/]", interval, f"{row.recall:.3f}", _bar(row.ndcg)
        )
    console.print(table)


def _bar(value: float, width: int = 20) -> str:
    full = round(value * width)
    return f"[green]{'━' * full}[/][bright_black]{'·' * (width - full)}[/]"


def show_examples(console: Console, examples: Sequence[Example], title: str) -> None:
    """Print queries side by side: what the old model found, and what the new one found through Crossfade."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("query (the right answer)", max_width=44)
    for column in (f"{OLD}, before", f"{NEW}, through Crossfade"):
        table.add_column(column, max_width=32, no_wrap=True, overflow="ellipsis")
    for example in examples:
        old = _ranked(example.old_first, example.right, example.old_rank)
        new = _ranked(example.new_first, example.right, example.new_rank)
        table.add_row(f"{example.query}\n[bright_black]({example.right})[/]", old, new, end_section=True)
    console.print(table)


def _ranked(names: Sequence[str], right: str, rank: int | None) -> str:
    lines = [f"[green]{at} {name}[/]" if name == right else f"{at} {name}" for at, name in enumerate(names, start=1)]
    if rank is None:
        lines.append(f"[red]not among the first {DEPTH}[/]")
    elif rank > len(names):
        lines.append(f"[yellow]{rank} {right}[/]")
    return "\n".join(lines)


def show_latency(console: Console, latency: dict[str, Latency], title: str) -> None:
    """Print single-query times, and what Crossfade adds."""
    console.print(f"[italic]{title}[/]", highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for column in ("p50", "p99"):
        table.add_column(column, justify="right")
    for name, one in latency.items():
        table.add_row(name, f"{one.p50:.2f} ms", f"{one.p99:.2f} ms")
    console.print(table)


def to_json(**parts: Any) -> dict[str, Any]:
    """Everything the demo found as plain data."""
    return {name: _plain(part) for name, part in parts.items()}


def _plain(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _plain(one) for name, one in part.items()}
    if isinstance(part, list | tuple):
        return [_plain(one) for one in part]
    return asdict(part) if hasattr(part, "__dataclass_fields__") else part
