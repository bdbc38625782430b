"""The one place where Qdrant's shard engine is imported.

Its type stubs disagree with the module in several places (fusion constructors, slices and prefix matches are missing,
required arguments are called optional), so the engine is taken as untyped here and every file that speaks to it
imports `edge` from this one.
"""

from __future__ import annotations

import importlib
from typing import Any


def load_engine() -> Any:
    """The module `qdrant_edge`; raises ImportError saying how to install it."""
    try:
        return importlib.import_module("qdrant_edge")
    except ModuleNotFoundError as error:
        raise ImportError("The embedded Qdrant needs qdrant-edge-py: pip install 'crossfade[embedded]'") from error


edge: Any = load_engine()
