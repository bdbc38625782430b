"""One fit of a grown adapter, in a process of its own: `python -m crossfade.proxy.migration.refitting JOB`.

A process, because a fit keeps a core busy for seconds and the controller has a lease to renew; a patient one (nice),
because queries are served on the same machine. It replaces the grown adapter in one step, so that it may be killed.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from crossfade.adapters.base import AdapterError
from crossfade.adapters.grow import grow_directory
from crossfade.adapters.pairs import make_pairs

from ..observing import Key, read_observed
from .sample import read_sample

_NICENESS = 10
_FEWEST_OBSERVED, _DRAWN = 50, 1_000


@dataclass(frozen=True, slots=True)
class Job:
    """What to fit again: the adapter in `source` on the pairs in a sample's file, into the directory `target`.

    `corpus` is the number of documents of the old index; `state` is where observed queries of the new model are.
    """

    source: str
    target: str
    pairs: str
    corpus: int
    state: str
    collection: str
    field: str
    model: str
    observes: bool

    @classmethod
    def read(cls, text: str) -> Self:
        """From what `write` gave."""
        given: dict[str, Any] = orjson.loads(text)
        return cls(**given)

    def write(self) -> str:
        """As an argument."""
        return orjson.dumps(asdict(self)).decode()


def refit(job: Job) -> int:
    """Fit, and return the number of pairs. Raises AdapterError, and ValueError for a file that is no sample."""
    found = read_sample(Path(job.pairs))
    if found is None:
        raise ValueError(f"{job.pairs} is missing")
    new, old, _ = found
    pairs = make_pairs(new, old, source_name=job.collection)
    key = Key(job.collection, job.field, job.model)
    seen = read_observed(Path(job.state), key, new.shape[1]) if job.observes else None
    known = seen is not None and seen.count >= _FEWEST_OBSERVED
    grown = grow_directory(
        job.source,
        job.target,
        pairs,
        queries=seen.sample(_DRAWN, seed=0) if seen is not None and known and seen.has_spread else None,
        query_mean=seen.mean if seen is not None and known else None,
        corpus_size=max(job.corpus, len(pairs)),
    )
    return grown.card.pairs.count


def main() -> None:
    """Say the number of pairs, or what stood against it and leave with 1."""
    os.nice(_NICENESS)
    try:
        sys.stdout.write(f"{refit(Job.read(sys.argv[1]))}\n")
    except (AdapterError, ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
