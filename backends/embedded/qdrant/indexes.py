"""Payload indexes: what clients ask for, what the engine is told, and what is reported back."""

from __future__ import annotations

from typing import Any

from qdrant_client import grpc as pb

from .config import read_memory
from .engine import edge
from .errors import Unsupported, WrongInput
from .values import given

_TYPES = {
    pb.FieldType.FieldTypeKeyword: "Keyword",
    pb.FieldType.FieldTypeInteger: "Integer",
    pb.FieldType.FieldTypeFloat: "Float",
    pb.FieldType.FieldTypeGeo: "Geo",
    pb.FieldType.FieldTypeText: "Text",
    pb.FieldType.FieldTypeBool: "Bool",
    pb.FieldType.FieldTypeDatetime: "Datetime",
    pb.FieldType.FieldTypeUuid: "Uuid",
}
_FLAGS = ("is_tenant", "is_principal", "lookup", "range", "on_disk", "enable_hnsw", "nested")
_TEXT_FLAGS = ("min_token_len", "max_token_len", "lowercase", "ascii_folding", "phrase_matching", "on_disk")


def read_index(request: pb.CreateFieldIndexCollection) -> tuple[str, Any]:
    """The key and the engine's schema of a new payload index; a type or parameters must be given."""
    kind = request.field_index_params.WhichOneof("index_params") if request.HasField("field_index_params") else None
    if kind is not None:
        return request.field_name, _read_params(kind, getattr(request.field_index_params, kind))
    if not request.HasField("field_type"):
        raise WrongInput(f"Index on `{request.field_name}`: neither a field type nor parameters given")
    return request.field_name, getattr(edge.PayloadSchemaType, _TYPES[request.field_type])


def _read_params(kind: str, params: Any) -> Any:
    if kind == "text_index_params":
        return _read_text(params)
    flags = {flag: given(params, flag) for flag in _FLAGS if flag in params.DESCRIPTOR.fields_by_name}
    if kind == "keyword_index_params":
        flags["prefix"] = params.HasField("prefix") or None
    name = kind.removesuffix("_index_params").title() + "IndexParams"
    if not hasattr(edge, name):
        raise Unsupported(f"parameters of a {kind.removesuffix('_index_params')} index; give its type alone")
    return getattr(edge, name)(**flags, memory=read_memory(params))


def _read_text(params: pb.TextIndexParams) -> Any:
    tokenizer = None
    if params.tokenizer != pb.TokenizerType.Unknown:
        tokenizer = getattr(edge.TokenizerType, pb.TokenizerType.Name(params.tokenizer))
    return edge.TextIndexParams(
        tokenizer=tokenizer,
        stopwords=_read_stopwords(params.stopwords) if params.HasField("stopwords") else None,
        stemmer=_read_stemmer(params.stemmer),
        scoring=True if params.HasField("scoring") else None,
        enable_hnsw=given(params, "enable_hnsw"),
        nested=given(params, "nested"),
        memory=read_memory(params),
        **{flag: given(params, flag) for flag in _TEXT_FLAGS},
    )


def _read_stopwords(stopwords: pb.StopwordsSet) -> Any:
    languages = {_language(edge.Language, name) for name in stopwords.languages}
    return edge.StopwordsSet(languages or None, set(stopwords.custom) or None)


def _read_stemmer(stemmer: pb.StemmingAlgorithm) -> Any:
    match stemmer.WhichOneof("stemming_params"):
        case "snowball":
            return edge.SnowballParams(_language(edge.SnowballLanguage, stemmer.snowball.language))
        case "disabled":
            return edge.DisabledStemmer()
    return None


def _language(languages: Any, name: str) -> Any:
    found = getattr(languages, name.capitalize(), None)
    if found is None:
        known = ", ".join(sorted(item.lower() for item in dir(languages) if item[0].isupper()))
        raise WrongInput(f"Unknown language `{name}`; known are {known}")
    return found


def write_schema(schema: Any, into: pb.PayloadSchemaInfo) -> None:
    """Describe an index as the engine reports it: type, points and parameters."""
    name = str(schema.data_type).rpartition(".")[2]
    into.data_type = pb.PayloadSchemaType.Value(name)
    into.points = schema.points
    if schema.params is not None:
        _write_params(schema.params, getattr(into.params, f"{name.lower()}_index_params"))


def _write_params(params: Any, into: Any) -> None:
    into.SetInParent()
    for flag in {*_FLAGS, *_TEXT_FLAGS}:
        value = getattr(params, flag, None)
        if value is not None and flag in into.DESCRIPTOR.fields_by_name:
            setattr(into, flag, value)
    if getattr(params, "prefix", None):
        into.prefix.SetInParent()
    if isinstance(into, pb.TextIndexParams):
        _write_text(params, into)


def _write_text(params: Any, into: pb.TextIndexParams) -> None:
    into.tokenizer = pb.TokenizerType.Value(str(params.tokenizer).rpartition(".")[2])
    stopwords, stemmer = params.stopwords, params.stemmer
    if isinstance(stopwords, edge.StopwordsSet):
        into.stopwords.languages.extend(_name(language) for language in stopwords.languages or ())
        into.stopwords.custom.extend(stopwords.custom or ())
    if isinstance(stemmer, edge.SnowballParams):
        into.stemmer.snowball.language = _name(stemmer.language)
    elif isinstance(stemmer, edge.DisabledStemmer):
        into.stemmer.disabled.SetInParent()
    if params.scoring is not None:
        into.scoring.type = pb.TextScoringType.Bm25


def _name(member: Any) -> str:
    return str(member).rpartition(".")[2].lower()
