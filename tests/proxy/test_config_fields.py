"""What holds for a vector field: a collection's defaults, a field's own values, and names that stand for another."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossfade.proxy.config import Collection
from crossfade.proxy.config_fields import resolve_field
from crossfade.proxy.loading import read_config

COLLECTION = Collection.model_validate(
    {
        "index_model": "old",
        "query_model": "new",
        "adapters": {"new": "a/new", "newer": "a/newer"},
        "fields": {
            "plain": {},
            "flag": {"query_model": "newer"},
            "image": {"index_model": "clip"},
            "same": {"index_model": "old", "adapters": {"new": "b/new"}},
            "other": {"index_model": "clip", "query_model": "clip2", "adapters": {"clip2": "c/clip2"}},
            "sure": {"declares": "newer"},
        },
    }
)


@pytest.mark.parametrize(
    ("using", "name", "index_model", "query_model", "adapters", "declares"),
    [
        ("", "", "old", "new", {"new": "a/new", "newer": "a/newer"}, None),
        ("unlisted", "unlisted", "old", "new", {"new": "a/new", "newer": "a/newer"}, None),
        ("plain", "plain", "old", "new", {"new": "a/new", "newer": "a/newer"}, None),
        ("flag", "flag", "old", "newer", {"new": "a/new", "newer": "a/newer"}, None),
        ("image", "image", "clip", "clip", {}, None),
        ("same", "same", "old", "old", {"new": "b/new", "newer": "a/newer"}, None),
        ("other", "other", "clip", "clip2", {"clip2": "c/clip2"}, None),
        ("sure", "sure", "old", "new", {"new": "a/new", "newer": "a/newer"}, "newer"),
    ],
)
def test_a_field_is_resolved(
    using: str, name: str, index_model: str, query_model: str, adapters: dict[str, str], declares: str | None
) -> None:
    field = resolve_field(COLLECTION, using)
    assert (field.name, field.index_model, field.query_model, field.declares) == (
        name,
        index_model,
        query_model,
        declares,
    )
    assert field.adapters == {model: Path(path) for model, path in adapters.items()}
    assert field.models == {index_model, *adapters}


def test_loading_writes_out_the_defaults_that_depend_on_other_keys() -> None:
    text = """
        listen: {qdrant: {grpc: "127.0.0.1:1"}}
        upstreams: {only: {kind: qdrant, grpc: "127.0.0.1:2"}}
        models: {old: {dim: 2}}
        collections: {docs: {index_model: old}}
    """
    config = read_config(text, Path("/etc"), {})
    assert config.listen.qdrant is not None
    assert config.listen.qdrant.upstream == "only"
    assert config.collections["docs"].upstream == "only"
    assert config.collections["docs"].query_model == "old"
