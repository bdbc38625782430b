"""Encoders that run in this process: sentence-transformers models, and your own Python function."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config_models import PythonEncoder, SentenceTransformersEncoder
from .errors import EncoderFailed, EncoderMissing

_NICE = 10


class SentenceTransformersRaw:
    """A sentence-transformers model, loaded at its first text, run in threads of its own."""

    def __init__(self, name: str, settings: SentenceTransformersEncoder, *, background: bool = False) -> None:
        if importlib.util.find_spec("sentence_transformers") is None:
            reason = 'the package sentence-transformers is not installed; pip install "crossfade[encoders]"'
            raise EncoderMissing(model=name, reason=reason)
        self.endpoint = f"sentence-transformers {settings.model}"
        self._name, self._settings = name, settings
        self._loading, self._loaded = threading.Lock(), None
        self._threads = _start_threads(name, settings.concurrency, background)

    async def vectors(self, texts: list[str], role: str) -> NDArray[np.generic]:
        """Vectors (n, dim) of one batch. Raises EncoderFailed, also when the model cannot be loaded."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._encode, texts)
        except Exception as error:  # whatever torch or the hub raises, it is this model that failed
            raise EncoderFailed(model=self._name, endpoint=self.endpoint, reason=_reason(error)) from error

    async def close(self) -> None:
        """Let the threads end after what they are doing."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _encode(self, texts: list[str]) -> NDArray[np.generic]:
        rows = self._model().encode(
            texts, batch_size=len(texts), convert_to_numpy=True, show_progress_bar=False, normalize_embeddings=False
        )
        return np.asarray(rows)

    def _model(self) -> Any:
        with self._loading:
            if self._loaded is None:
                from sentence_transformers import SentenceTransformer  # brings torch: only where it is used

                self._loaded = SentenceTransformer(self._settings.model, device=self._settings.device)
            return self._loaded


class FunctionRaw:
    """Your own f(texts: list[str], role: str) -> array (n, dim); a plain function runs in threads of its own."""

    def __init__(self, name: str, settings: PythonEncoder, *, background: bool = False) -> None:
        self.endpoint = settings.function
        self._name = name
        self._function = _import_function(name, settings.function)
        self._threads = _start_threads(name, settings.concurrency, background)

    async def vectors(self, texts: list[str], role: str) -> NDArray[np.generic]:
        """Vectors (n, dim) of one batch. Raises EncoderFailed with what the function raised."""
        try:
            if inspect.iscoroutinefunction(self._function):
                return np.asarray(await self._function(texts, role))
            rows = await asyncio.get_running_loop().run_in_executor(self._threads, self._function, texts, role)
            return np.asarray(await rows if inspect.isawaitable(rows) else rows)
        except Exception as error:  # the function is the operator's: anything it raises is told with its name
            raise EncoderFailed(model=self._name, endpoint=self.endpoint, reason=_reason(error)) from error

    async def close(self) -> None:
        """Let the threads end after what they are doing."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _start_threads(name: str, count: int, background: bool) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        count, thread_name_prefix=f"encode-{name}", initializer=_step_back if background else None
    )


def _step_back() -> None:
    """Leave the processor to those who serve; on Linux a priority is a thread's own, and that of threads it starts."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _import_function(name: str, place: str) -> Callable[..., Any]:
    module, _, path = place.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:  # an import runs the operator's code, which may raise anything
        reason = f"{place} cannot be imported: {_reason(error)}; is its folder on PYTHONPATH?"
        raise EncoderMissing(model=name, reason=reason) from error
    if not callable(found):
        raise EncoderMissing(model=name, reason=f"{place} is {type(found).__name__}, which cannot be called")
    return found  # type: ignore[no-any-return] # getattr of a module the type checker has never seen


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
