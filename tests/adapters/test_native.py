"""A compiled part that was built before the sources changed is left aside, not called with what it does not take."""

import sys
from types import ModuleType

import pytest

import crossfade.adapters
from crossfade.adapters.native import CALLS, load_kernel


@pytest.mark.parametrize("calls", [None, CALLS - 1, CALLS])
def test_only_a_kernel_of_these_sources_is_taken(monkeypatch: pytest.MonkeyPatch, calls: int | None) -> None:
    kernel = ModuleType("crossfade.adapters._kernel")
    kernel.__file__ = "_kernel.so"
    if calls is not None:
        kernel.CALLS = calls  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "crossfade.adapters._kernel", kernel)
    monkeypatch.setattr(crossfade.adapters, "_kernel", kernel, raising=False)
    if calls == CALLS:
        assert load_kernel() is kernel
    else:
        with pytest.warns(RuntimeWarning, match="built from other sources"):
            assert load_kernel() is None
