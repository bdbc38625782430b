"""The sections of embedding models and their encoders."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from .config_section import Name, Secret, Section, written
from .config_values import PositiveSeconds


class EncoderSection(Section):
    """What every encoder can be told."""

    batch_size: int = Field(default=64, ge=1)
    """Texts in one call of the encoder."""
    concurrency: int = Field(default=4, ge=1)
    """Calls of the encoder at the same time; more wait their turn."""


class OpenAIEncoder(EncoderSection):
    """Any endpoint with OpenAI's embeddings API: OpenAI, Text Embeddings Inference, vLLM, Ollama."""

    base_url: Annotated[str, StringConstraints(pattern=r"^https?://")]
    """URL up to and including /v1."""
    model: Name
    """Name of the model at the endpoint."""
    api_key: Secret = None
    """Key sent as a bearer token; left out for endpoints that need none."""
    dimensions: int | None = Field(default=None, ge=1)
    """Asks the endpoint for shortened vectors; models that cannot do it refuse."""
    timeout: PositiveSeconds = written("30s")
    """How long one call may take."""
    max_retries: int = Field(default=4, ge=0)
    """Further tries after a lost connection, a timeout, 408, 409, 429 or 5xx, with growing pauses."""
    encoding_format: Literal["auto", "base64", "float"] = "auto"
    """How vectors travel; auto asks for base64 and falls back to float where an endpoint refuses it."""


class SentenceTransformersEncoder(EncoderSection):
    """A model run in the proxy's own process by the sentence-transformers package (extra `encoders`)."""

    model: Name
    """Model name or folder, as SentenceTransformer takes it."""
    device: Name | None = None
    """cpu, cuda, mps; default: what sentence-transformers chooses."""
    concurrency: int = Field(default=1, ge=1)
    """Calls of the model at the same time; more wait their turn."""


class PythonEncoder(EncoderSection):
    """Your own function f(texts: list[str], role: str) -> array (n, dim), plain or async."""

    function: Annotated[str, StringConstraints(pattern=r"^[\w.]+:[\w.]+$")]
    """Where it is: "module:function", importable by the proxy."""


def _function_section(value: Any) -> Any:
    return {"function": value} if isinstance(value, str) else value


class EncoderChoice(Section):
    """Exactly one way to turn text into vectors."""

    openai: OpenAIEncoder | None = None
    """An OpenAI-compatible endpoint."""
    sentence_transformers: SentenceTransformersEncoder | None = None
    """A model in this process."""
    python: (
        Annotated[PythonEncoder, BeforeValidator(_function_section, json_schema_input_type=PythonEncoder | str)] | None
    ) = None
    """Your own function; "module:function" alone is short for {function: "module:function"}."""

    @model_validator(mode="after")
    def _one(self) -> EncoderChoice:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"names {' and '.join(given) or 'no encoder'}; give exactly one of openai, "
                "sentence_transformers and python"
            )
        return self

    @property
    def chosen(self) -> OpenAIEncoder | SentenceTransformersEncoder | PythonEncoder:
        """The one that is given."""
        chosen = self.openai or self.sentence_transformers or self.python
        assert chosen is not None  # _one refused everything else
        return chosen


class Model(Section):
    """An embedding model: its name here is what clients declare."""

    dim: int = Field(ge=1, le=65536)
    """Length of its vectors."""
    encoder: EncoderChoice | None = None
    """How to run it, where Crossfade has to encode text itself."""
    query_prefix: str = ""
    """Text put before every query ("query: " for E5)."""
    passage_prefix: str = ""
    """Text put before every document ("passage: " for E5)."""
    normalize: bool = False
    """Scales encoded vectors to unit length; otherwise they stay as the encoder returns them."""
    cache: int = Field(default=10_000, ge=0)
    """Encoded texts kept in memory, the least recently used leave first; 0 keeps none."""
