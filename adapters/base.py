"""What every map between two embedding spaces is, and what one adapter directory holds.

AdapterError            anything this room refuses
├── PairsError          the vectors or pairs given to a fit cannot be used
├── StoreError          an adapter directory is missing, corrupt or made for other models
└── DatasetError        an evaluation folder does not have the documented form
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # both import this module for Float32 and the errors
    from .calibrate import Calibration
    from .fingerprint import Fingerprint

Float32: TypeAlias = NDArray[np.float32]
Arrays: TypeAlias = Mapping[str, NDArray[Any]]
JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"


class AdapterError(Exception):
    """Anything the adapters room refuses; the message says what, where and what to do."""


class PairsError(AdapterError):
    """The vectors given to a fit cannot be used as they are."""


class StoreError(AdapterError):
    """An adapter directory is missing, corrupt, or made for other models."""


class DatasetError(AdapterError):
    """An evaluation folder does not have the documented form."""


@runtime_checkable
class Map(Protocol):
    """One fitted function from one embedding space into another; implementations are frozen dataclasses."""

    kind: ClassVar[str]

    @property
    def source_dim(self) -> int: ...

    @property
    def target_dim(self) -> int: ...

    def apply(self, vectors: Float32) -> Float32:
        """Map vectors (n, source_dim) to new, C-contiguous float32 rows (n, target_dim)."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The fitted arrays by name; a map inside another prefixes its names ("base.weight")."""
        ...

    def settings(self) -> dict[str, JSON]:
        """What is needed beside the arrays to restore the map, as JSON."""
        ...

    @classmethod
    def restore(cls, arrays: Arrays, settings: Mapping[str, JSON]) -> Self:
        """Build the map again from what `arrays` and `settings` gave."""
        ...


@dataclass(frozen=True)
class PairsCard:
    """Where the pairs of a fit came from: how many were used, from what, and which share of the index they are."""

    count: int
    source: str = ""
    share: float | None = None


@dataclass(frozen=True)
class Card:
    """What is known about an adapter beside its arrays; stored as card.json."""

    source_model: str
    target_model: str
    source_dim: int
    target_dim: int
    method: str
    pairs: PairsCard
    settings: dict[str, JSON] = field(default_factory=dict)
    figures: dict[str, JSON] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Adapter:
    """Everything that one adapter directory holds.

    query: new-model query vectors -> the old index's space (query-side centring lives here).
    document: new-model document vectors -> the old index's space (writes).
    reverse: old-space document vectors -> the new model's space (vectors in answers).
    calibration: scores in the new space -> scores in the old one (score_threshold).
    fingerprints: what vectors of each known model look like, by model name.
    """

    card: Card
    query: Map
    document: Map
    reverse: Map
    calibration: Calibration | None = None
    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)
