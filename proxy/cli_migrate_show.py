"""How `crossfade migrate` shows what the admin listener says."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .cli_output import print_table

Said = Mapping[str, Any]
_WIDE = 140


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def show_plan(plan: Said) -> None:
    """Print what a migration would mean."""
    spec = plan["spec"]
    cost = f", which cost {plan['cost']:,.2f}" if plan["cost"] is not None else ""
    sampled = f" (from a sample of {plan['sampled']:,})" if plan["sampled"] < plan["points"] else ""
    rows = {
        "collection": f"{spec['collection']} -> {spec['target']}"
        + (f", vector {spec['field']!r}" if spec["field"] else ""),
        "models": f"{spec['from_model']} -> {spec['to_model']} ({spec['dim']} dimensions)",
        "text": spec["text"],
        "points": f"{plan['points']:,}",
        "to encode": f"about {plan['tokens']:,} tokens{cost}{sampled}",
        "without text": f"about {plan['without_text']:,}; without vector about {plan['without_vector']:,}",
    }
    _print_rows("nothing has been touched", rows)
    for problem in plan["problems"]:
        _console().print(f"  [yellow]![/] {_escape(problem)}")
    _console().print(f"  begin with: crossfade migrate start {_escape(spec['collection'])}")


def show_said(verb: str, record: Said, status: Said | None) -> None:
    """Print what a verb did, or would do."""
    if status is None:
        told = f"{record['points']} points" if verb == "repair" else f"state {record['state']}"
        _console().print(f"{verb}: nothing changed (dry run); allowed, {told} at this moment")
        return
    if verb == "repair":
        _console().print(f"{record['points']} points are brought over again; say verify afterwards")
    show_status(status)


def show_status(one: Said) -> None:
    """Print how a migration stands."""
    _print_rows(f"{one['collection']}: {headline(one)}", dict(_rows(one)))


def headline(one: Said) -> str:
    """State and overlays in a line."""
    marks = [
        "starting" if one["state"] == "PLANNED" and one["started"] else "",
        "paused" if one["paused"] else "",
        "verifying" if one["verifying"] else "",
        "completing" if one["completing"] else "",
    ]
    return ", ".join([one["state"], *filter(None, marks)])


def _rows(one: Said) -> Sequence[tuple[str, str]]:
    spec, tally, backlog = one["spec"], one["tally"], one["backlog"]
    rows = [
        ("models", f"{spec['from_model']} -> {spec['to_model']}, into {spec['target']}"),
        ("copied", _copied(one)),
        ("backlog", _backlog(backlog)),
        ("reads", _reads(one)),
        ("verified", _verified(one)),
        ("adapter", f"fitted again on {one['refitted']:,} re-encoded points" if one["refitted"] else "as configured"),
        ("spend", f"{tally['encoded']:,} texts, about {tally['tokens']:,} tokens"),
    ]
    if one["dead_letters"]:
        rows.append(("dead", f"{one['dead_letters']:,} points without new vector: migrate dead-letters says why"))
    rows += [("failed", one["error"])] if one["error"] else []
    rows += [("waits", one["throttled"])] if one["throttled"] else []
    rows += [("goal", one["waits"].removeprefix("goal "))] if one["waits"] else []
    rows += [("stepped back", one["stepped_back"])] if one["stepped_back"] else []
    rows += [("gates", "; ".join(one["gates"]))] if one["gates"] else []
    rows.append(("next", ", ".join(one["verbs"]) or "nothing: it is over"))
    return rows


def _copied(one: Said) -> str:
    share = f"{one['copied']:,} of {one['total']:,} points" if one["total"] else "nothing yet"
    rate = f", {one['rate']:,.0f} a second" if one["rate"] and one["eta"] is not None else ""
    left = f", {spell_span(one['eta'])} left" if one["eta"] is not None else ""
    return share + rate + left


def _backlog(backlog: Said) -> str:
    if not backlog["count"]:
        return "none: the new index is in step"
    return f"{backlog['count']:,} written points, the oldest for {spell_span(backlog['age'])}"


def _reads(one: Said) -> str:
    shadow = f"; {one['shadow']:g} % shadowed" if one["shadow"] else ""
    served = 100 if one["state"] == "COMPLETED" else one["percent"]
    serving = one["serving"]
    ways = ", ".join(f"{count:,} {way}" for way, count in serving["reads"].items())
    lately = f"; lately {ways}" if ways else ""
    failed = f"; {serving['fallbacks']:,} fell back to the old index" if serving["fallbacks"] else ""
    agree = f"; overlap@10 {serving['overlap']:.2f}" if serving["overlap"] is not None else ""
    return f"{served:g} % from {one['spec']['target']}; strategy {one['strategy']}{lately}{failed}{shadow}{agree}"


def _verified(one: Said) -> str:
    if one["verified_at"] is None:
        return "never"
    found = ", ".join(f"{count} {kind}" for kind, count in one["findings"].items()) or "nothing found"
    return f"{spell_span(time.time() - one['verified_at'])} ago: {found}"


def spell_span(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 else f"{seconds / 86400:.0f} days"


def show_history(events: Sequence[Said]) -> None:
    """Print every step."""
    rows = [
        [
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["at"])),
            one["actor"],
            one["step"],
            one["target"] if one["source"] in ("", one["target"]) else f"{one['source']} -> {one['target']}",
            one["reason"],
        ]
        for one in events
    ]
    print_table(["time", "actor", "step", "state", "reason"], rows)


def show_dead_letters(found: Said) -> None:
    """Print the points without new vector."""
    shown = len(found["points"])
    title = f"{found['count']:,} points without new vector" + (f", {shown} shown" if shown < found["count"] else "")
    print_table(["point", "reason"], [[str(one["id"]), one["reason"]] for one in found["points"]], title=title)


def _print_rows(title: str, rows: Mapping[str, str]) -> None:
    table = Table(box=None, show_header=False, title=Text(title, "bold"), title_justify="left", pad_edge=False)
    table.add_column(style="bright_black")
    table.add_column()
    for name, value in rows.items():
        table.add_row(f"  {name}", _escape(str(value)))
    _console().print(table)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
