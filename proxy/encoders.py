"""Text into vectors: one interface over every encoder, with prefixes, batches, a cache and checks around it.

`build_encoder` wraps what a model's configuration names (`encoding_openai`, `encoding_local`) in a ModelEncoder. The
raw encoders below it see batches of prefixed texts and nothing else.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .config_models import Model, OpenAIEncoder, PythonEncoder
from .errors import EncoderFailed, EncoderMissing

Float32: TypeAlias = NDArray[np.float32]
Role: TypeAlias = Literal["query", "passage"]
_Key: TypeAlias = tuple[str, str]


class Encoder(Protocol):
    """Anything that turns texts into one model's vectors."""

    @property
    def batch_size(self) -> int:
        """How many texts it encodes in one call."""
        ...

    async def encode(self, texts: Sequence[str], role: Role) -> Float32:
        """Vectors (n, dim) of n texts, in their order. Raises EncoderFailed."""
        ...

    async def close(self) -> None:
        """Give back connections and threads."""
        ...


class RawEncoder(Protocol):
    """One way to reach a model; `endpoint` names it in messages."""

    endpoint: str

    async def vectors(self, texts: list[str], role: Role) -> NDArray[np.generic]:
        """Vectors (n, dim) of one batch, in its order. Raises EncoderFailed; shape and values are checked by others."""
        ...

    async def close(self) -> None: ...


def build_encoder(name: str, model: Model, *, background: bool = False) -> ModelEncoder:
    """The encoder a model's configuration names; one for background work leaves the processor to others.

    Raises EncoderMissing when it names none, when a package is not installed, or when a function cannot be imported.
    """
    if model.encoder is None:
        raise EncoderMissing(model=name)
    return ModelEncoder(name, model, _raw_encoder(name, model, background))


def _raw_encoder(name: str, model: Model, background: bool) -> RawEncoder:
    """Imports only the module that is needed: the openai package alone costs a worker tens of megabytes."""
    assert model.encoder is not None
    chosen = model.encoder.chosen
    if isinstance(chosen, OpenAIEncoder):
        from .encoding_openai import OpenAIRaw

        return OpenAIRaw(name, chosen)
    from .encoding_local import FunctionRaw, SentenceTransformersRaw

    if isinstance(chosen, PythonEncoder):
        return FunctionRaw(name, chosen, background=background)
    return SentenceTransformersRaw(name, chosen, background=background)


class ModelEncoder:
    """A raw encoder as the rest of Crossfade uses it.

    Texts get the model's prefix and are encoded in batches, at most `concurrency` at a time, each text once however
    often it is asked for: from the cache when it is there, together with whoever asked first when it is under way.
    A caller that goes away does not take the computation from the others.
    """

    def __init__(self, name: str, model: Model, raw: RawEncoder) -> None:
        assert model.encoder is not None
        self.name, self.dim, self.endpoint = name, model.dim, raw.endpoint
        self._raw, self._model = raw, model
        self.batch_size = model.encoder.chosen.batch_size
        self._turns = asyncio.Semaphore(model.encoder.chosen.concurrency)
        self._cache: OrderedDict[_Key, Float32] = OrderedDict()
        self._under_way: dict[_Key, tuple[asyncio.Task[Float32], int]] = {}

    async def encode(self, texts: Sequence[str], role: Role) -> Float32:
        """Vectors (n, dim) of n texts, in their order; (0, dim) for none. Raises EncoderFailed."""
        keys = [(role, text) for text in texts]
        ready = {key: self._cache[key] for key in keys if key in self._cache}
        for key in ready:
            self._cache.move_to_end(key)
        missing = list(dict.fromkeys(key for key in keys if key not in ready))
        self._start([key for key in missing if key not in self._under_way])
        waited = {key: self._under_way[key] for key in missing}
        tasks = list(dict.fromkeys(task for task, _ in waited.values()))
        await asyncio.gather(*(asyncio.shield(task) for task in tasks))
        ready |= {key: task.result()[row] for key, (task, row) in waited.items()}
        rows = np.empty((len(keys), self.dim), dtype=np.float32)
        for row, key in enumerate(keys):
            rows[row] = ready[key]
        return rows

    async def close(self) -> None:
        """Let what is under way finish (a reload must not fail the requests that wait for it), then close."""
        tasks = {task for task, _ in self._under_way.values()}
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._raw.close()

    def _start(self, keys: list[_Key]) -> None:
        for first in range(0, len(keys), self.batch_size):
            batch = keys[first : first + self.batch_size]
            task = asyncio.get_running_loop().create_task(self._encode_batch(batch))  # kept in _under_way till it ends
            self._under_way |= {key: (task, row) for row, key in enumerate(batch)}
            task.add_done_callback(partial(self._finish, batch))

    def _finish(self, batch: list[_Key], task: asyncio.Task[Float32]) -> None:
        for key in batch:
            del self._under_way[key]
        if task.cancelled() or task.exception() is not None:  # asking for the exception marks it as seen
            return
        if self._model.cache == 0:
            return
        for key, row in zip(batch, task.result(), strict=True):
            self._cache[key] = row.copy()  # a view would keep the whole batch alive
        while len(self._cache) > self._model.cache:
            self._cache.popitem(last=False)

    async def _encode_batch(self, batch: list[_Key]) -> Float32:
        prefixes = {"query": self._model.query_prefix, "passage": self._model.passage_prefix}
        texts = [prefixes[role] + text for role, text in batch]
        role: Role = "query" if batch[0][0] == "query" else "passage"
        async with self._turns:
            rows = await self._raw.vectors(texts, role)
        return self._checked(rows, len(batch))

    def _checked(self, rows: NDArray[np.generic], count: int) -> Float32:
        if rows.ndim != 2 or len(rows) != count:
            raise self._failed(f"answered an array of shape {rows.shape} for {count} texts")
        if rows.shape[1] != self.dim:
            raise self._failed(
                f"answered vectors of {rows.shape[1]} dimensions, but models.{self.name}.dim is {self.dim}; "
                "correct it, or name another model"
            )
        vectors = np.asarray(rows, dtype=np.float32)
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise self._failed(f"answered NaN or infinity for text {int(np.argmin(finite))} of {count}")
        return _unit_rows(vectors) if self._model.normalize else vectors

    def _failed(self, reason: str) -> EncoderFailed:
        return EncoderFailed(model=self.name, endpoint=self.endpoint, reason=reason)


def _unit_rows(vectors: Float32) -> Float32:
    """Rows scaled to length 1; a zero row, which has no direction, stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Float32 = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return units
