"""The compiled part (kernel/), where a C compiler was there at installation; numpy takes its place elsewhere."""

from __future__ import annotations

import warnings
from types import ModuleType

CALLS = 4  # what the functions of the kernel take, as kernel/module.c numbers it


def load_kernel() -> ModuleType | None:
    """The compiled part, or None; one that was built before these sources is left aside with a warning."""
    try:
        from . import _kernel
    except ImportError:
        return None
    if getattr(_kernel, "CALLS", 1) != CALLS:
        warnings.warn(
            f"{_kernel.__file__} was built from other sources and is not used: adapters are applied several times "
            "slower; build it again with `pip install --no-deps -e .`",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    kernel: ModuleType = _kernel
    return kernel


compiled = load_kernel()
