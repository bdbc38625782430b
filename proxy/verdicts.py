"""What a probe has found, as far as serving follows it: at which shares a text is worth encoding with the old model.

`crossfade probe` measures new-model queries, mapped, and queries by the old model at several shares of re-encoded
documents. Between them the difference is taken to be straight.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from crossfade.adapters.evaluate import STATUS_QUO
from crossfade.adapters.strategies import ADAPTED, CROSSFADE, LEGACY

from .config import Config
from .config_fields import resolve_field
from .errors import VerdictUnusable

WORTH: Final = 0.01  # nDCG@10 by which queries of the old model must be better: they cost a second encoder call


@dataclass(frozen=True, slots=True)
class Verdict:
    """By share of re-encoded documents (rising, from 0), what the old model's queries are better by, in nDCG@10."""

    shares: tuple[float, ...]
    gains: tuple[float, ...]

    def prefers_old(self, migrated: float) -> bool:
        """Whether texts are to be encoded by the old model too, at this share of re-encoded documents, 0 to 1."""
        return self._gain(migrated) > WORTH

    def _gain(self, migrated: float) -> float:
        for at in range(1, len(self.shares)):
            low, high = self.shares[at - 1], self.shares[at]
            if migrated <= high:
                part = (migrated - low) / (high - low)
                return (1 - part) * self.gains[at - 1] + part * self.gains[at]
        return self.gains[-1]


def read_verdict(path: Path, collection: str, old: str, new: str) -> Verdict:
    """The verdict in a probe's report (probe.json) of this collection and models. Raises VerdictUnusable."""

    def refuse(reason: str) -> VerdictUnusable:
        return VerdictUnusable(collection=collection, path=path, reason=reason)

    try:
        told: dict[str, Any] = orjson.loads(path.read_bytes())
        probed = {"collection": told["collection"], "index_model": told["index_model"], "model": told["model"]}
        figures = {(one["strategy"], float(one["migrated"])): float(one["ndcg10"]) for one in told["strategies"]}
    except OSError as error:
        raise refuse(f"it cannot be read: {error.strerror}") from error
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise refuse(f"it is no probe.json ({type(error).__name__}: {error})") from error
    wanted = {"collection": collection, "index_model": old, "model": new}
    for key, name in wanted.items():
        if probed[key] != name:
            raise refuse(f"its {key} is {probed[key]!r}, here it is {name!r}")
    both = sorted(share for name, share in figures if name == LEGACY and (CROSSFADE, share) in figures)
    gains = {share: figures[LEGACY, share] - figures[CROSSFADE, share] for share in both}
    if not {(STATUS_QUO, 0.0), (ADAPTED, 0.0)} <= figures.keys():
        raise refuse("it does not know the status quo: the probe had no encoder for the old model")
    first = figures[STATUS_QUO, 0.0] - figures[ADAPTED, 0.0]
    return Verdict((0.0, *gains), (first, *gains.values()))


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
