"""The compiled part (kernel/), where a C compiler was there at installation; numpy takes its place elsewhere."""

from __future__ import annotations

from types import ModuleType

try:
    from . import _kernel

    compiled: ModuleType | None = _kernel
except ImportError:
    compiled = None
