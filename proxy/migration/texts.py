"""Texts into vectors where some texts cannot be encoded: the encoder that is down is told from the text at fault."""

from __future__ import annotations

import math
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from crossfade.backends.dialect import Float32

from ..encoders import Encoder
from ..errors import EncoderFailed


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """For each text its vector (dim,), or why it has none."""

    vectors: Sequence[Float32 | None]
    refused: Sequence[str | None]


class TextMemory:
    """Vectors of the texts that were encoded last, for writes that change a point and not its text."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, Float32] = OrderedDict()

    def recall(self, text: str) -> Float32 | None:
        """The vector (dim,) of a text, if it is kept."""
        key = _key(text)
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, text: str, vector: Float32) -> None:
        """Keep the vector of a text; the one that was asked for longest ago goes."""
        self._kept[_key(text)] = vector.copy()  # a view would keep its whole batch
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def forget(self) -> None:
        """Keep none: the encoder has turned out to give other vectors now."""
        self._kept.clear()


def _key(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def count_tokens(text: str) -> int:
    """An estimate, for the spend: four bytes of UTF-8 a token."""
    return math.ceil(len(text.encode()) / 4)


async def encode_texts(encoder: Encoder, texts: Sequence[str]) -> Encoded:
    """Encode documents. Raises EncoderFailed when the encoder takes no text at all.

    A batch that fails is halved until the texts at fault stand alone; whether it is a text's fault is asked with
    another text, which nobody has sent before and no cache holds.
    """
    if not texts:
        return Encoded([], [])
    try:
        rows = await encoder.encode(texts, "passage")
        return Encoded(list(rows), [None] * len(texts))
    except EncoderFailed as error:
        await encoder.encode([f"is the encoder there? {uuid.uuid4().hex}"], "passage")
        if len(texts) == 1:
            return Encoded([None], [str(error)])
    middle = len(texts) // 2
    left, right = await encode_texts(encoder, texts[:middle]), await encode_texts(encoder, texts[middle:])
    return Encoded([*left.vectors, *right.vectors], [*left.refused, *right.refused])
