"""How much each model should count on the way, as a probe's report shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from crossfade.adapters.weights import Choice, Chosen

COLUMNS: Final = ("re-encoded", "queries as vectors", "gain", "as texts", "gain")
NOTE: Final = (
    "What auto does with migrate.verdict. True score: how much the new index's score counts of a document that both "
    "hold. Old model: how much of a text's query vector the old model's own encoding makes up. Gains: nDCG@10 above "
    "mapped queries with a true score of .4; each half of the queries by what the other half chooses."
)


def weight_cells(one: Chosen) -> list[str]:
    """A share's line of the table."""
    merges = one.migrated > 0
    vectors, texts = (_spell(choice, merges=merges) for choice in (one.vectors, one.texts))
    return [f"{one.migrated:.0%}", vectors, f"{one.vectors_gain:+.3f}", texts, f"{one.texts_gain:+.3f}"]


def _spell(choice: Choice, *, merges: bool) -> str:
    """While nothing is re-encoded there are no true scores."""
    if choice is None or (not merges and choice.adapted >= 1):
        return "old index alone"
    said = [f"old model {1 - choice.adapted:.2f}"] if choice.adapted < 1 else []
    said += [f"true score {choice.trust:.1f}"] if merges else []
    return ", ".join(said)
