"""The sections of a migration: defaults, and what is refused with key path and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossfade.proxy.config import Config
from crossfade.proxy.config_migrate import Migrate, wanted_percent
from crossfade.proxy.errors import ConfigError
from crossfade.proxy.loading import read_config
from crossfade.proxy.migration.places import journal_url, store_url

BASE = Path("/etc/crossfade")
GOOD = """\
listen: {qdrant: {grpc: "0.0.0.0:6334"}}
upstreams:
  main: {kind: qdrant, grpc: "qdrant:6334"}
models:
  old: {dim: 384}
  bare: {dim: 384}
  new: {dim: 384, encoder: {python: "encoders:encode"}}
migrations: {}
collections:
  other: {index_model: old}
  docs:
    index_model: old
    text: payload.text
    migrate:
      to: new
"""


def read(text: str) -> Config:
    return read_config(text, BASE, {})


def migrate_of(text: str) -> Migrate:
    migrate = read(text).collections["docs"].migrate
    assert migrate is not None
    return migrate


def test_a_model_is_enough_and_the_rest_is_filled_in() -> None:
    migrate = migrate_of(GOOD)
    assert (migrate.target, migrate.text, migrate.goal, migrate.writes) == (
        "docs--new",
        "payload.text",
        "none",
        "closed",
    )
    assert (migrate.strategy, migrate.shadow, migrate.read_your_writes, migrate.pace.workers) == ("auto", 0, 1.0, 4)


def test_a_target_on_milvus_has_a_name_that_milvus_takes() -> None:
    text = GOOD.replace("qdrant: {grpc", "milvus: {address").replace("kind: qdrant", "kind: milvus")
    assert migrate_of(text.replace("new:", "e5.small:").replace("to: new", "to: e5.small")).target == "docs__e5_small"


def test_limits_are_those_that_can_be_set_by_hand_too() -> None:
    pace = migrate_of(GOOD + "      pace: {rate: 10, hours: 22:00-06:00, flag_file: stop, latency_ms: 20}\n").pace
    assert (pace.rate, pace.hours, pace.flag_file, pace.latency_ms) == (10, "22:00-06:00", BASE / "stop", 20)


def test_migrations_are_kept_beside_the_file_unless_databases_are_given() -> None:
    assert store_url(read(GOOD)) == "sqlite:////etc/crossfade/.crossfade/migrations/store.sqlite"
    assert journal_url(read(GOOD)) == "sqlite:////etc/crossfade/.crossfade/migrations/journal.sqlite"
    url = "postgresql+psycopg://me:secret@db/x"
    config = read(GOOD.replace("migrations: {}", f'migrations: {{store: "{url}", journal: "{url}"}}'))
    assert (store_url(config), journal_url(config)) == (url, url)
    assert "secret" not in repr(config)


@pytest.mark.parametrize(("goal", "percent"), [("none", None), ("copied", 0), ("2.5%", 2.5), ("switched", 100)])
def test_a_goal_is_a_share_of_reads(goal: str, percent: float | None) -> None:
    assert migrate_of(f"{GOOD}      goal: {goal}\n").goal == goal
    assert wanted_percent(goal) == percent


@pytest.mark.parametrize(
    ("old", "new", "path", "line", "message"),
    [
        (
            "to: new",
            "to: nwe",
            "migrate.to",
            15,
            "names the model 'nwe', which models does not have; did you mean 'new'?",
        ),
        ("to: new", "to: old", "migrate.to", 15, "is 'old', which is the index_model already"),
        ("to: new", "to: bare", "migrate.to", 15, "is 'bare', which has no encoder; add models.bare.encoder"),
        ("to: new", "target: x", "migrate.to", 14, "is missing"),
        ("    text: payload.text\n", "", "migrate", 13, "does not say where a document's text is"),
        ("to: new", "to: new\n      text: '{'", "migrate.text", 16, "{"),
        (
            "to: new",
            "to: new\n      target: docs",
            "migrate.target",
            16,
            "is 'docs', which is collections.docs already",
        ),
        ("to: new", "to: new\n      target: other", "migrate.target", 16, "collections.other already"),
        ("to: new", "to: new\n      goal: soon", "migrate.goal", 16, "'soon' is no goal; write none, copied, a share"),
        ("to: new", "to: new\n      goal: 101%", "migrate.goal", 16, "is no goal"),
        ("to: new", "to: new\n      pace: {rate: 0}", "migrate.pace.rate", 16, "is 0; it must be more than 0"),
        (
            "to: new",
            "to: new\n      pace: {hours: soon}",
            "migrate.pace.hours",
            16,
            "'soon' is no span of hours; write",
        ),
        ("to: new", "to: new\n      pace: {speed: 1}", "migrate.pace.speed", 16, "is no key Crossfade knows"),
        ("to: new", "to: new\n      shadow: 101", "migrate.shadow", 16, "it must be at most 100"),
        (
            "to: new",
            "to: new\n      ramp:\n        - {percent: 5, hold: 1m}\n        - {percent: 5, hold: 1m}",
            "migrate.ramp.1.percent",
            18,
            "is 5 after 5; steps have to rise",
        ),
        ("to: new", "to: new\n      ramp: [{percent: 5, hold: 9}]", "migrate.ramp.0.hold", 16, "has no unit"),
        (
            "to: new",
            "to: new\n      ramp: [{percent: 5, wait: 9s}]",
            "migrate.ramp.0.wait",
            16,
            "keys here are percent",
        ),
        (
            "to: new",
            "to: new\n      goal: 1%\n      ramp: [{percent: 5, hold: 1m}]",
            "migrate.goal",
            16,
            "less than the first step of ramp, 5",
        ),
        ("to: new", "to: new\n      guardrails: {overlap: 0.5}", "migrate.guardrails.overlap", 16, "shadow is 0"),
    ],
)
def test_a_migration_that_cannot_be_is_refused(old: str, new: str, path: str, line: int, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as raised:
        read(GOOD.replace(old, new))
    told = {(problem.path, problem.line): problem.message for problem in raised.value.problems}
    assert message in told[f"collections.docs.{path}", line]


@pytest.mark.parametrize(
    ("databases", "path", "message"),
    [
        ("{store: /tmp/x}", "migrations.store", "(not shown) is no database URL; write sqlite:////path/to/file"),
        ("{store: 'sqlite:////x', journal: 'sqlite:////x'}", "migrations.journal", "is the same SQLite file as store"),
    ],
)
def test_a_database_that_cannot_be_is_refused(databases: str, path: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(GOOD.replace("migrations: {}", f"migrations: {databases}"))
    assert [(problem.path, problem.line) for problem in raised.value.problems] == [(path, 8)]
    assert message in raised.value.problems[0].message


def test_two_migrations_with_one_target_are_refused() -> None:
    text = GOOD.replace("index_model: old}", "index_model: old, text: t, migrate: {to: new, target: docs--new}}")
    with pytest.raises(ConfigError, match=r"is 'docs--new', which is the target of collections.other already"):
        read(text)
