"""What every section of the configuration is, and the kinds of text that several of them take."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StringConstraints

Name = Annotated[str, StringConstraints(min_length=1)]
# An empty key, as ${KEY:-} gives, is none.
Secret = Annotated[SecretStr | None, BeforeValidator(lambda given: given if given != "" else None)]
HeaderName = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[A-Za-z0-9_.-]+$")]


def written(default: str) -> Any:
    """A default as the file would have it: read like any other value, and shown so in schema and documentation."""
    return Field(default=default)


class Section(BaseModel):
    """A mapping of the configuration: frozen, and a key it does not know is an error.

    What stands under a key describes it; `config_reference` reads it there, since to read its source takes each process
    longer than to check a configuration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
