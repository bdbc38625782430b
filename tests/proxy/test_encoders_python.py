"""The python encoder: the operator's own functions, among them a real model held against the data pack's vectors."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from crossfade.proxy.config_models import EncoderChoice, Model
from crossfade.proxy.encoders import ModelEncoder, build_encoder
from crossfade.proxy.errors import EncoderFailed, EncoderMissing

DATA = Path(os.environ.get("CROSSFADE_DATA", Path(__file__).parents[3] / "shared" / "data"))

FUNCTIONS = """
    from pathlib import Path

    import numpy as np

    def one_hot(texts, role):
        return [[float(role == "query"), len(text)] for text in texts]

    async def one_hot_async(texts, role):
        return np.array(one_hot(texts, role))

    def broken(texts, role):
        raise LookupError("no weights")

    def too_few(texts, role):
        return np.zeros((len(texts) - 1, 2))

    not_callable = 3
    loaded = []

    def wordllama(texts, role):
        import wordllama as wordllama_package
        from wordllama import WordLlama

        if not loaded:
            inside = Path(wordllama_package.__file__).parent
            loaded.append(WordLlama.load(config="l2_supercat", dim=256, cache_dir=inside, disable_download=True))
        return loaded[0].embed(texts, norm=True)
"""


@pytest.fixture(autouse=True)
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the operator's on the import path."""
    (tmp_path / "own_encoders.py").write_text(textwrap.dedent(FUNCTIONS))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_encoders", raising=False)


def encoder_for(function: str, dim: int = 2) -> ModelEncoder:
    choice = EncoderChoice.model_validate({"python": f"own_encoders:{function}"})
    return build_encoder("own", Model(dim=dim, encoder=choice))


@pytest.mark.parametrize("function", ["one_hot", "one_hot_async"])
async def test_a_function_gets_texts_and_role_and_may_be_plain_or_async(function: str) -> None:
    encoder = encoder_for(function)
    assert (await encoder.encode(["a", "abc"], "query")).tolist() == [[1, 1], [1, 3]]
    assert (await encoder.encode(["a", "abc"], "passage")).tolist() == [[0, 1], [0, 3]]


async def test_what_a_function_raises_is_told_with_its_name() -> None:
    with pytest.raises(EncoderFailed, match="own_encoders:broken failed: LookupError: no weights"):
        await encoder_for("broken").encode(["a"], "query")


async def test_an_array_with_too_few_rows_is_refused() -> None:
    with pytest.raises(EncoderFailed, match=r"shape \(1, 2\) for 2 texts"):
        await encoder_for("too_few").encode(["a", "b"], "query")


@pytest.mark.parametrize(
    ("function", "reason"),
    [("absent", "has no attribute 'absent'"), ("not_callable", "is int, which cannot be called")],
)
def test_a_function_that_is_not_there_is_told_when_the_encoder_is_built(function: str, reason: str) -> None:
    with pytest.raises(EncoderMissing, match=reason):
        encoder_for(function)


def test_a_model_without_an_encoder_says_which_key_to_add() -> None:
    with pytest.raises(EncoderMissing, match=r"add models\.old\.encoder"):
        build_encoder("old", Model(dim=2))


def test_sentence_transformers_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    choice = EncoderChoice.model_validate({"sentence_transformers": {"model": "all-MiniLM-L6-v2"}})
    with pytest.raises(EncoderMissing, match=r"crossfade\[encoders\]"):
        build_encoder("st", Model(dim=2, encoder=choice))


async def test_a_real_model_gives_the_vectors_of_the_data_pack() -> None:
    pytest.importorskip("wordllama", reason="the extra test is not installed")
    folder = DATA / "scifact"
    if not folder.is_dir():
        pytest.skip(f"no evaluation data at {DATA}; set CROSSFADE_DATA")
    with gzip.open(folder / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in itertools.islice(lines, 300)]
    stored = np.load(folder / "docs.wordllama.f16.npy", mmap_mode="r")[:300].astype(np.float32)
    rows = await encoder_for("wordllama", 256).encode(texts, "passage")
    cosine = np.sum(rows * stored, axis=1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(stored, axis=1)
    assert cosine.min() > 0.999
