"""How fast the re-encode may go: its limits, what they say at a moment, and how large batches grow. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field, field_validator

from ..config_section import Section
from ..config_values import PathValue

SMALLEST: Final = 8
LARGEST: Final = 256  # a killed worker begins its batch again
_GROW, _SHRINK = 1.5, 0.5
_FIRST: Final = 64


class Pace(Section):
    """The operator's limits; None is no limit."""

    engine: Literal["local", "process", "ray"] = "local"
    """Where it runs: in this process, in one of its own at low priority, or in the actors of a Ray cluster
    (`migrations.ray`)."""
    workers: int = Field(default=4, ge=1, le=64)
    """Batches at the same time: one is read or written while others are encoded."""
    rate: float | None = Field(default=None, gt=0)
    """Points in a second, all workers together."""
    hours: str | None = None
    """When it may run, UTC: "22:00-06:00"."""
    flag_file: PathValue | None = None
    """While this file exists, nothing is re-encoded."""
    latency_ms: float | None = Field(default=None, gt=0)
    """Serving latency (p99) above which the re-encode waits."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Tokens after which no text is encoded any more."""
    batch_seconds: float = Field(default=1.0, gt=0)
    """How long a batch should take; batches grow and shrink towards it."""

    @field_validator("hours")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            read_hours(value)
        return value


@dataclass(frozen=True, slots=True)
class Situation:
    """What limits are compared with: minute of the day (UTC), whether the flag file is there, p99 in ms, tokens."""

    minute: int
    flagged: bool
    latency_ms: float | None
    tokens: int


def find_throttle(pace: Pace, now: Situation) -> str | None:
    """Why the re-encode has to wait, with metric and threshold, or None."""
    if (spent := find_spend(pace, now.tokens)) is not None:
        return spent
    if now.flagged:
        return f"flag file: {pace.flag_file} exists; remove it to go on"
    if pace.hours is not None and not within_hours(pace.hours, now.minute):
        return f"hours: it is {now.minute // 60:02}:{now.minute % 60:02} UTC, outside of {pace.hours}"
    if pace.latency_ms is not None and now.latency_ms is not None and now.latency_ms > pace.latency_ms:
        return f"latency: p99 {now.latency_ms:.1f} ms is above latency_ms {pace.latency_ms:g}"
    return None


def find_spend(pace: Pace, tokens: int) -> str | None:
    """Why nothing more may be encoded, also not for writes, or None."""
    if pace.max_tokens is None or tokens < pace.max_tokens:
        return None
    return f"spend: {tokens:,} tokens of max_tokens {pace.max_tokens:,}; raise it to go on"


def read_hours(text: str) -> tuple[int, int]:
    """Minutes of the day from "22:00-06:00". Raises ValueError."""
    try:
        start, end = (_read_minute(part) for part in text.split("-"))
    except ValueError:
        raise ValueError('is no span of hours; write "22:00-06:00"') from None
    if start == end:
        raise ValueError("begins where it ends; leave hours out for the whole day")
    return start, end


def within_hours(text: str, minute: int) -> bool:
    """Whether a minute of the day lies in hours that may go over midnight; the end does not belong to them."""
    start, end = read_hours(text)
    return start <= minute < end if start < end else minute >= start or minute < end


def _read_minute(text: str) -> int:
    hour, _, minute = text.strip().partition(":")
    if not (hour.isdigit() and minute.isdigit() and int(hour) < 24 and int(minute) < 60):
        raise ValueError(text)
    return int(hour) * 60 + int(minute)


def first_batch(call: int) -> int:
    """The size of the first batch, for an encoder that takes `call` texts at once."""
    call = min(call, LARGEST)
    return call * -(-_FIRST // call)


def next_batch(size: int, seconds: float, wanted: float, call: int = 1) -> int:
    """The size of the next batch, after one of `size` points took `seconds` where `wanted` was the aim.

    Grows by half while it is quicker than half of the aim, halves when it took twice as long; and is made of whole
    calls of the encoder, of `call` texts each, where it is larger than one: a half-empty one may take as long.
    """
    call = min(call, LARGEST)
    if seconds > 2 * wanted:
        half = int(size * _SHRINK)
        return max(SMALLEST, half if half < call else half - half % call)
    if seconds < wanted / 2:
        grown = int(size * _GROW) + 1
        return min(LARGEST - LARGEST % call, grown if grown < call else call * -(-grown // call))
    return size


@dataclass(frozen=True, slots=True)
class Allowance:
    """A token bucket of at most one second: `points` were allowed at the time `at` (seconds)."""

    points: float
    at: float


def spend(allowance: Allowance, rate: float, points: int, now: float) -> tuple[Allowance, float]:
    """Take points from the bucket; what is left (it may be a debt), and how many seconds to wait for it to be paid."""
    saved = min(rate, allowance.points + (now - allowance.at) * rate) - points
    return Allowance(saved, now), max(0.0, -saved / rate)
