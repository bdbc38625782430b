"""How the demo shows that it is at work: a bar or a spinner while a step runs, and a line that stays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .demo_ask import Advance

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stage:
    """The console, and steps on it."""

    console: Console

    @property
    def _live(self) -> bool:
        return self.console.is_terminal

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Advance]:
        """Show the progress of a step; what is given must be told how much more was done."""
        columns = (TextColumn("  {task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
        started = time.perf_counter()
        with Progress(*columns, console=self.console, transient=True, disable=not self._live) as progress:
            task = progress.add_task(title, total=total)
            yield lambda done: progress.advance(task, done)
        self.done(title, started)

    def run(self, title: str, work: Callable[[], T]) -> T:
        """Do a step that has nothing to count."""
        started = time.perf_counter()
        with self.console.status(title) if self._live else nullcontext():
            result = work()
        self.done(title, started)
        return result

    def done(self, title: str, started: float) -> None:
        """Leave a line for a step that began at a time of perf_counter."""
        seconds = time.perf_counter() - started
        self.console.print(f"  [green]✓[/] {title}  [bright_black]{seconds:.1f} s[/]", highlight=False)
