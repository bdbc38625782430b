"""`--watch`: a migration's progress as bars, from the admin listener's status."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from .admin_client import AdminClient
from .cli_migrate_show import headline, show_status, spell_span

_EVERY_SECONDS = 0.3
_OVER = ("COMPLETED", "CANCELLED", "FAILED")


def watch_until_rest(client: AdminClient, collection: str) -> None:
    """Show bars until nothing moves any more: copied, verified, switched, over or failed."""
    _watch(client, collection, _rests)


def watch_on(client: AdminClient, collection: str) -> None:
    """Show bars until it is over, or Ctrl-C."""
    _watch(client, collection, lambda one: one["state"] in _OVER and one["cleaned"])


def _rests(one: Any) -> bool:
    if one["state"] in _OVER:
        return one["state"] == "FAILED" or bool(one["cleaned"])
    still = one["verifying"] or one["completing"] or one["backlog"]["count"]
    return one["state"] in ("SYNCED", "CANARY", "SWITCHED") and not still


def _watch(client: AdminClient, collection: str, done: Callable[[Any], bool]) -> None:
    columns = (TextColumn("{task.description:<9}"), BarColumn(), TextColumn("{task.fields[told]}"))
    one = client.get(collection)
    with Progress(*columns, console=Console(stderr=True)) as progress:
        names = ("copied", "compared", "reads")
        bars = {name: progress.add_task(name, total=None, told="", visible=name == "copied") for name in names}
        while True:
            _draw(progress, bars, one)
            if done(one):
                break
            time.sleep(_EVERY_SECONDS)
            one = client.get(collection)
    show_status(one)


def _draw(progress: Progress, bars: dict[str, TaskID], one: Any) -> None:
    left = f", {spell_span(one['eta'])} left" if one["eta"] is not None else ""
    waits = f", waits: {one['throttled']}" if one["throttled"] else ""
    backlog = f", {one['backlog']['count']:,} written points wait" if one["backlog"]["count"] else ""
    told = f"{one['copied']:,} of {one['total']:,}{left}{backlog}{waits}; {headline(one)}"
    progress.update(bars["copied"], completed=one["copied"], total=one["total"] or None, told=told)
    progress.update(
        bars["compared"],
        completed=one["compared"],
        total=max(one["total"], one["compared"]) or None,
        told=f"{one['compared']:,} points of both",
        visible=one["verifying"],
    )
    served = 100.0 if one["state"] == "COMPLETED" else one["percent"]
    told = f"{served:g} % from {one['spec']['target']}"
    progress.update(bars["reads"], completed=served, total=100, told=told, visible=served > 0)
