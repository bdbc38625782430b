"""How much each model counts in what is blended while a collection is half migrated.

The usual weights are right on average over upgrades. Which model errs more differs between upgrades, and few judged
queries already tell: those weights are taken whose gain over the usual ones, less half its standard error, is the
greatest above 0. Neighbouring shares of re-encoded documents are looked at together, by a normal kernel.
tests/bench/quality.py measures what that gives ("by a verdict").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
TRUST = 0.4  # in the true score of a document that both indexes hold; .5 lost up to .015 where the new model is worse
_TRUSTS = (0.0, 0.2, TRUST, 0.6, 0.8, 1.0)
_LEANS = (0.0, 0.25, 0.5, 0.75)
_ADAPTED_AT_FIRST, _ADAPTED_AT_LAST = 0.25, 0.5  # of a blended query, before and after the re-encode
_WIDTH = 0.15  # of the kernel, in shares
_SURE = 0.5  # standard errors


class Weights(NamedTuple):
    """`adapted`: of a query that is blended with what the old model makes of its text (1: the adapted one alone).

    `trust`: in the true score of a document that both indexes hold; the old index's score has the rest.
    """

    adapted: float
    trust: float


Choice = Weights | None
"""How both indexes are asked and merged; None: the old index alone, with adapted queries."""


@dataclass(frozen=True, eq=False)
class Weighed:
    """At one share of re-encoded documents: nDCG@10 of each query (n,) by each choice that was tried."""

    migrated: float
    values: Mapping[Choice, Float64]

    def of(self, queries: slice) -> Weighed:
        """The same for some of the queries."""
        return Weighed(self.migrated, {choice: values[queries] for choice, values in self.values.items()})

    def value(self, choice: Choice) -> Float64 | None:
        """nDCG@10 (n,) of a choice, None where it was not tried."""
        if choice is not None and self.migrated <= 0:
            choice = choice._replace(trust=TRUST)  # nothing is merged: any trust is the same
        return self.values.get(choice)


@dataclass(frozen=True)
class Chosen:
    """What is best at one share, for queries that come as vectors and for texts, which the old model may encode too.

    Gains are nDCG@10 above the usual weights for vectors, each half of the queries by what the other half chooses.
    """

    migrated: float
    vectors: Choice
    texts: Choice
    vectors_gain: float
    texts_gain: float

    def to_json(self) -> dict[str, Any]:
        """As in probe.json."""
        named = {key: choice and choice._asdict() for key, choice in (("vectors", self.vectors), ("texts", self.texts))}
        return asdict(self) | named


def usual_weights(migrated: float, *, texts: bool = False) -> Weights:
    """What is right on average at a share of re-encoded documents, 0 to 1; `texts` are encoded by the old model too.

    A blended query leans on the old model (three quarters at first, half when all is migrated): the adapter learns from
    what is re-encoded. With everything migrated true scores count alone.
    """
    share = min(max(migrated, 0.0), 1.0)
    adapted = _ADAPTED_AT_FIRST + (_ADAPTED_AT_LAST - _ADAPTED_AT_FIRST) * share if texts else 1.0
    return Weights(adapted, TRUST if share < 1 else 1.0)


def weights_to_try(migrated: float, *, texts: bool) -> list[Weights]:
    """The usual weights and a grid; while nothing is migrated every trust is the same."""
    trusts = _TRUSTS if migrated > 0 else (TRUST,)
    leans = (*_LEANS, 1.0) if texts else (1.0,)
    usual = [usual_weights(migrated, texts=True)] if texts else []
    return list(dict.fromkeys([*usual, *(Weights(lean, trust) for lean in leans for trust in trusts)]))


def choose_weights(weighed: Sequence[Weighed]) -> tuple[Chosen, ...]:
    """The best weights at each share that was measured, and what they give."""
    vectors, texts = ([_best(one.migrated, weighed, texts=texts) for one in weighed] for texts in (False, True))
    gains = [[_gain_of_halves(at, weighed, texts=texts) for at in range(len(weighed))] for texts in (False, True)]
    shares = [one.migrated for one in weighed]
    return tuple(Chosen(*line) for line in zip(shares, vectors, texts, *gains, strict=True))


def _best(migrated: float, weighed: Sequence[Weighed], *, texts: bool) -> Choice:
    best: Choice = usual_weights(migrated)
    most = 0.0
    near = np.array([exp(-0.5 * ((one.migrated - migrated) / _WIDTH) ** 2) for one in weighed])
    near /= near.sum()
    leans = (*_LEANS, 1.0) if texts else (1.0,)
    grid: list[Choice] = [None, *(Weights(lean, trust) for lean in leans for trust in _TRUSTS)]
    usual = np.array([one.values[usual_weights(one.migrated)] for one in weighed])
    if not usual.size:  # half of a single query
        return best
    for choice in grid:
        tried = [value for one in weighed if (value := one.value(choice)) is not None]
        if len(tried) < len(weighed):  # there were no queries by the old model
            continue
        gains = near @ (np.array(tried) - usual)
        sure = float(gains.mean()) - _SURE * float(gains.std()) / sqrt(len(gains))
        if sure > most:
            best, most = choice, sure
    return best


def _gain_of_halves(at: int, weighed: Sequence[Weighed], *, texts: bool) -> float:
    """The mean gain of a share over queries whose weights the others have chosen."""
    halves = slice(0, None, 2), slice(1, None, 2)
    gains: list[Float64] = []
    for chooses, is_asked in (halves, halves[::-1]):
        choice = _best(weighed[at].migrated, [one.of(chooses) for one in weighed], texts=texts)
        asked = weighed[at].of(is_asked)
        value = asked.value(choice)
        assert value is not None  # what was not tried is not chosen
        gains.append(value - asked.values[usual_weights(asked.migrated)])
    return float(np.concatenate(gains).mean())
