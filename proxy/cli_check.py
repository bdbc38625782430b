"""`crossfade check` and `crossfade schema`: what a configuration will do, and what a configuration can say."""

from __future__ import annotations

import enum
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_serve import ConfigPath

if TYPE_CHECKING:
    from crossfade.adapters.base import Adapter

    from .config import Config
    from .errors import Problem
    from .routing import AdapterKey


class SchemaFormat(enum.StrEnum):
    """What `crossfade schema` prints."""

    JSON = "json"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """What Crossfade will do with one vector field: `using` is its name."""

    collection: str
    upstream: str
    using: str
    index_model: str
    query_model: str
    action: str
    adapters: dict[str, dict[str, Any]]


def check(
    config: ConfigPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Validate a configuration and say what it will do.

    Loads every adapter, sets up every encoder and reads every certificate it names; every problem is told at once, and
    the exit code is 1.
    """
    from .certificates import find_problems
    from .cli_output import print_json
    from .errors import ConfigError
    from .loading import load_config

    try:
        loaded = load_config(config)
        adapters, problems = _load_adapters(loaded)
        problems += _try_encoders(loaded) + _read_verdicts(loaded) + find_problems(loaded)
        if problems:
            raise ConfigError(_with_lines(problems, config), str(config))
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"config": config, "valid": False, "problems": [asdict(problem) for problem in error.problems]})
        raise typer.Exit(1) from None
    plans = list(_plan(loaded, adapters))
    if as_json:
        print_json({"config": config, "valid": True, "problems": [], "collections": [asdict(plan) for plan in plans]})
    else:
        _print_plans(config, loaded, plans)


def schema(
    form: Annotated[SchemaFormat, typer.Option("--format", help="JSON Schema, or a Markdown table of all keys.")] = (
        SchemaFormat.JSON
    ),
) -> None:
    """Print the configuration's JSON Schema, or the table of its keys."""
    import json

    from .config_reference import build_schema, render_table

    as_table = form is SchemaFormat.TABLE
    typer.echo(render_table().rstrip() if as_table else json.dumps(build_schema(), indent=2, ensure_ascii=False))


def _load_adapters(config: Config) -> tuple[dict[AdapterKey, Adapter], list[Problem]]:
    from .errors import AdapterUnavailable, Problem
    from .live import AdapterShelf
    from .routing import adapter_keys, wrong_dims

    shelf, loaded, problems = AdapterShelf(), {}, []
    dims = {name: model.dim for name, model in config.models.items()}
    for key in adapter_keys(config):
        try:
            loaded[key] = shelf.load(key)
            problems += [Problem(_key_path(config, key), None, text) for text in wrong_dims(loaded[key], key, dims)]
        except AdapterUnavailable as error:
            problems.append(Problem(_key_path(config, key), None, _spell_cause(key, error)))
    return loaded, list(dict.fromkeys(problems))  # one adapter may serve several fields


def _read_verdicts(config: Config) -> list[Problem]:
    from .errors import Problem, VerdictUnusable
    from .verdicts import load_verdict
    from .yaml_lines import spell_path

    problems = []
    for name in config.collections:
        try:
            load_verdict(config, name)
        except VerdictUnusable as error:
            problems.append(Problem(spell_path(("collections", name, "migrate", "verdict")), None, error.reason))
    return problems


def _spell_cause(key: AdapterKey, error: Exception) -> str:
    cause = error.__cause__
    if isinstance(cause, OSError):
        return f"{key.path}: {cause.strerror}; make an adapter with `crossfade fit`, or correct the path"
    return str(cause or error)


def _key_path(config: Config, key: AdapterKey) -> str:
    """The key that names an adapter: the field's own, or else the collection's."""
    from .yaml_lines import spell_path

    fields = config.collections[key.collection].fields
    own = key.field in fields and key.model in fields[key.field].adapters
    between = ("fields", key.field) if own else ()
    return spell_path(("collections", key.collection, *between, "adapters", key.model))


def _try_encoders(config: Config) -> list[Problem]:
    """Set up every encoder without encoding anything: imports a function, finds a package."""
    from .encoders import build_encoder
    from .errors import EncoderMissing, Problem
    from .yaml_lines import spell_path

    problems = []
    for name, model in config.models.items():
        if model.encoder is not None:
            try:
                build_encoder(name, model)
            except EncoderMissing as error:
                problems.append(Problem(spell_path(("models", name, "encoder")), None, str(error)))
    return problems


def _with_lines(problems: list[Problem], path: Path) -> list[Problem]:
    from dataclasses import replace

    from .yaml_lines import read_yaml, spell_path

    document = read_yaml(path.read_text(encoding="utf-8"), os.environ)
    lines = {spell_path(key): line for key, line in document.lines.items()}
    found = [replace(problem, line=lines.get(problem.path)) for problem in problems]
    return sorted(found, key=lambda problem: problem.line or 0)


def _plan(config: Config, adapters: dict[AdapterKey, Adapter]) -> list[FieldPlan]:
    from .config_fields import resolve_field

    plans = []
    for name, collection in config.collections.items():
        for using in dict.fromkeys(("", *collection.fields)):
            field = resolve_field(collection, using)
            asked = field.declares or field.query_model
            used = {
                key.model: _describe(key, adapter)
                for key, adapter in adapters.items()
                if (key.collection, key.index_model) == (name, field.index_model)
                and field.adapters.get(key.model) == key.path
            }
            action = "pass" if asked == field.index_model else "map"
            plans.append(FieldPlan(name, collection.upstream or "", using, field.index_model, asked, action, used))
    return plans


def _describe(key: AdapterKey, adapter: Adapter) -> dict[str, Any]:
    card = adapter.card
    return {
        "path": str(key.path),
        "method": card.method,
        "source_dim": card.source_dim,
        "target_dim": card.target_dim,
        "pairs": card.pairs.count,
        "thresholds": adapter.calibration is not None,
        "fingerprints": sorted(adapter.fingerprints),
        "created": card.created,
        "figures": card.figures,
    }


def _print_plans(path: Path, config: Config, plans: list[FieldPlan]) -> None:
    from .cli_output import print_table

    typer.echo(f"{path}: valid")
    for kind, listener in config.listen.kinds.items():
        upstream = config.upstreams[listener.upstream or ""]
        behind = (
            f"embedded in {upstream.embedded}" if upstream.embedded else f"{upstream.grpc or ''} {upstream.rest or ''}"
        )
        ports = ", ".join(f"{'.'.join(port.key)} {port.address}" for port in listener.ports)
        typer.echo(f"{kind}: {ports} -> {listener.upstream} ({behind.strip()})")
    if not plans:
        typer.echo("no collections: everything passes untouched")
        return
    rows = [
        [plan.collection, _spell_field(plan), plan.index_model, plan.query_model, _spell_action(plan)] for plan in plans
    ]
    print_table(["collection", "vector", "index made with", "queries made with", "queries"], rows)


def _spell_field(plan: FieldPlan) -> str:
    return plan.using or "all others"


def _spell_action(plan: FieldPlan) -> str:
    used = plan.adapters.get(plan.query_model)
    if plan.action == "pass" or used is None:
        others = f"; mapped when declared as {', '.join(plan.adapters)}" if plan.adapters else ""
        return f"pass as they are{others}"
    dims = f"{used['source_dim']} -> {used['target_dim']}"
    return f"mapped {dims} by {used['method']}, fitted on {used['pairs']:,} pairs ({used['path']})"
