"""The evaluation format: a folder with documents, queries, judgements and each model's vectors.

docs.jsonl.gz and queries.jsonl.gz hold one object a line with `id` and `text`; qrels.tsv holds `query_id`, `doc_id` and
`grade` under a header; docs.MODEL.f16.npy and queries.MODEL.f16.npy hold one vector a line of the jsonl files, in the
same order. A folder with only a manifest.json joins other collections beside it into one corpus (`hetero`).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import orjson

from .base import DatasetError, Float32

DOCS, QUERIES, QRELS, MANIFEST = "docs.jsonl.gz", "queries.jsonl.gz", "qrels.tsv", "manifest.json"


@dataclass(frozen=True)
class Dataset:
    """One judged collection, or several joined; vectors and text are read when asked for.

    document_ids and query_ids name the rows; judgements has a mapping {document row: gain} for each query, and
    relevant_from is the lowest gain that counts as relevant for recall and MRR. groups names each query's member
    collection, and document_groups each document's (one name throughout for a plain collection).
    """

    name: str
    folders: tuple[Path, ...]
    rows: tuple[int, ...]
    document_ids: tuple[str, ...]
    query_ids: tuple[str, ...]
    judgements: tuple[dict[int, float], ...]
    relevant_from: float
    groups: tuple[str, ...]
    document_groups: tuple[str, ...]

    @property
    def models(self) -> list[str]:
        """Models with vectors for every document of this dataset."""
        names = [set(models_in(folder, rows)) for folder, rows in zip(self.folders, self.rows, strict=True)]
        return sorted(set.intersection(*names))

    def documents(self, model: str) -> Float32:
        """The documents' vectors (documents, dim) by one model, float32."""
        parts = zip(self.folders, self.rows, strict=True)
        return np.concatenate([_vectors(folder, "docs", model)[:rows] for folder, rows in parts])

    def queries(self, model: str) -> Float32:
        """The queries' vectors (queries, dim) by one model, float32."""
        return np.concatenate([_vectors(folder, "queries", model) for folder in self.folders])

    def document_texts(self) -> Iterator[str]:
        """Stream the documents' texts, in row order."""
        for folder, rows in zip(self.folders, self.rows, strict=True):
            for at, line in enumerate(_lines(folder / DOCS)):
                if at == rows:
                    break
                yield str(line["text"])

    def query_texts(self) -> Iterator[str]:
        """Stream the queries' texts, in row order."""
        for folder in self.folders:
            for line in _lines(folder / QUERIES):
                yield str(line["text"])


def read_dataset(folder: str | Path, *, rows: int | None = None, relevant_from: float = 1.0) -> Dataset:
    """Read the ids and judgements of a collection, or of the members that its manifest joins.

    rows keeps the first documents only (some models have vectors for a part); relevant_from is used for recall and MRR
    unless a manifest.json in the parent folder says otherwise. Raises DatasetError naming the file and line.
    """
    place = Path(folder)
    if not (place / DOCS).is_file() and (place / MANIFEST).is_file():
        return _join(place)
    ids = [str(line["id"]) for line in _lines(place / DOCS)]
    kept = ids if rows is None else ids[:rows]
    queries = [str(line["id"]) for line in _lines(place / QUERIES)]
    judged = _read_qrels(place / QRELS, queries, ids, kept)
    return Dataset(
        name=place.name,
        folders=(place,),
        rows=(len(kept),),
        document_ids=tuple(kept),
        query_ids=tuple(queries),
        judgements=tuple(judged),
        relevant_from=_relevant_from(place, relevant_from),
        groups=(place.name,) * len(queries),
        document_groups=(place.name,) * len(kept),
    )


def models_in(folder: Path, rows: int | None = None) -> list[str]:
    """Models with vectors for documents (at least `rows`) and queries in a collection's folder."""
    found = []
    for path in sorted(folder.glob("docs.*.f16.npy")):
        model = path.name.removeprefix("docs.").removesuffix(".f16.npy")
        count = len(np.load(path, mmap_mode="r"))
        if (folder / f"queries.{model}.f16.npy").is_file() and (rows is None or count >= rows):
            found.append(model)
    return found


def rows_of(folder: Path, models: Sequence[str]) -> int:
    """How many leading documents have vectors by every one of the models."""
    return min(len(np.load(folder / f"docs.{model}.f16.npy", mmap_mode="r")) for model in models)


def _join(place: Path) -> Dataset:
    """Put a manifest's members one after the other: ids become "member/id", gains grade - (relevant_from - 1)."""
    manifest = orjson.loads((place / MANIFEST).read_bytes())
    entries = manifest["members"]
    members = [read_dataset(place.parent / entry["collection"], rows=entry["doc_rows"]) for entry in entries]
    judgements: list[dict[int, float]] = []
    offset = 0
    for member in members:
        lift = member.relevant_from - 1
        for judged in member.judgements:
            judgements.append({row + offset: max(gain - lift, 0.0) for row, gain in judged.items()})
        offset += len(member.document_ids)
    return Dataset(
        name=str(manifest["name"]),
        folders=tuple(folder for member in members for folder in member.folders),
        rows=tuple(rows for member in members for rows in member.rows),
        document_ids=tuple(f"{member.name}/{name}" for member in members for name in member.document_ids),
        query_ids=tuple(f"{member.name}/{name}" for member in members for name in member.query_ids),
        judgements=tuple(judgements),
        relevant_from=1.0,
        groups=tuple(group for member in members for group in member.groups),
        document_groups=tuple(group for member in members for group in member.document_groups),
    )


def _read_qrels(path: Path, queries: list[str], ids: list[str], kept: list[str]) -> list[dict[int, float]]:
    """Judgements by query; those of documents beyond the kept rows are left out, unknown ids are an error."""
    rows = {name: row for row, name in enumerate(kept)}
    known = set(ids)
    places = {name: at for at, name in enumerate(queries)}
    judged: list[dict[int, float]] = [{} for _ in queries]
    if not path.is_file():
        raise DatasetError(f"{path} is missing: judgements are needed as query_id, doc_id, grade under a header")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[1:], start=2):
        fields = line.split("\t")
        if len(fields) != 3 or fields[0] not in places or fields[1] not in known:
            raise DatasetError(f"{path}, line {number}: {line!r} is not query_id, doc_id, grade with known ids")
        if fields[1] in rows:
            judged[places[fields[0]]][rows[fields[1]]] = float(fields[2])
    return judged


def _lines(path: Path) -> Iterator[dict[str, object]]:
    if not path.is_file():
        raise DatasetError(f"{path} is missing: a collection has {DOCS}, {QUERIES} and {QRELS}, or a {MANIFEST}")
    with gzip.open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise DatasetError(f"{path}, line {number} is not a JSON object: {error}") from error


def _vectors(folder: Path, side: str, model: str) -> Float32:
    path = folder / f"{side}.{model}.f16.npy"
    if not path.is_file():
        known = ", ".join(models_in(folder)) or "none"
        raise DatasetError(f"{path} is missing: models with vectors in {folder} are {known}")
    vectors: Float32 = np.load(path).astype(np.float32)
    return vectors


def _relevant_from(place: Path, default: float) -> float:
    """The lowest relevant grade by the pack's manifest, which knows each collection's own rule."""
    return _grades(place.parent / MANIFEST).get(place.name, default)


@cache
def _grades(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    manifest = orjson.loads(path.read_bytes())
    return {entry["name"]: float(entry.get("relevant_from_grade", 1)) for entry in manifest.get("collections", [])}
