"""`crossfade migrate`: what an operator says to a migration, over the admin listener of a running `crossfade serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .admin_client import AdminClient

migrate = typer.Typer(help="Re-encode a collection with another model while it serves.", no_args_is_help=True)

Collection = Annotated[str, typer.Argument(help="The collection, by the name clients use.", show_default=False)]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="The configuration that is served; says where its admin listener is.")
]
Admin = Annotated[
    str | None,
    typer.Option(
        envvar="CROSSFADE_ADMIN", help="URL of the admin listener; default: the file's, else http://127.0.0.1:6380."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")]
Reason = Annotated[str, typer.Option(help="Why, for the history.")]
Watch = Annotated[bool, typer.Option("--watch", help="Show progress until the state is reached, or Ctrl-C.")]
Force = Annotated[bool, typer.Option("--force", help="Pass closed gates; the history tells which.")]


def _ask(config: Path | None, admin: str | None) -> AdminClient:
    from .admin_client import AdminClient, find_admin

    return AdminClient(find_admin(config, admin))


def _say(
    client: AdminClient, collection: str, verb: str, *, as_json: bool, dry_run: bool, reason: str, **body: Any
) -> Any:
    record = client.say(collection, verb, {"reason": reason, "dry_run": dry_run, **body})
    if as_json:
        from .cli_output import print_json

        print_json(record)
    else:
        from .cli_migrate_show import show_said

        show_said(verb, record, None if dry_run else client.get(collection))
    return record


@migrate.command()
def plan(
    collection: Collection,
    config: ConfigFile = None,
    admin: Admin = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="Price of a million tokens, for the cost.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what the configured migration would mean; nothing is touched. Works without a running serve."""
    from .cli_migrate_plan import look

    found = look(collection, config, admin, price)
    if as_json:
        from .cli_output import print_json

        print_json(found)
    else:
        from .cli_migrate_show import show_plan

        show_plan(found)


@migrate.command()
def start(
    collection: Collection,
    config: ConfigFile = None,
    admin: Admin = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    watch: Watch = False,
) -> None:
    """Begin: make the target, capture writes, re-encode everything."""
    client = _ask(config, admin)
    _say(client, collection, "start", as_json=as_json, dry_run=dry_run, reason=reason)
    if watch and not dry_run:
        _watch(client, collection)


@migrate.command()
def status(
    collection: Annotated[str | None, typer.Argument(help="Default: every collection.", show_default=False)] = None,
    config: ConfigFile = None,
    admin: Admin = None,
    as_json: AsJson = False,
    watch: Watch = False,
) -> None:
    """Show how a migration stands, what it waits for, and what can be said next."""
    from .cli_migrate_show import show_status
    from .cli_output import print_json

    client = _ask(config, admin)
    if watch and collection is not None:
        from .cli_migrate_watch import watch_on

        watch_on(client, collection)
        return
    found = client.get() if collection is None else [client.get(collection)]
    if as_json:
        print_json(found if collection is None else found[0])
        return
    if not found:
        typer.echo("no migration; add collections.NAME.migrate to the configuration, then: crossfade migrate plan NAME")
    for one in found:
        show_status(one)


@migrate.command()
def pause(
    collection: Collection,
    config: ConfigFile = None,
    admin: Admin = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Stop copying; writes are captured and brought over all the same."""
    _say(_ask(config, admin), collection, "pause", as_json=as_json, dry_run=dry_run, reason=reason)


@migrate.command()
def resume(
    collection: Collection,
    config: ConfigFile = None,
    admin: Admin = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    watch: Watch = False,
) -> None:
    """Go on after a pause, or where a failure has stopped it."""
    client = _ask(config, admin)
    _say(client, collection, "resume", as_json=as_json, dry_run=dry_run, reason=reason)
    if watch and not dry_run:
        _watch(client, collection)


@migrate.command("set")
def set_limits(
    collection: Collection,
    limits: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE...",
            help="engine, workers, rate, hours, flag_file, latency_ms, max_tokens, batch_seconds, strategy; "
            "KEY=none takes a limit away.",
            show_default=False,
        ),
    ],
    config: ConfigFile = None,
    admin: Admin = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Change limits or the strategy while it runs, such as: set docs rate=200 hours=22:00-06:00."""
    from .cli_migrate_plan import read_limits

    body = read_limits(limits)
    _say(_ask(config, admin), collection, "set", as_json=as_json, dry_run=dry_run, reason=reason, **body)


@migrate.command()
def shadow(
    collection: Collection,
    percent: Annotated[float, typer.Argument(min=0, max=100, help="Of a hundred queries.", show_default=False)],
    config: ConfigFile = None,
    admin: Admin = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send a share of queries to the new index as well, after their answer has gone, and compare."""
    _say(_ask(config, admin), collection, "shadow", as_json=as_json, dry_run=dry_run, reason=reason, percent=percent)


@migrate.command()
def verify(
    collection: Collection,
    config: ConfigFile = None,
    admin: Admin = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    watch: Watch = False,
) -> None:
    """Compare every point of both collections, and encode a sample again."""
    client = _ask(config, admin)
    _say(client, collection, "verify", as_json=as_json, dry_run=dry_run, reason=reason)
    if watch and not dry_run:
        _watch(client, collection)


@migrate.command()
def switch(
    collection: Collection,
    percent: Annotated[float, typer.Option(min=0, max=100, help="Of a hundred clients; 0 is reverse.")] = 100.0,
    force: Force = False,
    config: ConfigFile = None,
    admin: Admin = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Have a share of reads, or all, answered by the new index."""
    body = {"percent": percent, "force": force}
    _say(_ask(config, admin), collection, "switch", as_json=as_json, dry_run=dry_run, reason=reason, **body)


@migrate.command()
def reverse(
    collection: Collection,
    config: ConfigFile = None,
    admin: Admin = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Have all reads answered by the old index again; it has every write."""
    _say(_ask(config, admin), collection, "reverse", as_json=as_json, dry_run=dry_run, reason=reason)


@migrate.command()
def complete(
    collection: Collection,
    drop_old: Annotated[
        bool,
        typer.Option("--drop-old", help="Destroy the old collection, and make its name an alias of the new one."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Also while clients of the old model still ask.")] = False,
    config: ConfigFile = None,
    admin: Admin = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    watch: Watch = False,
) -> None:
    """Leave the old index behind: there is no way back. It stays as it is, unless --drop-old."""
    client = _ask(config, admin)
    late = drop_old and client.get(collection)["state"] == "COMPLETED"
    verb, body = ("drop-old", {}) if late else ("complete", {"drop_old": drop_old, "force": force})
    _say(client, collection, verb, as_json=as_json, dry_run=dry_run, reason=reason, **body)
    if watch and not dry_run:
        _watch(client, collection)


@migrate.command()
def cancel(
    collection: Collection,
    config: ConfigFile = None,
    admin: Admin = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give up: the new collection is destroyed if this migration made it; the old one is as it always was."""
    _say(_ask(config, admin), collection, "cancel", as_json=as_json, dry_run=dry_run, reason=reason)


@migrate.command()
def repair(
    collection: Collection,
    config: ConfigFile = None,
    admin: Admin = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Bring over again what the last verification found."""
    _say(_ask(config, admin), collection, "repair", as_json=as_json, dry_run=dry_run, reason=reason)


@migrate.command()
def history(collection: Collection, config: ConfigFile = None, admin: Admin = None, as_json: AsJson = False) -> None:
    """Show every step with time, actor and reason."""
    from .cli_migrate_show import show_history
    from .cli_output import print_json

    found = _ask(config, admin).get(collection, "history")
    print_json(found) if as_json else show_history(found)


@migrate.command("dead-letters")
def dead_letters(
    collection: Collection, config: ConfigFile = None, admin: Admin = None, as_json: AsJson = False
) -> None:
    """Show the points that have no new vector, and why."""
    from .cli_migrate_show import show_dead_letters
    from .cli_output import print_json

    found = _ask(config, admin).get(collection, "dead-letters")
    print_json(found) if as_json else show_dead_letters(found)


def _watch(client: AdminClient, collection: str) -> None:
    from .cli_migrate_watch import watch_until_rest

    watch_until_rest(client, collection)
