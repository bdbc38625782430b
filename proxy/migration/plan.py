"""What a migration would mean, told before anything is touched: points without text, tokens and their cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from crossfade.backends.index import Index
from crossfade.backends.payload_text import compile_text

from .errors import BadPlan
from .record import Spec
from .texts import count_tokens

SAMPLE: Final = 1000
_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Figures for the whole collection, extrapolated from a sample where `sampled` is less than `points`.

    `tokens` are estimated (four bytes of UTF-8 each); `cost` is in the currency of the price given.
    """

    spec: Spec
    points: int
    sampled: int
    without_text: int
    without_vector: int
    tokens: int
    cost: float | None
    target_exists: bool
    problems: tuple[str, ...]
    target_points: int = 0

    def check_startable(self) -> None:
        """Raises BadPlan for what start would find out later."""
        if self.target_points:
            raise BadPlan(
                collection=self.spec.collection,
                reason=f"the target {self.spec.target!r} holds {self.target_points:,} points already; "
                "name another target, or empty that one",
            )


async def make_plan(index: Index, spec: Spec, price_per_million: float | None = None) -> Plan:
    """Look at a collection without touching anything. Raises BadPlan for what can never work, IndexRefusedError."""
    if spec.target == spec.collection:
        raise BadPlan(collection=spec.collection, reason="the target is the collection itself; name another one")
    await _check_field(index, spec)
    points = await index.count(spec.collection)
    text = compile_text(spec.text)
    ids = await index.sample_ids(spec.collection, SAMPLE, _SEED)
    sample = await index.fetch(spec.collection, ids)
    texts = [text.read(point.payload) for point in sample if spec.field in point.vectors]
    usable = [one for one in texts if one is not None and one.strip()]
    share = points / len(sample) if sample else 0.0
    tokens = round(share * sum(map(count_tokens, usable)))
    without_text = round(share * (len(texts) - len(usable)))
    exists = await index.exists(spec.target)
    held = await index.count(spec.target) if exists else 0
    return Plan(
        spec=spec,
        points=points,
        sampled=len(sample),
        without_text=without_text,
        without_vector=round(share * (len(sample) - len(texts))),
        tokens=tokens,
        cost=None if price_per_million is None else tokens * price_per_million / 1e6,
        target_exists=exists,
        problems=tuple(_find_problems(spec, points, without_text, held)),
        target_points=held,
    )


async def _check_field(index: Index, spec: Spec) -> None:
    info = await index.describe(spec.collection)
    found = next((one for one in info.fields if one.name == spec.field), None)
    if found is None:
        names = [one.name for one in info.fields]
        raise BadPlan(collection=spec.collection, reason=f"it has no dense vector {spec.field!r}; it has {names}")
    if found.multi:
        raise BadPlan(
            collection=spec.collection,
            reason=f"vector {spec.field!r} holds several rows a point, which one text is not",
        )


def _find_problems(spec: Spec, points: int, without_text: int, held: int) -> list[str]:
    problems = []
    if points == 0:
        problems.append(f"collection {spec.collection!r} holds no points")
    if without_text:
        problems.append(
            f"about {without_text:,} of {points:,} points have no text at {spec.text!r}; "
            "they will be in the target without this vector"
        )
    if held:
        problems.append(f"the target {spec.target!r} holds {held:,} points already; start will refuse it")
    return problems
