"""Texts by path and by template."""

from __future__ import annotations

import pytest

from crossfade.backends.payload_text import compile_text

PAYLOAD = {
    "text": "plain",
    "title": "Title",
    "body": {"abstract": "short", "parts": [{"text": "one"}, {"other": 1}, {"text": "two"}]},
    "year": 1987,
    "tags": ["a", "b"],
    "nothing": None,
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("text", "plain"),
        ("payload.text", "plain"),
        ("body.abstract", "short"),
        ("body.parts.text", "one\ntwo"),
        ("tags", "a\nb"),
        ("year", "1987"),
        ("nothing", None),
        ("body", None),
        ("text.deeper", None),
        ("{title}: {body.abstract} ({year})", "Title: short (1987)"),
        ("{title}{absent}", "Title"),
        ("{{{title}}}", "{Title}"),
        ("{absent} {nothing}", None),
    ],
)
def test_a_text_is_read_from_the_payload(source: str, text: str | None) -> None:
    assert compile_text(source).read(PAYLOAD) == text


def test_only_the_keys_that_are_needed_are_asked_for() -> None:
    assert list(compile_text("{title} {body.abstract} {payload.body.parts}").keys) == ["title", "body"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{title", r"text template '\{title'"),
        ("{}", "empty key"),
        ("a..b", "empty key"),
        ("", "empty key"),
        ("{{x}}", "names no payload field"),
    ],
)
def test_a_broken_template_is_refused(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_text(source)
