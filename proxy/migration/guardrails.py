"""What must hold while traffic moves, compared with what was seen. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..config_migrate import Guardrails

LEAST: Final = 20  # requests, or shadowed queries, below which nothing is concluded


@dataclass(frozen=True, slots=True)
class Seen:
    """Reads of a collection in some span: how many, how many the old index answered because the new one could not, the
    p99 of these reads in seconds, how many queries were shadowed and their mean overlap@10."""

    requests: int = 0
    failed: int = 0
    p99: float | None = None
    shadowed: int = 0
    overlap: float | None = None


def find_breach(rails: Guardrails, seen: Seen) -> str | None:
    """The first guardrail that does not hold, with both figures, or None; few requests prove nothing."""
    if seen.requests >= LEAST:
        rate = seen.failed / seen.requests
        if rails.error_rate is not None and rate > rails.error_rate:
            return f"error_rate: {seen.failed} of {seen.requests} reads failed, {rate:.3f} > {rails.error_rate:g}"
        if rails.p99 is not None and seen.p99 is not None and seen.p99 > rails.p99:
            return f"p99: {seen.p99 * 1000:.0f} ms > {rails.p99 * 1000:.0f} ms over {seen.requests} reads"
    overlap = seen.overlap if seen.shadowed >= LEAST else None
    if rails.overlap is not None and overlap is not None and overlap < rails.overlap:
        return f"overlap: {overlap:.2f} < {rails.overlap:g} over {seen.shadowed} shadowed queries"
    return None
