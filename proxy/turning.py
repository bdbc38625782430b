"""Adapters turned round: into the new model's space, for a collection whose vectors are the new model's.

Pure. While a migration runs the adapter leads from the new model into the old index. A query that goes to the new
collection needs it the other way round, and a third model, which has an adapter into the old space only, goes on
through the old space into the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from numpy.typing import NDArray

from crossfade.adapters.base import JSON, Adapter, Arrays, Float32, Map


@dataclass(frozen=True)
class Chain:
    """One map after another; made while serving, never stored."""

    kind: ClassVar[str] = "chain"
    first: Map
    second: Map

    @property
    def source_dim(self) -> int:
        return self.first.source_dim

    @property
    def target_dim(self) -> int:
        return self.second.target_dim

    def apply(self, vectors: Float32) -> Float32:
        """Map vectors (n, source_dim) to (n, target_dim)."""
        return self.second.apply(self.first.apply(vectors))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """None of its own: it is not stored."""
        return {}

    def settings(self) -> dict[str, JSON]:
        """None of its own: it is not stored."""
        return {}

    @classmethod
    def restore(cls, arrays: Arrays, settings: Mapping[str, JSON]) -> Chain:
        """Never: the adapters it is made of are stored, and it is made of them again."""
        raise NotImplementedError("a chain of maps is made while serving, and is not stored")


def turn_adapters(adapters: Mapping[str, Adapter], from_model: str, to_model: str) -> dict[str, Adapter]:
    """Adapters by model into the space of `to_model`, made of those into the space of `from_model`.

    Empty where there is none from `to_model`: then nothing leads back.
    """
    forward = adapters.get(to_model)
    if forward is None:
        return {}
    back = _turn(forward)
    through = {model: _chain(adapter, forward) for model, adapter in adapters.items() if model != to_model}
    return {from_model: back, **through}


def _turn(adapter: Adapter) -> Adapter:
    card = adapter.card
    turned = replace(
        card,
        source_model=card.target_model,
        target_model=card.source_model,
        source_dim=card.target_dim,
        target_dim=card.source_dim,
    )
    calibration = adapter.calibration.invert() if adapter.calibration is not None else None
    return Adapter(turned, adapter.reverse, adapter.reverse, adapter.document, calibration, adapter.fingerprints)


def _chain(adapter: Adapter, forward: Adapter) -> Adapter:
    """From a third model through the old space into the new one. Thresholds are not moved: no curve leads there."""
    card = replace(adapter.card, target_model=forward.card.source_model, target_dim=forward.card.source_dim)
    return Adapter(
        card,
        Chain(adapter.query, forward.reverse),
        Chain(adapter.document, forward.reverse),
        Chain(forward.document, adapter.reverse),
        None,
        {**adapter.fingerprints, **forward.fingerprints},
    )
