"""The compiled part: Envoy's filter of the fast path (`filter/`), where it could be built and is not switched off."""

from __future__ import annotations

import os
from types import ModuleType

OFF = "CROSSFADE_FULL_ROUTE"  # an environment variable: when it is set, every request takes the full route


def load_filter() -> ModuleType | None:
    """The filter as Python sees it; None where no C compiler was there at installation, or it is switched off."""
    if os.environ.get(OFF):
        return None
    try:
        from . import _filter
    except ImportError:
        return None
    return _filter


def why_full() -> str | None:
    """Why every request takes the full route; None: most need not."""
    if load_filter() is not None:
        return None
    if os.environ.get(OFF):
        return f"{OFF} is set"
    return "the filter was not built; install a C compiler (Debian, Ubuntu: gcc), then Crossfade again"


def filter_module() -> str | None:
    """Path of the dynamic module with the filter, if there is one."""
    loaded = load_filter()
    return None if loaded is None else loaded.__file__
