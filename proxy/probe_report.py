"""A probe as one HTML file that needs nothing else: the recommendation, two plots, the table, the costs, the method."""

from __future__ import annotations

from html import escape
from io import StringIO
from string import Template
from typing import TYPE_CHECKING, Any

from crossfade.adapters.evaluate import NAIVE, ORACLE, STATUS_QUO
from crossfade.adapters.report import load_pyplot
from crossfade.adapters.strategies import ADAPTED, CROSSFADE, LEGACY
from crossfade.adapters.verdict import Recommendation, Standing, Truth

from .probe_weights import COLUMNS, NOTE, weight_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crossfade.adapters.weights import Chosen

    from .cli_probe import Probe
    from .probing import Cost

_COLOURS = {
    STATUS_QUO: "#4b5563", NAIVE: "#9ca3af", ADAPTED: "#2563eb", CROSSFADE: "#7c3aed", LEGACY: "#0d9488",
    ORACLE: "#15803d",
}  # fmt: skip
_TONES = {
    Recommendation.FLIP_NOW: "#15803d", Recommendation.ENCODE_OLD: "#0d9488", Recommendation.AFTER: "#b45309",
    Recommendation.DO_NOT: "#b91c1c", Recommendation.NOT_SURE: "#6b7280",
}  # fmt: skip
_WHAT = {
    STATUS_QUO: "old-model queries on the old index",
    NAIVE: "new-model queries on the old index, as they are",
    ADAPTED: "new-model queries, mapped, on the old index",
    CROSSFADE: "new-model queries; both parts searched and merged",
    LEGACY: "the same, the old part asked with old-model queries",
    ORACLE: "new-model queries, everything re-encoded",
}


def headline(found: Probe) -> str:
    """Which change was probed."""
    gathered = found.gathered
    return f"{gathered.collection}: {gathered.index_model} → {gathered.model}, {gathered.cost.documents:,} documents"


def cells(one: Standing) -> list[str]:
    """A strategy's line of a table."""
    gap = one.against if one.strategy != STATUS_QUO else None
    return [
        one.strategy,
        f"{one.migrated:.0%}",
        f"{one.ndcg10:.3f} [{one.low:.3f}, {one.high:.3f}]",
        f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]" if gap is not None else "",
        f"{gap.p:.3f}" if gap is not None else "",
        f"{one.of_oracle:.1%}",
    ]


def cost_lines(cost: Cost) -> list[str]:
    """What a migration costs, in sentences."""
    size = cost.index_bytes / 2**20
    return [
        f"cost: {cost.pairs:,} pairs were encoded for this probe, {cost.documents_a_second:,.1f} documents a second "
        "with the encoder as it is configured",
        f"cost: all {cost.documents:,} documents take {spell_minutes(cost.minutes)}, about {cost.tokens:,} tokens "
        f"(estimated, {cost.characters_a_document:,.0f} characters a document) and {size:,.1f} MiB of vectors",
    ]


def spell_minutes(minutes: float) -> str:
    """Minutes as people say them."""
    if minutes < 1:
        return f"{minutes * 60:.0f} seconds"
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:,.1f} hours"


def render_html(found: Probe) -> str:
    """The report. Raises AdapterError where matplotlib is missing."""
    gathered, verdict = found.gathered, found.verdict
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict.reasons)
    columns = ("strategy", "re-encoded", "nDCG@10 [95 %]", "against the status quo [95 %]", "p", "of the oracle")
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    return _PAGE.substitute(
        title=escape(headline(found)),
        tone=_TONES[verdict.recommendation],
        verdict=escape(verdict.sentence),
        reasons=reasons,
        dots=_draw_rows(found.table),
        curves=_draw_curves(found.table, found.chosen),
        head=head,
        rows="".join(_row(one) for one in found.table),
        weights=_weights(found.chosen),
        costs="".join(f"<li>{escape(line.removeprefix('cost: '))}</li>" for line in cost_lines(gathered.cost)),
        truth=escape(gathered.truth.value),
        asked=escape(gathered.asked),
        searched=f"{len(gathered.scene.new_documents):,}",
        adapter=escape(found.adapter.card.method),
        pairs=f"{found.adapter.card.pairs.count:,}",
        caution=escape(_CAUTIONS[gathered.truth]),
    )


def _weights(chosen: Sequence[Chosen]) -> str:
    """The section on weights, where there are any."""
    if not chosen:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in weight_cells(one)) for one in chosen)
    rows = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f"<section><h2>How much each model should count on the way</h2><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table><p><small>{escape(NOTE)}</small></p></section>"
    )


def _row(one: Standing) -> str:
    first, *others = cells(one)
    name = f'<td><b style="color:{_COLOURS[one.strategy]}">{escape(first)}</b><br><small>{_WHAT[one.strategy]}</small>'
    return f"<tr>{name}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in others)}</tr>"


_CAUTIONS = {
    Truth.JUDGED: "People judged these answers: this is the truth to decide by.",
    Truth.KNOWN_ITEMS: "Nobody judged these answers. Opening words are easier than real questions, and closer to the "
    "text: judged queries of your own decide better.",
    Truth.NEIGHBOURS: "The oracle is right by definition here: these figures say how near each strategy comes to the "
    "new model, not whether the new model is better.",
}


def _draw_rows(table: Sequence[Standing]) -> str:
    """Each strategy's figure with its interval, as SVG; of crossfade, the share of one half."""
    shown = [one for one in table if one.strategy not in (CROSSFADE, LEGACY) or one.migrated == 0.5]
    shown.sort(key=lambda one: (one.migrated, list(_COLOURS).index(one.strategy)))
    pyplot = load_pyplot()
    figure, axis = pyplot.subplots(figsize=(8.6, 0.7 + 0.52 * len(shown)))
    for at, one in enumerate(reversed(shown)):
        colour = _COLOURS[one.strategy]
        axis.plot([one.low, one.high], [at, at], color=colour, linewidth=9, alpha=0.22, solid_capstyle="round")
        axis.plot(one.ndcg10, at, "o", color=colour, markersize=9, markeredgecolor="white", markeredgewidth=1.4)
        axis.annotate(
            f"{one.ndcg10:.3f}", (max(one.high, one.ndcg10), at), xytext=(11, 0), textcoords="offset points",
            va="center", fontsize=10, color=colour, fontweight="bold",
        )  # fmt: skip
        if one.strategy == STATUS_QUO:
            axis.axvline(one.ndcg10, color=colour, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
    labels = [f"{one.strategy} (half)" if one.migrated == 0.5 else one.strategy for one in reversed(shown)]
    axis.set_yticks(range(len(shown)), labels, fontsize=10)
    axis.set_ylim(-0.7, len(shown) - 0.3)
    axis.set_xlim(0, max(one.high for one in shown) * 1.14)
    axis.set_xlabel("nDCG@10; bars: 95 % bootstrap over queries", fontsize=9, color="#6b7280")
    return _to_svg(figure, axis)


def _draw_curves(table: Sequence[Standing], chosen: Sequence[Chosen]) -> str:
    """nDCG@10 on the way from nothing to everything re-encoded, as SVG; dotted: with the weights that were chosen."""
    pyplot = load_pyplot()
    figure, axis = pyplot.subplots(figsize=(8.6, 3.9))
    named = {one.strategy: one for one in table}
    oracle = named[ORACLE]
    ways = {name: [one for one in table if one.strategy == name] for name in (CROSSFADE, LEGACY)}
    ways[CROSSFADE].insert(0, named[ADAPTED])
    for name, found in ways.items():
        if not found:
            continue
        points = [*found, oracle]
        x = [100 * one.migrated for one in points]
        axis.fill_between(x, [one.low for one in points], [one.high for one in points], color=_COLOURS[name], alpha=0.1)
        axis.plot(x, [one.ndcg10 for one in points], "-o", color=_COLOURS[name], linewidth=2.2, markersize=5.5,
                  markeredgecolor="white", label=name if name == LEGACY else "crossfade, mapped queries")  # fmt: skip
    for name, asked in ((CROSSFADE, "vectors"), (LEGACY, "texts")):
        if chosen and ways[name]:
            gains = [one.vectors_gain if name == CROSSFADE else one.texts_gain for one in chosen]
            y = [one.ndcg10 + gain for one, gain in zip(ways[CROSSFADE], gains, strict=True)]
            x = [100 * one.migrated for one in chosen]
            axis.plot(x, y, ":", color=_COLOURS[name], linewidth=2.4, label=f"auto with this verdict, {asked}")
    for name in (STATUS_QUO, ORACLE):
        if name in named:
            axis.axhline(named[name].ndcg10, color=_COLOURS[name], linewidth=1.3, linestyle=(0, (3, 3)), label=name)
    axis.set_xlabel("share of the collection re-encoded (%)", fontsize=9, color="#6b7280")
    axis.set_ylabel("nDCG@10", fontsize=9, color="#6b7280")
    axis.set_xlim(-2, 102)
    axis.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return _to_svg(figure, axis)


def _to_svg(figure: Any, axis: Any) -> str:
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color("#d1d5db")
    axis.grid(color="#eef0f3", linewidth=0.9)
    axis.set_axisbelow(True)
    axis.tick_params(length=0, colors="#374151")
    figure.tight_layout()
    written = StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    load_pyplot().close(figure)
    return written.getvalue()[written.getvalue().index("<svg") :]


_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Crossfade probe: $title</title>
<style>
body { font: 16px/1.55 system-ui, "Segoe UI", sans-serif; color: #1f2937; background: #f3f4f6; margin: 0; }
main { max-width: 960px; margin: 0 auto; padding: 32px 20px 64px; }
section { background: #fff; border-radius: 12px; padding: 20px 26px; margin-top: 18px; }
section { box-shadow: 0 1px 3px #0000001a; }
.verdict { background: $tone; color: #fff; }
.verdict h1 { font-size: 1.75rem; margin: 0 0 6px; line-height: 1.25; }
.verdict p { margin: 0 0 8px; opacity: .85; }
h2 { font-size: 1.08rem; margin: 0 0 10px; }
svg { width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th { text-align: left; color: #6b7280; font-weight: 600; border-bottom: 2px solid #e5e7eb; padding: 6px 8px; }
td { border-bottom: 1px solid #eef0f3; padding: 6px 8px; vertical-align: top; }
small { color: #6b7280; }
</style></head><body><main>
<section class="verdict"><p>$title</p><h1>$verdict</h1><ul>$reasons</ul></section>
<section><h2>What each strategy gives</h2>$dots</section>
<section><h2>On the way: quality while the collection is re-encoded</h2>$curves</section>
<section><h2>Figures</h2><table><thead><tr>$head</tr></thead><tbody>$rows</tbody></table></section>
$weights
<section><h2>Costs</h2><ul>$costs</ul></section>
<section><h2>How this was measured</h2><ul>
<li>Truth: $truth. Asked: $asked. $caution</li>
<li>$searched documents, searched exactly by cosine. Intervals: 95 % bootstrap over queries; p of the paired bootstrap
against the status quo. nDCG@10 with linear gains, as trec_eval computes it.</li>
<li>Adapter: $adapter, fitted on $pairs pairs; half migrated it has learnt from what is re-encoded too, as a migration
has it.</li>
<li>Half-migrated figures: documents re-encoded in random order, both parts searched and ranked by both models' scores,
with the weights that are usual without a verdict.</li>
</ul></section>
</main></body></html>
""")
