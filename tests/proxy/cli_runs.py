"""Running the command line in this process, as its entry point runs it, and adapters to run it on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from crossfade.adapters.base import Adapter, Card, PairsCard
from crossfade.adapters.linear import fit_procrustes
from crossfade.adapters.store import save_adapter
from crossfade.adapters.vectors import normalise_rows
from crossfade.proxy.cli import main


@dataclass(frozen=True)
class Ran:
    """What a run of the command line left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def make_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs `crossfade WORDS...`."""

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["crossfade", *(str(word) for word in words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


def unit_rows(count: int, dim: int, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return normalise_rows(rows)


def write_adapter(path: Path, *, source: str = "new", target: str = "old", dims: tuple[int, int] = (6, 4)) -> Adapter:
    """Fit a small real adapter and save it."""
    first, second = unit_rows(200, dims[0], 1), unit_rows(200, dims[1], 2)
    there, back = fit_procrustes(first, second), fit_procrustes(second, first)
    card = Card(source, target, *dims, method="procrustes", pairs=PairsCard(200, "random"))
    adapter = Adapter(card, there, there, back)
    save_adapter(adapter, path)
    return adapter
