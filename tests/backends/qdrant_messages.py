"""Random Qdrant gRPC messages, made from the tables of where vectors stand, which say what a reader must find."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import qdrant_client.grpc as grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from crossfade.backends.dialect import Float32, Role, ScoreKind, ScoreSlot, Slot, TextSlot
from tests.backends.qdrant_tables import ANSWERS, QUERY_VARIANTS, REQUESTS

# fmt: off
_BUILT = {  # what the builder sets itself, or leaves out on purpose
    "collection_name", "vector", "vectors", "vector_name", "using", "score_threshold", "with_vectors", "with_lookup",
    "sparse_indices", "positive_vectors", "negative_vectors", "strategy", "target", "context", "prefetch", "query",
    "positive", "negative", "pairs", "points", "operations", "search_points", "recommend_points", "discover_points",
    "query_points", "result", "groups", "hits", "lookup", "data", "indices", "vectors_count", "feedback", "example",
    "score", "nearest", "collection", "text", "model", "names",
}
# fmt: on
_SPARSE_FORMS = ("sparse", "legacy_sparse", "image", "object")
_FORMS = {
    "Vector": ("dense", "multi", "document", "legacy", "legacy_multi", *_SPARSE_FORMS),
    "VectorInput": ("dense", "multi", "document", "sparse", "image", "object", "id"),
    "VectorOutput": ("dense", "multi", "legacy", "legacy_multi", "sparse", "legacy_sparse"),
}


@dataclass
class Place:
    """One place the builder filled: what a slot must say of it, and how the message is changed there."""

    collection: str
    field: str
    rows: Float32 | None  # of vectors
    text: tuple[str, str] | None  # text and model
    score: float | None
    replace: Callable[[Any], None]
    kind: ScoreKind = "threshold"

    def key(self, role: Role) -> tuple[object, ...]:
        """What is compared with slot_key."""
        if self.score is not None:
            return ("score", self.collection, self.field, self.score, self.kind)
        if self.text is not None:
            return ("text", self.collection, self.field, role, *self.text)
        assert self.rows is not None
        return ("vector", self.collection, self.field, role, None, self.rows.shape, self.rows.tobytes())


def slot_key(slot: Slot) -> tuple[object, ...]:
    """A slot as a value that can be compared and sorted."""
    if isinstance(slot, ScoreSlot):
        return ("score", slot.collection, slot.field, slot.score, slot.kind)
    if isinstance(slot, TextSlot):
        return ("text", slot.collection, slot.field, slot.role, slot.text, slot.model)
    rows = np.ascontiguousarray(slot.rows)
    return ("vector", slot.collection, slot.field, slot.role, slot.model, rows.shape, rows.tobytes())


@dataclass
class Built:
    """A message and all that is to be found in it."""

    message: Any
    places: list[Place] = field(default_factory=list)
    wants_vectors: bool = False
    lookup: str | None = None


@dataclass
class Builder:
    """Makes one random message; `variant` picks the query of every level (None: any)."""

    rng: random.Random
    collection: str = "docs é"
    variant: str | None = None

    def request(self, name: str) -> Built:
        """A random request of the method with this name."""
        message_name, paths = REQUESTS[name]
        built = Built(getattr(grpc, message_name)(collection_name=self.collection))
        self._walk(built, built.message, paths)
        if name.endswith("Groups") and self.rng.random() < 0.7:
            self._add_lookup(built)
        if "Batch" not in name:
            self._select(built, built.message)
        self._finish(built)
        return built

    def answer(self, name: str, lookup: str) -> Built:
        """A random answer of the method with this name; looked-up points come from the collection `lookup`."""
        message_name, paths = ANSWERS[name]
        built = Built(getattr(grpc, message_name)())
        self._walk(built, built.message, paths, lookup)
        self._finish(built)
        return built

    def _add_lookup(self, built: Built) -> None:
        built.lookup = built.message.with_lookup.collection = "looked-up"
        self._select(built, built.message.with_lookup)

    def _select(self, built: Built, message: Any) -> None:
        if "with_vectors" not in message.DESCRIPTOR.fields_by_name:
            return
        choice = self.rng.choice(("absent", "true", "false", "names", "no names"))
        if choice == "names":
            message.with_vectors.include.names.extend(["a", "b"])
        elif choice == "no names":
            message.with_vectors.include.SetInParent()
        elif choice != "absent":
            message.with_vectors.enable = choice == "true"
        built.wants_vectors = built.wants_vectors or choice in ("true", "names")

    def _walk(self, built: Built, message: Any, paths: str, lookup: str = "") -> None:
        for path in paths.split():
            steps, _, leaf = path.partition(":")
            collection = lookup if ".lookup." in steps else self.collection
            self._step(built, message, steps.split(".") if steps else [], leaf, collection, "")

    def _step(self, built: Built, message: Any, steps: list[str], leaf: str, collection: str, name: str) -> None:
        """Go down one field; the field a vector belongs to is the one that the nearest message around it names."""
        fields = message.DESCRIPTOR.fields_by_name
        for using in ("using", "vector_name"):
            if using in fields and leaf != "Q":
                name = self._name_field(message, using)
        if "with_vectors" in fields and message is not built.message:
            self._select(built, message)
        if not steps or (leaf == "F" and len(steps) == 1):
            self._fill(built, message, leaf, collection, name)
            return
        step, *rest = steps
        below = getattr(message, step.removesuffix("[]"))
        for one in [below.add() for _ in range(self.rng.randint(1, 3))] if step.endswith("[]") else [below]:
            one.SetInParent()
            self._step(built, one, rest, leaf, collection, name)

    def _name_field(self, message: Any, using: str) -> str:
        if not message.HasField(using):
            setattr(message, using, self.rng.choice(("", "text", "ünnamed")))
        return str(getattr(message, using))

    def _fill(self, built: Built, message: Any, leaf: str, collection: str, name: str) -> None:
        if leaf == "F":
            self._fill_search(built, message, collection, name)
        elif leaf == "Q":
            self._fill_level(built, message, collection, 0)
        elif leaf in ("VS", "VO"):
            if self.rng.random() < 0.4:
                self._put(built, message.vector, collection, "")
            else:
                for key in self.rng.sample(("", "a", "b", "ü"), k=2):
                    self._put(built, message.vectors.vectors[key], collection, key)
        else:
            self._put(built, message, collection, name)

    def _fill_search(self, built: Built, message: Any, collection: str, name: str) -> None:
        rows = self._rows(1)
        message.vector.extend(rows[0].tolist())
        if self.rng.random() < 0.3:
            message.sparse_indices.data.extend(range(rows.size))
            message.score_threshold = 0.5
            return
        built.places.append(Place(collection, name, rows, None, None, lambda new: _set_floats(message.vector, new)))
        self._add_threshold(built, message, collection, name)

    def _add_threshold(self, built: Built, message: Any, collection: str, name: str, scored: bool = True) -> None:
        score = float(np.float32(self.rng.uniform(-1, 1)))
        message.score_threshold = score
        if scored:
            built.places.append(
                Place(collection, name, None, None, score, lambda new: setattr(message, "score_threshold", new))
            )

    def _fill_level(self, built: Built, message: Any, collection: str, depth: int) -> None:
        while depth < 4 and self.rng.random() < 0.4:
            self._fill_level(built, message.prefetch.add(), collection, depth + 1)
        name = self._name_field(message, "using")
        if self.rng.random() < 0.1:
            message.score_threshold = 0.25  # of no query: a threshold of nothing
            return
        variant = self.variant or self.rng.choice(list(QUERY_VARIANTS))
        before = len(built.places)
        scored = self._fill_variant(built, message.query, variant, collection, name)
        assert len(built.places) > before or variant != "relevance_feedback"
        self._add_threshold(built, message, collection, name, scored)

    def _fill_variant(self, built: Built, query: Any, variant: str, collection: str, name: str) -> bool:
        """Fill one variant; whether its results are scored by similarity in the space of the field."""
        if variant in ("fusion", "sample"):
            setattr(query, variant, 0)
        else:
            getattr(query, variant).SetInParent()
        for path in QUERY_VARIANTS[variant].split():
            steps, _, leaf = path.partition(":")
            self._step(built, query, steps.split("."), leaf, collection, name)
        for item in query.relevance_feedback.feedback if variant == "relevance_feedback" else ():
            self._score_feedback(built, item, collection, name)
        if variant == "recommend":
            query.recommend.strategy = self.rng.choice((0, 0, 1, 2))
            inputs = [*query.recommend.positive, *query.recommend.negative]
            return query.recommend.strategy == 0 and all(map(_is_dense, inputs))
        if variant == "nearest":
            return _is_dense(query.nearest)
        return variant == "nearest_with_mmr" and _is_dense(query.nearest_with_mmr.nearest)

    def _score_feedback(self, built: Built, item: Any, collection: str, name: str) -> None:
        item.score = self.rng.choice((0.0, 0.5, -0.25))
        built.places.append(
            Place(collection, name, None, None, item.score, lambda new: setattr(item, "score", new), kind="feedback")
        )

    def _put(self, built: Built, vector: Any, collection: str, name: str) -> None:
        """Put a random form of vector into a Vector, VectorInput or VectorOutput."""
        form = self.rng.choice(_FORMS[vector.DESCRIPTOR.name])
        text = (f"text {self.rng.random()} ü", "model-a") if form == "document" else None
        rows = self._rows(self.rng.randint(1, 3) if "multi" in form else 1)
        if text is not None:
            vector.document.text, vector.document.model = text
        else:
            _FILLERS[form](vector, rows)
        if form in ("dense", "multi", "legacy", "legacy_multi", "document"):
            replace = _SETTERS[form]
            place_rows = None if text else rows
            built.places.append(Place(collection, name, place_rows, text, None, lambda new: replace(vector, new)))

    def _rows(self, n: int) -> Float32:
        numbers = np.random.default_rng(self.rng.getrandbits(32))
        return numbers.normal(size=(n, self.rng.choice((1, 3, 40, 200)))).astype(np.float32)

    def _finish(self, built: Built) -> None:
        for request in (built.message, *getattr(built.message, "recommend_points", ())):
            if "positive_vectors" in request.DESCRIPTOR.fields_by_name:
                self._finish_recommend(built, request)
        self._add_noise(built.message)

    def _finish_recommend(self, built: Built, request: Any) -> None:
        if self.rng.random() < 0.7:
            request.strategy = self.rng.choice((0, 1, 2))
        inputs = [*request.positive_vectors, *request.negative_vectors]
        scored = request.strategy == 0 and all(map(_is_dense, inputs))
        self._add_threshold(built, request, self.collection, request.using, scored)

    def _add_noise(self, message: Any) -> None:
        """Fill fields that carry no vector, and add unknown ones, in every message of the tree."""
        for descriptor in message.DESCRIPTOR.fields:
            below = getattr(message, descriptor.name)
            if descriptor.message_type is not None and not descriptor.message_type.GetOptions().map_entry:
                present = below if descriptor.is_repeated else [below] if message.HasField(descriptor.name) else []
                for one in present:
                    self._add_noise(one)
            if descriptor.name in ("using", "vector_name") and not below and self.rng.random() < 0.5:
                message.ClearField(descriptor.name)  # the default vector, left unsaid
            if descriptor.name not in _BUILT and descriptor.containing_oneof is None and self.rng.random() < 0.3:
                fill_field(self.rng, message, descriptor)
        if self.rng.random() < 0.3:
            message.MergeFromString(b"\xf8\x7d\x96\x01" + b"\x82\x7e\x03abc" + b"\x8d\x7e\x00\x00\x80\x3f")


def _is_dense(vector: Any) -> bool:
    which = vector.WhichOneof("vector" if vector.DESCRIPTOR.name == "Vector" else "variant")
    return which not in ("sparse", "image", "object") and not (
        vector.DESCRIPTOR.name == "Vector" and vector.HasField("indices")
    )


def _set_floats(floats: Any, new: Any) -> None:
    del floats[:]
    floats.extend(np.asarray(new).ravel().tolist())


def _set_multi(vector: Any, rows: Any) -> None:
    vectors = vector.multi_dense.vectors
    for at, row in enumerate(rows):
        _set_floats((vectors[at] if at < len(vectors) else vectors.add()).data, row)


def _set_legacy_multi(vector: Any, rows: Any) -> None:
    vector.vectors_count = len(rows)
    _set_floats(vector.data, rows)


def _set_legacy_sparse(vector: Any, rows: Any) -> None:
    vector.indices.data.extend(range(rows.size))
    _set_floats(vector.data, rows)


def _set_sparse(vector: Any, rows: Any) -> None:
    vector.sparse.indices.extend(range(rows.size))
    vector.sparse.values.extend(rows.ravel().tolist())


_SETTERS: dict[str, Callable[[Any, Any], None]] = {
    "dense": lambda vector, rows: _set_floats(vector.dense.data, rows),
    "multi": _set_multi,
    "document": lambda vector, rows: _set_floats(vector.dense.data, rows),
    "legacy": lambda vector, rows: _set_floats(vector.data, rows),
    "legacy_multi": _set_legacy_multi,
}
_FILLERS: dict[str, Callable[[Any, Any], None]] = {
    **_SETTERS,
    "sparse": _set_sparse,
    "legacy_sparse": _set_legacy_sparse,
    "image": lambda vector, _: vector.image.MergeFrom(grpc.Image(model="clip")),
    "object": lambda vector, _: vector.object.MergeFrom(grpc.InferenceObject(model="any")),
    "id": lambda vector, _: vector.id.MergeFrom(grpc.PointId(num=7)),
}


def fill_message(rng: random.Random, message: Any, depth: int) -> None:
    """Fill a message at random, `depth` levels deep."""
    message.SetInParent()
    descriptor: Descriptor = message.DESCRIPTOR
    for one in descriptor.fields:
        if rng.random() < 0.4:
            fill_field(rng, message, one, depth)


def fill_field(rng: random.Random, message: Any, one: FieldDescriptor, depth: int = 2) -> None:
    """Fill one field at random."""
    below = getattr(message, one.name)
    if one.message_type is None:
        value = _random_scalar(rng, one)
        if one.is_repeated:
            below.append(value)
        else:
            setattr(message, one.name, value)
    elif one.message_type.GetOptions().map_entry:
        if depth:
            fill_message(rng, below[f"key{rng.random()}"], depth - 1)
    elif depth:
        fill_message(rng, below.add() if one.is_repeated else below, depth - 1)


def _random_scalar(rng: random.Random, one: FieldDescriptor) -> Any:
    if one.enum_type is not None:
        return rng.choice(one.enum_type.values).number
    by_type: dict[int, Any] = {
        FieldDescriptor.TYPE_STRING: f"word {rng.random()} ü",
        FieldDescriptor.TYPE_BOOL: True,
        FieldDescriptor.TYPE_FLOAT: 0.5,
        FieldDescriptor.TYPE_DOUBLE: rng.random(),
    }
    return by_type.get(one.type, rng.choice((0, 1, 127, 128, 70000)))
