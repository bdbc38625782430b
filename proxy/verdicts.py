"""What a probe has found, as far as serving follows it: at which shares of re-encoded documents which queries are best.

`crossfade probe` measures new-model queries, mapped, on the old index alone and on both, and queries by the old model
on both, at several shares of re-encoded documents. Between them differences are taken to be straight.
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

WORTH: Final = 0.01  # nDCG@10 by which another way must be better than the usual one


@dataclass(frozen=True, slots=True)
class Verdict:
    """By share of re-encoded documents (rising, from 0): the gain over mapped queries on both indexes, in nDCG@10.

    `old` by encoding texts with the old model too, `alone` by asking the old index alone.
    """

    shares: tuple[float, ...]
    old: tuple[float, ...]
    alone: tuple[float, ...]

    def prefers_old(self, migrated: float) -> bool:
        """Whether texts are to be encoded by the old model too, at this share of re-encoded documents, 0 to 1."""
        return self._at(migrated, self.old) > WORTH

    def prefers_alone(self, migrated: float) -> bool:
        """Whether the old index is to be asked alone: the new model on its own is then worse than what is mapped."""
        return self._at(migrated, self.alone) > WORTH

    def _at(self, migrated: float, gains: tuple[float, ...]) -> float:
        for at in range(1, len(self.shares)):
            low, high = self.shares[at - 1], self.shares[at]
            if migrated <= high:
                part = (migrated - low) / (high - low)
                return (1 - part) * gains[at - 1] + part * gains[at]
        return gains[-1]


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
    shares = sorted(share for name, share in figures if name == LEGACY and (CROSSFADE, share) in figures)
    if not {(STATUS_QUO, 0.0), (ADAPTED, 0.0)} <= figures.keys():
        raise refuse("it does not know the status quo: the probe had no encoder for the old model")
    adapted = figures[ADAPTED, 0.0]
    legacy = (figures[LEGACY, share] - figures[CROSSFADE, share] for share in shares)
    alone = (adapted - figures[CROSSFADE, share] for share in shares)
    return Verdict((0.0, *shares), (figures[STATUS_QUO, 0.0] - adapted, *legacy), (0.0, *alone))


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
