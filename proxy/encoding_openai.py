"""Encoders with OpenAI's embeddings API, by the openai package: its connections, retries and pauses, not our own."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI, Omit, OpenAIError, omit

from .config_models import OpenAIEncoder
from .errors import EncoderFailed

_FORMAT_REFUSED = {400, 415, 422, 501}  # what servers without base64 answer to it


class UnusableAnswer(ValueError):
    """An answer with status 200 that holds no vectors for the texts asked."""


class OpenAIRaw:
    """One model at one endpoint."""

    def __init__(self, name: str, settings: OpenAIEncoder) -> None:
        self.endpoint = f"{settings.base_url} (model {settings.model})"
        self._name, self._settings = name, settings
        self._format = settings.encoding_format
        key = settings.api_key.get_secret_value() if settings.api_key else ""
        self._headers: dict[str, str | Omit] = {} if key else {"Authorization": omit}
        self._client = AsyncOpenAI(
            base_url=settings.base_url,
            api_key=key or "none",  # never the OPENAI_API_KEY of the environment, which belongs to another endpoint
            timeout=settings.timeout,
            max_retries=settings.max_retries,
        )

    async def vectors(self, texts: list[str], role: str) -> NDArray[np.generic]:
        """Vectors (n, dim) of one batch; `role` is told by the prefix alone. Raises EncoderFailed."""
        try:
            return await self._ask(texts)
        except APITimeoutError as error:
            reason = f"no answer within {self._settings.timeout:g} s, {self._settings.max_retries + 1} tries"
            raise self._failed(reason) from error
        except APIConnectionError as error:
            raise self._failed(f"cannot be reached: {error.__cause__ or error}") from error
        except APIStatusError as error:
            raise self._failed(_message(error), error.status_code) from error
        except (UnusableAnswer, OpenAIError) as error:
            raise self._failed(str(error)) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask(self, texts: list[str]) -> NDArray[np.generic]:
        """Ask in the configured format; `auto` settles on float once base64 was refused and float was not."""
        if self._format != "auto":
            return await self._create(texts, self._format)
        try:
            return await self._create(texts, "base64")
        except APIStatusError as error:
            if error.status_code not in _FORMAT_REFUSED:
                raise
        except UnusableAnswer:
            pass  # some servers answer 200 without data to a format they do not know
        rows = await self._create(texts, "float")
        self._format = "float"
        return rows

    async def _create(self, texts: list[str], encoding_format: str) -> NDArray[np.generic]:
        answer = await self._client.embeddings.create(
            input=texts,
            model=self._settings.model,
            dimensions=self._settings.dimensions or omit,
            encoding_format="base64" if encoding_format == "base64" else "float",
            extra_headers=self._headers,
        )
        return _rows(answer.data, len(texts))

    def _failed(self, reason: str, status: int | None = None) -> EncoderFailed:
        return EncoderFailed(model=self._name, endpoint=self.endpoint, reason=reason, status=status)


def _rows(data: Any, count: int) -> NDArray[np.generic]:
    """The vectors in the order of the texts: by `index`, which a server may answer in any order."""
    if not isinstance(data, list) or len(data) != count:
        found = len(data) if isinstance(data, list) else "no"
        raise UnusableAnswer(f"answered {found} vectors for {count} texts")
    if sorted(entry.index for entry in data) != list(range(count)):
        raise UnusableAnswer(f"answered indices that are not 0 to {count - 1}, each once")
    rows = [_vector(entry.embedding) for entry in sorted(data, key=lambda entry: entry.index)]
    lengths = {len(row) for row in rows}
    if len(lengths) != 1:
        raise UnusableAnswer(f"answered vectors of different lengths: {', '.join(map(str, sorted(lengths)))}")
    return np.stack(rows)


def _vector(embedding: Any) -> NDArray[np.generic]:
    """A vector as base64 of little-endian float32, or as numbers, whichever was asked: some servers know only one."""
    try:
        if isinstance(embedding, str):
            return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
        return np.asarray(embedding, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UnusableAnswer(f"answered a vector that cannot be read: {error}") from error


def _message(error: APIStatusError) -> str:
    """What the server said, without the package's own preamble."""
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("error") or body.get("detail") or body
    return str(body)[:500] if body else error.response.reason_phrase
