"""Which collections have all their requests led through Python, and since which epoch: those under migration.

Methods without vectors go from Envoy to the database and never reach Python. Those of a collection under migration have
to; and before a migration may rely on it, whatever went past Python must have ended. So each change of the names begins
an epoch: routes of an epoch use clusters of their own, and the clusters of earlier epochs are kept until nothing is
under way in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from .telemetry import write_atomically

LED = "led.json"
_MOST_EPOCHS = 8  # whose clusters are kept beside the current one's


@dataclass(frozen=True, slots=True)
class Led:
    """Names of collections with the configured collection that each stands for, an alias or its own name."""

    names: Mapping[str, str] = field(default_factory=dict)
    epoch: int = 0
    before: tuple[int, ...] = ()  # epochs in which requests may still be under way

    @property
    def epochs(self) -> tuple[int, ...]:
        """Those that have clusters."""
        return (*self.before, self.epoch)

    def moved(self, names: Mapping[str, str], *, drained: bool) -> Led:
        """What follows when other names are led; `drained`: nothing of earlier epochs is under way."""
        before = () if drained else self.before
        return Led(names, self.epoch + 1, (*before, self.epoch)[-_MOST_EPOCHS:])

    def version(self, generation: int) -> str:
        """The version of routes and clusters under a generation of the configuration."""
        return f"{generation}.{self.epoch}" if self.epoch else str(generation)


def read_led(run_dir: Path) -> Led:
    """What is led at present."""
    try:
        stated = orjson.loads((run_dir / LED).read_bytes())
    except FileNotFoundError:
        return Led()
    return Led(stated["names"], stated["epoch"], tuple(stated["before"]))


def write_led(run_dir: Path, led: Led) -> None:
    """State what is led; workers take it up from there."""
    stated = {"names": dict(led.names), "epoch": led.epoch, "before": led.before}
    write_atomically(run_dir / LED, orjson.dumps(stated))
