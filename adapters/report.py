"""Quality reports: JSON, Markdown and plots of the rows that evaluate.py makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from .base import AdapterError
from .evaluate import NAIVE, ORACLE, STATUS_QUO, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {STATUS_QUO: "#4d4d4d", NAIVE: "#b0b0b0", ORACLE: "#1b7837"}
_ADAPTED = "#2166ac"
Curves = Mapping[str, Sequence[tuple[float, float, float, float]]]


def write_json(rows: Sequence[Row], path: str | Path) -> None:
    """Write rows as a JSON list."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(orjson.dumps([row.to_json() for row in rows], option=orjson.OPT_INDENT_2))


def to_markdown(rows: Sequence[Row]) -> str:
    """A table of the rows, with the truth, k and kind of query said above it."""
    lines = [
        "nDCG@10, Recall and MRR on judged queries as trec_eval computes them, 95 % bootstrap over queries in "
        "brackets; overlap@10 with the new model's exact neighbours; exact search.",
        "",
        "| collection | old -> new | method | pairs | share | queries | nDCG@10 | of status quo | p "
        "| Recall@10 | Recall@100 | MRR@10 | overlap@10 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [_line(row) for row in rows]) + "\n"


def _line(row: Row) -> str:
    pairs = "" if row.pairs is None else f"{row.pairs:,}"
    share = "" if row.share is None else f"{row.share:.0%}"
    figures = f"{row.ndcg10:.3f} [{row.low:.3f}, {row.high:.3f}] | {row.of_status_quo:.3f} | {row.p:.3f}"
    others = f"{row.recall10:.3f} | {row.recall100:.3f} | {row.mrr10:.3f} | {row.overlap10:.3f}"
    models = f"{row.old_model} -> {row.new_model}"
    return f"| {row.collection} | {models} | {row.method} | {pairs} | {share} | {row.queries} | {figures} | {others} |"


def plot_rows(rows: Sequence[Row], path: str | Path) -> None:
    """Draw nDCG@10 with its interval for each method, a panel for each collection and model pair, as PNG."""
    pyplot = load_pyplot()
    panels: dict[str, list[Row]] = {}
    for row in rows:
        panels.setdefault(f"{row.collection}: {row.old_model} → {row.new_model}", []).append(row)
    heights = [len(panel) for panel in panels.values()]
    figure, axes = pyplot.subplots(
        len(panels), 1, figsize=(8, 0.9 * len(panels) + 0.36 * sum(heights)), squeeze=False, height_ratios=heights
    )
    for axis, (title, panel) in zip(axes[:, 0], panels.items(), strict=True):
        _draw_panel(axis, title, panel)
    axes[-1, 0].set_xlabel("nDCG@10 on judged queries (bar: 95 % bootstrap over queries; line: status quo)")
    _save(figure, path)


def _draw_panel(axis: Axes, title: str, panel: Sequence[Row]) -> None:
    for at, row in enumerate(reversed(panel)):
        colour = _COLOURS.get(row.method, _ADAPTED)
        axis.plot([row.low, row.high], [at, at], color=colour, linewidth=5, alpha=0.3, solid_capstyle="round")
        axis.plot(row.ndcg10, at, "o", color=colour, markersize=7)
        axis.annotate(
            f"{row.ndcg10:.3f}", (row.high, at), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8
        )
        if row.method == STATUS_QUO:
            axis.axvline(row.ndcg10, color=colour, linewidth=1, linestyle=":")
    axis.set_yticks(range(len(panel)), [row.method for row in reversed(panel)])
    axis.set_ylim(-0.6, len(panel) - 0.4)
    axis.set_xlim(0, max(row.high for row in panel) * 1.12)
    axis.set_title(title, loc="left", fontsize=10, fontweight="bold")
    _bare(axis)


def plot_curves(
    curves: Curves,
    path: str | Path,
    *,
    title: str,
    xlabel: str,
    levels: Mapping[str, float] | None = None,
    log: bool = False,
) -> None:
    """Draw named curves of (x, mean, low, high) with horizontal reference levels, as PNG."""
    pyplot = load_pyplot()
    figure, axis = pyplot.subplots(figsize=(7.2, 4.4))
    for name, points in curves.items():
        x, mean, low, high = (list(column) for column in zip(*points, strict=True))
        (line,) = axis.plot(x, mean, marker="o", markersize=4, linewidth=1.8, label=name)
        axis.fill_between(x, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    ranked = sorted((levels or {}).items(), key=lambda item: item[1])
    for at, (name, value) in enumerate(ranked):
        axis.axhline(value, color=_COLOURS.get(name, "#888888"), linewidth=1, linestyle=":")
        axis.annotate(
            name,
            (1.0, value),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="bottom" if at else "top",  # apart, however near the levels are
            fontsize=8,
        )
    if log:
        axis.set_xscale("log", base=2)
        ticks = sorted({point[0] for points in curves.values() for point in points})
        axis.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axis.minorticks_off()
    axis.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axis.set_xlabel(xlabel)
    axis.set_ylabel("nDCG@10")
    axis.legend(frameon=False, fontsize=8)
    _bare(axis)
    _save(figure, path)


def _bare(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="both", color="#eeeeee", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8, length=2)


def _save(figure: Any, path: str | Path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=150, bbox_inches="tight")
    load_pyplot().close(figure)


def load_pyplot() -> Any:
    """Import matplotlib without a display. Raises AdapterError naming the extra."""
    try:
        import matplotlib
    except ImportError as error:
        raise AdapterError("plots need matplotlib: install crossfade[report]") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    return pyplot
