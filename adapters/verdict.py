"""A recommendation before the switch, by rules that a person can check: no model is trusted further than its interval.

The rules, first that applies:

1. Nothing judged for or against the old model (no status quo, or the new model's neighbours as truth): not sure.
2. Even the favourable end of oracle - status quo is below the gain that is worth a re-encode: do not upgrade.
3. oracle - status quo may as well be a loss: not sure, with the number of queries that would settle it.
4. adapted - status quo is, even at its unfavourable end, no more than the accepted loss: flip the flag now.
5. Queries can be encoded by the old model: do so until all is re-encoded.
6. Otherwise: flip the flag after the re-encode.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, isfinite

import numpy as np
from numpy.typing import NDArray

from .base import PairsError
from .evaluate import ORACLE, STATUS_QUO
from .metrics import bootstrap_interval, paired_bootstrap
from .strategies import ADAPTED, Strategy

Float64 = NDArray[np.float64]
_MOST_NEEDED = 1_000_000


class Truth(StrEnum):
    """What the measured queries should find."""

    JUDGED = "judgements"
    KNOWN_ITEMS = "known items: a document's opening words should find that document"
    NEIGHBOURS = "the new model's ten nearest documents"


class Recommendation(StrEnum):
    """What to do."""

    FLIP_NOW = "upgrade: flip the flag now"
    ENCODE_OLD = "upgrade, but encode queries with the old model until re-encoded"
    AFTER = "upgrade only after the re-encode"
    DO_NOT = "do not upgrade"
    NOT_SURE = "not sure"


@dataclass(frozen=True)
class Tolerance:
    """In nDCG@10: the loss that is accepted while the old index still serves, and the gain worth a re-encode."""

    loss: float = 0.02
    gain: float = 0.01


@dataclass(frozen=True)
class Gap:
    """The mean of one strategy less another's, over the same queries: central 95 % from low to high, p two-sided."""

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Standing:
    """A strategy's line of the table; against is its gap to the status quo, None where that is not known."""

    strategy: str
    migrated: float
    queries: int
    ndcg10: float
    low: float
    high: float
    of_oracle: float
    against: Gap | None


@dataclass(frozen=True)
class Verdict:
    """The recommendation, why, and how many more judged queries would make it surer (0: none needed)."""

    recommendation: Recommendation
    reasons: tuple[str, ...]
    more_queries: int

    @property
    def sentence(self) -> str:
        """The recommendation as one line."""
        if self.recommendation is Recommendation.NOT_SURE:
            return f"not sure: {self.more_queries:,} more judged queries needed"
        return str(self.recommendation)


def compare(first: Strategy, second: Strategy) -> Gap:
    """first - second, by paired bootstrap over queries."""
    low, high, p = paired_bootstrap(first.values, second.values)
    return Gap(first.mean - second.mean, low, high, p)


def stand(strategies: tuple[Strategy, ...]) -> tuple[Standing, ...]:
    """A line for each strategy. Raises PairsError where the oracle is missing."""
    named = {(one.name, one.migrated): one for one in strategies}
    status_quo, oracle = named.get((STATUS_QUO, 0.0)), named.get((ORACLE, 1.0))
    if oracle is None:
        raise PairsError("a verdict needs the oracle among its strategies")
    lines = []
    for one in strategies:
        low, high = bootstrap_interval(one.values)
        share = one.mean / oracle.mean if oracle.mean > 0 else float("nan")
        against = compare(one, status_quo) if status_quo is not None else None
        lines.append(Standing(one.name, one.migrated, len(one.values), one.mean, low, high, share, against))
    return tuple(lines)


def decide(
    table: tuple[Standing, ...], truth: Truth, *, can_encode_old: bool, tolerance: Tolerance | None = None
) -> Verdict:
    """Apply the rules above to a table. Raises PairsError where adapted or oracle is missing."""
    rules = tolerance or Tolerance()
    lines = {one.strategy: one for one in table}
    if not {ADAPTED, ORACLE} <= set(lines):
        raise PairsError(f"a verdict needs {ADAPTED} and {ORACLE} in its table; it has {', '.join(lines) or 'nothing'}")
    oracle, adapted = lines[ORACLE], lines[ADAPTED]
    if oracle.against is None or adapted.against is None:
        reason = "the status quo is not known: give the old model an encoder, or judged queries with its vectors"
        return Verdict(Recommendation.NOT_SURE, (reason,), _USUAL_QUERIES)
    if truth is Truth.NEIGHBOURS:
        reason = "the new model's own neighbours cannot say whether the new model is better than the old one"
        return Verdict(Recommendation.NOT_SURE, (reason, _said("adapted queries", adapted.against)), _USUAL_QUERIES)
    worth = _said("a full re-encode", oracle.against)
    if oracle.against.high < rules.gain:
        return Verdict(Recommendation.DO_NOT, (f"{worth}; less than the {rules.gain:g} that would be worth it",), 0)
    if oracle.against.low <= 0:
        needed = queries_needed(oracle.against, oracle.queries, max(abs(oracle.against.mean), rules.gain))
        return Verdict(Recommendation.NOT_SURE, (f"{worth}; it may be a loss",), needed)
    return _path(adapted, worth, rules, can_encode_old=can_encode_old)


_USUAL_QUERIES = 300


def _path(adapted: Standing, worth: str, rules: Tolerance, *, can_encode_old: bool) -> Verdict:
    """Rules 4 to 6: how to get to the new model."""
    assert adapted.against is not None  # decide has looked
    meanwhile = _said("adapted queries meanwhile", adapted.against)
    if adapted.against.low >= -rules.loss:
        return Verdict(Recommendation.FLIP_NOW, (worth, f"{meanwhile}; within the accepted loss of {rules.loss:g}"), 0)
    more = 0
    if adapted.against.mean > -rules.loss:  # better figures could still allow it
        more = queries_needed(adapted.against, adapted.queries, adapted.against.mean + rules.loss)
        meanwhile += f"; {more:,} more judged queries could show that the flag may be flipped now"
    else:
        meanwhile += f"; more than the accepted loss of {rules.loss:g}"
    chosen = Recommendation.ENCODE_OLD if can_encode_old else Recommendation.AFTER
    return Verdict(chosen, (worth, meanwhile), more)


def queries_needed(gap: Gap, queries: int, distance: float) -> int:
    """How many more queries make half the interval as small as `distance`, as it shrinks with their root; at least 1.

    n' = n (w / d)^2 for half a width w of n queries and distance d.
    """
    half = (gap.high - gap.low) / 2
    needed = queries * (half / distance) ** 2 if distance > 0 else float("inf")
    return max(1, min(_MOST_NEEDED, ceil(needed) if isfinite(needed) else _MOST_NEEDED) - queries)


def _said(what: str, gap: Gap) -> str:
    return (
        f"{what}: {gap.mean:+.3f} nDCG@10 against the status quo "
        f"(95 %: {gap.low:+.3f} to {gap.high:+.3f}, p {gap.p:.3f})"
    )
