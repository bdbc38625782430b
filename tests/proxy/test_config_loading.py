"""Reading a configuration: every problem at once, each with its line, its key path and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crossfade.proxy.config import Config
from crossfade.proxy.errors import ConfigError, Problem
from crossfade.proxy.loading import load_config, read_config

BASE = Path("/etc/crossfade")
GOOD = """
listen:
  qdrant: {grpc: "0.0.0.0:6334", rest: "0.0.0.0:6333"}
upstreams:
  main: {kind: qdrant, grpc: "qdrant:6334", rest: "http://qdrant:6333"}
models:
  old: {dim: 384}
  new: {dim: 384}
collections:
  docs:
    index_model: old
    query_model: new
    adapters: {new: adapters/new--old}
"""


def read(text: str, **environ: str) -> Config:
    return read_config(text, BASE, environ)


def problems(text: str, **environ: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as raised:
        read(text, **environ)
    return raised.value.problems


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_file_is_read_and_paths_start_at_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "crossfade.yaml"
    path.write_text(GOOD)
    assert load_config(path, {}).collections["docs"].adapters["new"] == tmp_path / "adapters" / "new--old"


@pytest.mark.parametrize(
    ("old", "new", "path", "line", "message"),
    [
        ("dim: 384}\n  new", "dim: many}\n  new", "models.old.dim", 7, "'many'; expected a whole number"),
        ("dim: 384}\n  new", "dim: 0}\n  new", "models.old.dim", 7, "0; it must be at least 1"),
        ("dim: 384}\n  new", "}\n  new", "models.old.dim", 7, "is missing"),
        ("dim: 384}\n  new", "dim: 384, encoder: {}}\n  new", "models.old.encoder", 7, "names no encoder"),
        (
            "dim: 384}\n  new",
            'dim: 384, encoder: {python: "a:b", openai: {base_url: "http://x/v1", model: m}}}\n  new',
            "models.old.encoder",
            7,
            "names openai and python; give exactly one",
        ),
        (
            "dim: 384}\n  new",
            'dim: 384, encoder: {openai: {base_url: "http://x/v1", model: m, dimensions: 256}}}\n  new',
            "models.old.encoder.openai.dimensions",
            7,
            "asks for 256 dimensions, but models.old.dim is 384",
        ),
        ("kind: qdrant", "kind: quadrant", "upstreams.main.kind", 5, "'quadrant'; allowed: 'qdrant' or 'milvus'"),
        ('grpc: "qdrant:6334"', "grpc: qdrant", "upstreams.main.grpc", 5, "'qdrant' is no address"),
        ("http://qdrant:6333", "http://qdrant:6333/x", "upstreams.main.rest", 5, "must be only"),
        (
            "http://qdrant:6333",
            "https://qdrant:6333",
            "upstreams.main",
            5,
            "rest over https://, but grpc without TLS; add tls: {}",
        ),
        ("kind: qdrant,", "kind: qdrant, tls: {},", "upstreams.main", 5, "has tls, but rest is http://"),
        ("kind: qdrant,", "kind: qdrant, embedded: ./x,", "upstreams.main", 5, "is embedded and has grpc, rest or tls"),
        ("kind: qdrant,", "kind: qdrant, connect_timeout: 0,", "upstreams.main.connect_timeout", 5, "more than 0"),
        ("kind: qdrant,", "kind: qdrant, api_key: 123,", "upstreams.main.api_key", 5, "put it in quotes"),
        ("index_model: old", "index_model: odl", "collections.docs.index_model", 11, "did you mean 'old'?"),
        ("query_model: new", "query_model: gpt", "collections.docs.query_model", 12, "known are old, new"),
        ("{new: adapters/new--old}", "{}", "collections.docs.query_model", 12, "'new', the index_model is 'old'"),
        ("{new: adapters", "{nwe: x, new: adapters", "collections.docs.adapters.nwe", 13, "did you mean 'new'?"),
        ("{new: adapters", "{old: x, new: adapters", "collections.docs.adapters.old", 13, "index_model itself"),
        ("    query_model", "    upstream: other\n    query_model", "collections.docs.upstream", 12, "known are main"),
        ("0.0.0.0:6333", "127.0.0.1:6334", "listen.qdrant.rest", 3, "one port cannot be opened twice"),
        ("0.0.0.0:6333", "127.0.0.1:6380", "listen.qdrant.rest", 3, "listen.admin is 127.0.0.1:6380"),
        ('grpc: "qdrant:6334"', 'grpc: "127.0.0.1:6334"', "upstreams.main.grpc", 5, "Crossfade's own port"),
        (', rest: "http://qdrant:6333"', "", "listen.qdrant.rest", 3, "'main' has no rest address"),
        ("  qdrant: {grpc", "  qdrant: {upstream: man, grpc", "listen.qdrant.upstream", 3, "did you mean 'main'?"),
        ("    query_model", "    text: '{a'\n    query_model", "collections.docs.text", 12, "text template '{a'"),
        ("    query_model", "    text: '{}'\n    query_model", "collections.docs.text", 12, "empty key"),
        ("models:\n", "detect: {fingerprint: sure}\nmodels:\n", "detect.fingerprint", 6, "'off', 'count', 'warn'"),
        ("models:\n", "limits: {body: 10}\nmodels:\n", "limits.body", 6, "has no unit"),
        ("models:\n", "answers: {mark: perhaps}\nmodels:\n", "answers.mark", 6, "expected true or false"),
        ("models:\n", "detect: {header: a b}\nmodels:\n", "detect.header", 6, "it must match"),
        (
            "models:\n",
            "detect: {clients: {models: {ui: nwe}}}\nmodels:\n",
            "detect.clients.models.ui",
            6,
            "did you mean 'new'?",
        ),
    ],
)
def test_a_wrong_value_is_told_with_path_line_and_what_to_do(
    old: str, new: str, path: str, line: int, message: str
) -> None:
    found = problems(changed(old, new))
    assert [(problem.path, problem.line) for problem in found] == [(path, line)]
    assert message in found[0].message


@pytest.mark.parametrize(
    ("field", "path", "message"),
    [
        ("t: {index_model: lod}", "t.index_model", "did you mean 'old'?"),
        ("t: {index_model: new, query_model: old}", "t.query_model", "there is no adapter"),
        ("t: {declares: nwe}", "t.declares", "did you mean 'new'?"),
        ("t: {index_model: new, declares: old}", "t.declares", "there is no adapter"),
        ("t: {adapters: {new: [x]}}", "t.adapters.new", "expected a path"),
    ],
)
def test_a_wrong_field_is_told_with_its_path(field: str, path: str, message: str) -> None:
    found = problems(GOOD + f"    fields: {{{field}}}\n")
    assert [problem.path for problem in found] == [f"collections.docs.fields.{path}"]
    assert message in found[0].message


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    text = changed("dim: 384}\n  new", "dim: no, dmi: 3}\n  new").replace("query_model: new", "query_model: neww")
    text = text.replace("kind: qdrant", "kind: redis").replace("adapters/new--old", "'${MISSING}'")
    found = [(problem.line, problem.path) for problem in problems(text)]
    assert found == [
        (5, "upstreams.main.kind"),
        (7, "models.old.dim"),
        (7, "models.old.dmi"),
        (12, "collections.docs.query_model"),
        (13, "collections.docs.adapters.new"),
    ]


def test_several_upstreams_ask_which_one_is_meant() -> None:
    text = changed("models:\n", '  second: {kind: qdrant, grpc: "q:1"}\nmodels:\n')
    found = {problem.path: problem.message for problem in problems(text)}
    assert "main, second are all of kind qdrant" in found["listen.qdrant"]
    assert "add upstream: one of main, second" in found["collections.docs"]


def test_a_collection_on_an_upstream_that_nobody_serves_is_told() -> None:
    text = changed("models:\n", '  second: {kind: qdrant, grpc: "q:1"}\nmodels:\n')
    text = text.replace('qdrant: {grpc: "0', 'qdrant: {upstream: main, grpc: "0')
    text = text.replace("    query_model", "    upstream: second\n    query_model")
    assert [(p.path, p.message) for p in problems(text)] == [
        ("collections.docs.upstream", "is on upstream 'second', which no listener serves; set listen.qdrant.upstream")
    ]


def test_two_embedded_upstreams_cannot_share_a_directory() -> None:
    text = changed("models:\n", "  a: {kind: qdrant, embedded: ./x}\n  b: {kind: qdrant, embedded: ./x}\nmodels:\n")
    text = text.replace('qdrant: {grpc: "0', 'qdrant: {upstream: main, grpc: "0')
    text = text.replace("    query_model", "    upstream: main\n    query_model")
    assert [problem.path for problem in problems(text)] == ["upstreams.b.embedded"]


def test_a_file_that_opens_no_port_or_names_no_database_is_told() -> None:
    assert [(p.path, p.message.split(";")[0]) for p in problems("listen: {}\nupstreams: {}")] == [
        ("listen", "opens no port for a database"),
        ("upstreams", "names no database"),
    ]


def test_a_secret_is_shown_neither_in_errors_nor_in_the_configuration() -> None:
    text = changed("kind: qdrant,", "kind: qdrant, api_key: 987654321,")
    assert all("987654321" not in str(problem) for problem in problems(text))
    config = read(changed("kind: qdrant,", "kind: qdrant, api_key: '${KEY}',"), KEY="987654321")
    assert "987654321" not in repr(config)
    assert config.upstreams["main"].api_key is not None
    assert config.upstreams["main"].api_key.get_secret_value() == "987654321"


def test_variables_are_replaced_in_values_and_become_what_the_key_takes() -> None:
    text = changed("dim: 384}\n  new", "dim: '${DIM}', cache: '${CACHE:-7}'}\n  new").replace(
        "qdrant:6334", "${HOST:-q}:${PORT}"
    )
    config = read(text + "# ${UNSET} in a comment\n", DIM="128", PORT="1", HOST="")
    assert (config.models["old"].dim, config.models["old"].cache) == (128, 7)
    assert str(config.upstreams["main"].grpc) == "q:1"


def test_a_variable_in_a_key_is_left_alone_and_a_doubled_dollar_is_literal() -> None:
    text = changed("  new: {dim: 384}", "  new: {dim: 384, query_prefix: '$${X} $Y '}\n  '${K}': {dim: 1}")
    config = read(text, K="x")
    assert "${K}" in config.models
    assert config.models["new"].query_prefix == "${X} $Y "


def test_a_missing_variable_is_told_with_its_line_and_nothing_else_about_that_key() -> None:
    found = problems(changed("dim: 384}\n  new", "dim: '${DIM}'}\n  new"))
    assert [(problem.line, problem.path) for problem in found] == [(7, "models.old.dim")]
    assert "DIM, which is not set" in found[0].message


def test_a_variable_without_quotes_between_braces_is_told_how_to_write_it() -> None:
    found = problems(changed("dim: 384}\n  new", "dim: ${DIM}}\n  new"))
    assert found[0].line == 7
    assert "put ${...} in quotes where it stands between { and }" in found[0].message


def test_a_variable_that_cannot_be_one_is_told() -> None:
    found = problems(changed("adapters/new--old", "'${a-b}'"))
    assert [problem.line for problem in found] == [13]
    assert "${NAME:-default}" in found[0].message


@pytest.mark.parametrize("word", ["off", "count", "warn", "refuse"])
def test_fingerprint_takes_its_words_without_quotes(word: str) -> None:
    assert read(GOOD + f"detect: {{fingerprint: {word}}}").detect.fingerprint == word


@pytest.mark.parametrize(("word", "value"), [("true", True), ("false", False), ("on", True), ("no", False)])
def test_booleans_may_be_written_either_way(word: str, value: bool) -> None:
    assert read(GOOD + f"answers: {{mark: {word}}}").answers.mark is value


def test_a_name_that_looks_like_a_number_or_null_stays_a_name() -> None:
    text = GOOD.replace("docs:", "2024:").replace("old:", "null:").replace("index_model: old", "index_model: 'null'")
    assert list(read(text).collections) == ["2024"]


def test_a_name_with_dots_is_quoted_in_paths() -> None:
    found = problems(GOOD.replace("docs:", "docs.v2:").replace("index_model: old", "index_model: odl"))
    assert [problem.path for problem in found] == ['collections."docs.v2".index_model']


def test_a_key_given_twice_is_told_with_both_lines() -> None:
    found = problems(changed("    query_model: new\n", "    query_model: new\n    query_model: old\n"))
    assert [(problem.line, problem.path) for problem in found] == [(13, "collections.docs.query_model")]
    assert "first in line 12" in found[0].message


def test_anchors_and_merges_work_and_an_endless_alias_is_told() -> None:
    text = changed("  old: {dim: 384}\n  new: {dim: 384}", "  old: &m {dim: 384}\n  new: {<<: *m, cache: 3}")
    assert (read(text).models["new"].dim, read(text).models["new"].cache) == (384, 3)
    found = problems(changed("  old: {dim: 384}", "  old: &m {dim: 384, encoder: *m}"))
    assert any("alias to something it stands in" in problem.message for problem in found)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "is empty"),
        ("- a", None, "is a list, not a mapping"),
        ("listen: [", 1, "is not YAML"),
        ("a: 1\nb: c: 2", 2, "is not YAML"),
        ("a: 1\n\tb: 2", 2, "is not YAML"),
        ("a: \x07", 1, "U+0007"),
        ("a: !python/name:os.system x", 1, "has no meaning here"),
        ("a: 1\n---\nb: 2", 2, "is not YAML"),
    ],
)
def test_a_text_that_is_no_configuration_is_told_with_its_line(text: str, line: int | None, message: str) -> None:
    found = problems(text)
    assert (found[0].line, message in found[0].message) == (line, True), found


def test_a_section_left_empty_says_nothing() -> None:
    assert read(GOOD + "limits:\ndetect:\n") == read(GOOD)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml.*\n.*No such file"):
        load_config(tmp_path / "absent.yaml", {})
    (tmp_path / "latin.yaml").write_bytes(b"listen: \xe9")
    with pytest.raises(ConfigError, match="is not UTF-8: byte 8"):
        load_config(tmp_path / "latin.yaml", {})


def test_the_message_of_the_error_lists_file_count_and_lines() -> None:
    with pytest.raises(ConfigError) as raised:
        read_config(changed("kind: qdrant", "kind: x"), BASE, {}, source="crossfade.yaml")
    assert re.fullmatch(
        r"crossfade\.yaml: 1 problem\n  line 5: upstreams\.main\.kind: is 'x'; allowed: 'qdrant' or 'milvus'",
        str(raised.value),
    )
