"""The ways in which compiled arithmetic is done: each has to give the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

from crossfade.adapters import native

WAYS = ("floats", "numpy", "plain", "avx2", "vnni")


@contextmanager
def computed(way: str, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have `module` compute by one of WAYS; "floats" is what takes values that are not in bytes. Skips what is not
    there."""
    if way == "numpy":
        monkeypatch.setattr(module, "compiled", None)
    if way in ("floats", "numpy"):
        yield
        return
    if native.compiled is None:
        pytest.skip("nothing was compiled: no C compiler at installation")
    before = native.compiled.instructions()
    try:
        native.compiled.instructions(way)
    except ValueError as error:
        pytest.skip(str(error))
    try:
        yield
    finally:
        native.compiled.instructions(before)
