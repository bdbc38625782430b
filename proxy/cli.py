"""The command line, `crossfade VERB`: verbs stand in a `cli_*` file a group, and import what they need when they run.

Exit codes: 0 done, 1 it could not be done (one clear line on standard error), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from .cli_apply import apply
from .cli_check import check, schema
from .cli_demo import demo
from .cli_evaluate import evaluate
from .cli_fit import fit
from .cli_migrate import migrate
from .cli_probe import probe
from .cli_serve import embedded_qdrant, serve

app = typer.Typer(
    name="crossfade",
    help="Change the embedding model behind a vector database without an outage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
embedded = typer.Typer(help="Run a database that needs no server.", no_args_is_help=True)
app.command()(check)
app.command()(serve)
app.command()(fit)
app.command()(evaluate)
app.command()(probe)
app.command()(apply)
app.command()(schema)
app.command()(demo)
embedded.command("qdrant")(embedded_qdrant)
app.add_typer(migrate, name="migrate")
app.add_typer(embedded, name="embedded")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"crossfade {version('crossfade')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before the verb."""


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        app(prog_name="crossfade")  # also when it was started as a module
    except BrokenPipeError:  # the reader of a pipe has gone, as `| head` does: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        message = _explained(error)
        if message is None:
            raise
        typer.echo(f"crossfade: {message}", err=True)
        sys.exit(1)


def _explained(error: Exception) -> str | None:
    """The message of an error that says itself what is wrong; None for what is a defect and needs its traceback."""
    from crossfade.adapters.base import AdapterError
    from crossfade.backends.index import IndexRefusedError

    from .errors import CrossfadeError

    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) if isinstance(error, CrossfadeError | AdapterError | IndexRefusedError | OSError) else None
