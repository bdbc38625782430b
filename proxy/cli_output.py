"""How verbs speak: results on standard output, everything else on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from .errors import CrossfadeError


class UsageProblem(CrossfadeError):
    """What was asked for cannot be done as it was asked; the message says what to do instead."""


def print_json(data: Any) -> None:
    """Print data as indented JSON; numpy's arrays and numbers are understood, paths and the like go by their text."""
    import orjson  # numpy's types without a detour

    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    typer.echo(orjson.dumps(data, default=str, option=options).decode())


def print_table(columns: list[str], rows: list[list[str]], *, title: str | None = None) -> None:
    """Print rows of text under column names, wrapped to the terminal; in a pipe lines are as long as they need."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=240)
    table = Table(*columns, title=title, box=box.SIMPLE_HEAD, title_justify="left", show_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, fed with (done, in all)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def need_extra(extra: str, module: str) -> Iterator[None]:
    """Turn the failure to import an optional package into a sentence that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module:
            raise
        message = f'this needs the package {module}, which is not installed; pip install "crossfade[{extra}]"'
        raise UsageProblem(message) from error
