"""What a probe has found, as far as serving follows it: how much each model counts, by the share that is re-encoded.

`crossfade probe` measures blends of both models' queries and scores at several shares and writes down which were best
(adapters/weights.py). Between these shares weights are taken to change straight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from crossfade.adapters.weights import Choice, Weights

from .config import Config
from .config_fields import resolve_field
from .errors import VerdictUnusable


@dataclass(frozen=True, slots=True)
class Verdict:
    """By share of re-encoded documents, rising from 0: what is best for queries that come as vectors, and as texts."""

    shares: tuple[float, ...]
    vectors: tuple[Choice, ...]
    texts: tuple[Choice, ...]

    def choose(self, migrated: float, *, texts: bool) -> Choice:
        """What is best at a share of re-encoded documents, 0 to 1; beyond the last one measured, what is best there."""
        return _between(self.shares, self.texts if texts else self.vectors, migrated)


def _between(shares: Sequence[float], chosen: Sequence[Choice], migrated: float) -> Choice:
    for at in range(1, len(shares)):
        low, high = shares[at - 1], shares[at]
        if migrated <= high:
            part = (migrated - low) / (high - low)
            before, after = chosen[at - 1], chosen[at]
            if before is None or after is None or (before.adapted < 1) != (after.adapted < 1):
                return before if part < 0.5 else after  # there is nothing between one encoder and two
            return Weights(*((1 - part) * one + part * other for one, other in zip(before, after, strict=True)))
    return chosen[-1]


def read_verdict(path: Path, collection: str, old: str, new: str) -> Verdict:
    """The verdict in a probe's report (probe.json) of this collection and models. Raises VerdictUnusable."""

    def refuse(reason: str) -> VerdictUnusable:
        return VerdictUnusable(collection=collection, path=path, reason=reason)

    try:
        told: dict[str, Any] = orjson.loads(path.read_bytes())
        probed = {"collection": told["collection"], "index_model": told["index_model"], "model": told["model"]}
        found = sorted(
            (float(one["migrated"]), _read_choice(one["vectors"]), _read_choice(one["texts"]))
            for one in told["weights"]
        )
    except OSError as error:
        raise refuse(f"it cannot be read: {error.strerror}") from error
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise refuse(f"it is no probe.json ({type(error).__name__}: {error})") from error
    wanted = {"collection": collection, "index_model": old, "model": new}
    for key, name in wanted.items():
        if probed[key] != name:
            raise refuse(f"its {key} is {probed[key]!r}, here it is {name!r}")
    if not found or found[0][0] != 0:
        raise refuse("it says nothing of weights: its queries' truth was the new model's own neighbours")
    shares, vectors, texts = zip(*found, strict=True)
    return Verdict(shares, vectors, texts)


def _read_choice(told: Any) -> Choice:
    """Raises KeyError, TypeError and ValueError for what is none."""
    if told is None:
        return None
    weights = Weights(float(told["adapted"]), float(told["trust"]))
    if not all(0 <= one <= 1 for one in weights):
        raise ValueError(f"weights are from 0 to 1, not {weights}")
    return weights


def load_verdict(config: Config, collection: str) -> Verdict | None:
    """The verdict that a collection's migration is to follow, None where it names none. Raises VerdictUnusable."""
    settings = config.collections[collection]
    if settings.migrate is None or settings.migrate.verdict is None:
        return None
    old = resolve_field(settings, settings.migrate.field).index_model
    return read_verdict(settings.migrate.verdict, collection, old, settings.migrate.to)


def load_verdicts(config: Config) -> dict[str, Verdict]:
    """The verdicts that the configuration names, by collection. Raises VerdictUnusable."""
    found = {name: load_verdict(config, name) for name in config.collections}
    return {name: verdict for name, verdict in found.items() if verdict is not None}
