"""What `crossfade probe` measures on: a sample of the live collection in both spaces, and queries with a truth.

Queries come from a judged dataset, from the operator's own queries, or from the documents themselves: the opening
words of a held-out document should find it. Documents that the adapter learns from are searched only in the share that
they will have of the whole collection, because a residual knows its own pairs.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.base import Float32
from crossfade.adapters.calibrate import Metric
from crossfade.adapters.dataset import models_in, read_dataset, rows_of
from crossfade.adapters.scene import Scene, neighbours_as_truth
from crossfade.adapters.vectors import unit_rows
from crossfade.adapters.verdict import Truth
from crossfade.backends.index import FieldInfo

from .cli_collect import Plan, collect_pairs, read_batches
from .cli_index import StoredDocuments, check_field, open_index
from .cli_output import UsageProblem, progress_bar
from .cli_sample import Collecting, read_queries
from .config import Config
from .encoders import Encoder, build_encoder
from .loading import load_config

_HELD_OUT = 0.4
_MOST_ITEMS = 400
_FEWEST_ITEMS = 50
_OPENING, _LONG_ENOUGH = 10, 25  # words; the opening of a shorter document would be most of it
_CHUNK = 512
_SAME = 1e-5
_CHARACTERS_A_TOKEN = 4.0  # of English, as the large vendors' tokenisers cut it


@dataclass(frozen=True, slots=True)
class Cost:
    """What encoding takes: the rate of the new model's encoder as measured, and the collection at that rate."""

    documents: int
    pairs: int
    documents_a_second: float
    characters_a_document: float
    dim: int

    @property
    def minutes(self) -> float:
        """To encode the whole collection once."""
        return self.documents / self.documents_a_second / 60

    @property
    def tokens(self) -> int:
        """Of the whole collection, estimated from its characters."""
        return round(self.documents * self.characters_a_document / _CHARACTERS_A_TOKEN)

    @property
    def index_bytes(self) -> int:
        """Of the new vectors as float32, without the index's own structure."""
        return self.documents * self.dim * 4


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Everything that is measured on: `source` and `target` (n, dim) are the pairs that the adapter may learn from."""

    collection: str
    model: str
    index_model: str
    metric: Metric
    source: Float32
    target: Float32
    observed: tuple[Float32 | None, NDArray[np.float64] | None]
    scene: Scene
    truth: Truth
    asked: str  # which queries, for people
    can_encode_old: bool
    cost: Cost


@dataclass(frozen=True, slots=True)
class Sampled:
    """The sample in both spaces, unit rows, with the texts of some of its rows."""

    source: Float32
    target: Float32
    texts: dict[int, str]
    count: int


@dataclass(frozen=True, slots=True)
class Probing:
    """What `probe` was asked for."""

    config_path: Path
    collection: str
    model: str
    field: str
    sample: int
    seed: int
    judged: Path | None
    queries: Path | None
    work: Path

    async def gather(self) -> Gathered:
        """Sample the collection, encode what needs it, and put queries beside it. Raises UsageProblem."""
        config = load_config(self.config_path)
        asked = Collecting(
            self.config_path, self.collection, self.model, self.field, self.sample, self.seed, None, None, self.work
        )
        field, text = asked.find(config)
        async with _encoders(config, self.model, field.index_model) as (new, old):
            sampled, info, cost = await self._sample(config, field.name, field.index_model, text, new)
            if self.judged is not None:
                fit = np.arange(len(sampled.source))
                scene, truth, told = await _judged_scene(self.judged, (field.index_model, old), (self.model, new))
            else:
                fit, searched = self._split(sampled)
                scene, truth, told = await self._own_scene(sampled, searched, new, old)
        return Gathered(
            self.collection, self.model, field.index_model, info.distance, sampled.source[fit], sampled.target[fit],
            asked.observed(config, info.name) if config.detect.observe else (None, None),
            scene, truth, told, old is not None, cost,
        )  # fmt: skip

    async def _sample(
        self, config: Config, field: str, index_model: str, text: str, new: Encoder
    ) -> tuple[Sampled, FieldInfo, Cost]:
        upstream = config.collections[self.collection].upstream or ""
        settings = config.models[self.model]
        parallel = settings.encoder.chosen.concurrency  # type: ignore[union-attr]  # it was built
        endpoint = new.endpoint  # type: ignore[attr-defined]  # a ModelEncoder has one
        plan = Plan(upstream, self.collection, field, index_model, self.model, endpoint, text, self.sample, self.seed)
        async with open_index(config, upstream) as index:
            own = config.collections[self.collection].fields
            info = await check_field(index, self.collection, field, config.models[index_model].dim, index_model, own)
            count = await index.count(self.collection)
            documents = StoredDocuments(index, self.collection, info.name, text)
            started, steps = time.monotonic(), [0]
            with progress_bar("documents") as step:

                def advance(done: int, total: int) -> None:
                    steps.append(done)
                    step(done, total)

                found = await collect_pairs(documents, new, plan, self.work, parallel=parallel, progress=advance)
            seconds, encoded = time.monotonic() - started, steps[-1] - steps[1]
            texts = await _read_texts(documents, self.work, found.target)
        sampled = Sampled(unit_rows(found.source), unit_rows(found.target), texts, count)
        rate = encoded / seconds if encoded >= 64 else await _measure_rate(self.model, config, list(texts.values()))
        characters = float(np.mean([len(text) for text in texts.values()]))
        return sampled, info, Cost(count, len(found.source), rate, characters, settings.dim)

    def _split(self, sampled: Sampled) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows to fit on, and rows to search: the others, and of the fitted ones the share of the collection."""
        order = np.random.default_rng(self.seed).permutation(len(sampled.source))
        held = round(_HELD_OUT * len(order))
        hidden, fit = order[:held], order[held:]
        share = min(1.0, len(order) / max(sampled.count, 1))
        among = len(fit) if share >= 1 else min(len(fit), round(held * share / (1 - share)))
        return fit, np.concatenate([hidden, fit[:among]])

    async def _own_scene(
        self, sampled: Sampled, searched: NDArray[np.int64], new: Encoder, old: Encoder | None
    ) -> tuple[Scene, Truth, str]:
        """Queries of the operator's, or made from the documents, among the sampled documents."""
        documents = sampled.target[searched], sampled.source[searched]
        if self.queries is not None:
            asked, before = await _read_asked(self.queries, new, old)
            judgements = neighbours_as_truth(asked, documents[1])
            told = f"{len(asked):,} queries of {self.queries.name}"
            return Scene(*documents, asked, before, judgements), Truth.NEIGHBOURS, told
        quoted = ((at, _opening(sampled.texts.get(row, ""))) for at, row in enumerate(searched.tolist()))
        items = [(at, words) for at, words in quoted if words is not None][:_MOST_ITEMS]
        if len(items) < _FEWEST_ITEMS:
            return _documents_ask(*documents)
        words = [words for _, words in items]
        asked = unit_rows(await new.encode(words, "query"))
        before = unit_rows(await old.encode(words, "query")) if old is not None else None
        told = f"the first {_OPENING} words of {len(items):,} sampled documents"
        return Scene(*documents, asked, before, [{at: 1.0} for at, _ in items]), Truth.KNOWN_ITEMS, told


@asynccontextmanager
async def _encoders(config: Config, model: str, index_model: str) -> AsyncIterator[tuple[Encoder, Encoder | None]]:
    """The new model's encoder, and the index's model's where the configuration has one."""
    new = build_encoder(model, config.models[model])
    old = build_encoder(index_model, config.models[index_model]) if config.models[index_model].encoder else None
    try:
        yield new, old
    finally:
        await new.close()
        if old is not None:
            await old.close()


async def _read_texts(documents: StoredDocuments, work: Path, target: Float32) -> dict[int, str]:
    """Texts by row of the pairs, enough to make queries from; batches that changed since they were paired are left out.

    Raises UsageProblem when every batch has.
    """
    texts: dict[int, str] = {}
    first, wanted = 0, 4 * _MOST_ITEMS
    for ids, size in read_batches(work):
        found = [one for one in await documents.read(ids) if one.vector is not None and (one.text or "").strip()]
        if len(found) == size and size:
            stored = np.array([one.vector for one in found], np.float32)
            apart = np.abs(stored - target[first : first + size]).max(axis=1)
            texts |= {first + at: one.text or "" for at, one in enumerate(found) if apart[at] < _SAME}
        first += size
        if len(texts) >= wanted:
            break
    if not texts:
        raise UsageProblem(f"no document is as it was when {work} was collected; remove that folder and probe again")
    return texts


async def _measure_rate(model: str, config: Config, texts: Sequence[str]) -> float:
    """Documents a second, by encoding some with an encoder whose cache is empty."""
    encoder = build_encoder(model, config.models[model])
    try:
        await encoder.encode(texts[:1], "passage")  # loading the model is not its rate
        some = list(dict.fromkeys(texts[1:129])) or texts[:1]
        started = time.monotonic()
        await encoder.encode(some, "passage")
        return len(some) / (time.monotonic() - started)
    finally:
        await encoder.close()


def _opening(text: str) -> str | None:
    words = text.split()
    return " ".join(words[:_OPENING]) if len(words) >= _LONG_ENOUGH else None


def _documents_ask(old_documents: Float32, new_documents: Float32) -> tuple[Scene, Truth, str]:
    """Documents too short to quote from: some of them ask for their neighbours among the others."""
    asking = min(_MOST_ITEMS, len(new_documents) // 4)
    new_queries, old_queries = new_documents[:asking], old_documents[:asking]
    rest = old_documents[asking:], new_documents[asking:]
    judgements = neighbours_as_truth(new_queries, rest[1])
    told = f"{asking:,} sampled documents themselves (their texts are too short to quote from)"
    return Scene(*rest, new_queries, old_queries, judgements), Truth.NEIGHBOURS, told


async def _read_asked(path: Path, new: Encoder, old: Encoder | None) -> tuple[Float32, Float32 | None]:
    """The operator's queries as both models see them; vectors are of the new model alone."""
    if path.suffix != ".txt":
        vectors = read_queries(path)
        assert vectors is not None  # a path was given
        return unit_rows(vectors), None
    texts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not texts:
        raise UsageProblem(f"{path} holds no queries; write one a line")
    before = unit_rows(await old.encode(texts, "query")) if old is not None else None
    return unit_rows(await new.encode(texts, "query")), before


Named = tuple[str, Encoder | None]


async def _judged_scene(folder: Path, old: Named, new: Named) -> tuple[Scene, Truth, str]:
    """A judged dataset in both spaces: its own vectors where it has them, else encoded here."""
    stored = [name for name, _ in (old, new) if name in models_in(folder)]
    dataset = read_dataset(folder, rows=rows_of(folder, stored) if stored else None)
    rows = [row for row, judged in enumerate(dataset.judgements) if judged]
    if not rows:
        raise UsageProblem(f"{folder}: no query is judged; give qrels.tsv rows for them")
    queries = list(dataset.query_texts())
    sides: list[tuple[Float32, Float32]] = []
    for name, encoder in (old, new):
        if name in stored:
            sides.append((dataset.documents(name), dataset.queries(name)[rows]))
        elif encoder is not None:
            passages = await _encode_all(encoder, list(dataset.document_texts()), name)
            sides.append((passages, await encoder.encode([queries[row] for row in rows], "query")))
        else:
            raise UsageProblem(f"{folder} has no vectors by {name!r}, and models.{name}.encoder is missing; give one")
    (old_documents, old_queries), (new_documents, new_queries) = ((unit_rows(a), unit_rows(b)) for a, b in sides)
    judgements = [dataset.judgements[row] for row in rows]
    told = f"{len(rows):,} judged queries of {dataset.name}, on its {len(old_documents):,} documents"
    return Scene(old_documents, new_documents, new_queries, old_queries, judgements), Truth.JUDGED, told


async def _encode_all(encoder: Encoder, texts: Sequence[str], name: str) -> Float32:
    parts: list[Any] = []
    with progress_bar(f"judged documents by {name}") as step:
        for first in range(0, len(texts), _CHUNK):
            parts.append(await encoder.encode(texts[first : first + _CHUNK], "passage"))
            step(min(first + _CHUNK, len(texts)), len(texts))
    return np.concatenate(parts)
