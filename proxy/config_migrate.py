"""The sections of a migration: where a collection is to be re-encoded to, how fast, and how far by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, WithJsonSchema

from .config_section import Name, Section, written
from .config_values import PathValue, PositiveSeconds, Seconds
from .migration.pace import Pace
from .migration.record import Strategy

Percent = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
_NOT_IN_MILVUS_NAMES = re.compile(r"\W", re.ASCII)
_GOAL = r"^(none|copied|switched|\d+(\.\d+)?%)$"
_DATABASE = r"^(sqlite|postgresql)(\+\w+)?:///?.+$"


def _readable_goal(given: Any) -> Any:
    if not isinstance(given, str) or not re.fullmatch(_GOAL, given) or (wanted_percent(given) or 0) > 100:
        raise ValueError('is no goal; write none, copied, a share such as "10%", or switched')
    return given


def _known_database(url: SecretStr) -> SecretStr:
    if not re.fullmatch(_DATABASE, url.get_secret_value()):
        raise ValueError("is no database URL; write sqlite:////path/to/file or postgresql+psycopg://user@host/name")
    return url


Goal = Annotated[str, BeforeValidator(_readable_goal), WithJsonSchema({"type": "string", "pattern": _GOAL})]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_known_database)]


class RampStep(Section):
    """One step of the way to the goal."""

    percent: float = Field(gt=0, le=100)
    """How many of a hundred clients read the new index."""
    hold: Seconds
    """How long it stays so before the next step."""


class Guardrails(Section):
    """What must hold while traffic moves; when it does not, the share steps back and stays there."""

    error_rate: Share | None = None
    """Share of the collection's reads that the new index may fail to answer (the old one then does), 0 to 1."""
    p99: PositiveSeconds | None = None
    """How long the slowest hundredth of the collection's reads may take until their answers begin."""
    overlap: Share | None = None
    """Overlap@10 of shadow queries with what was answered that must be reached, 0 to 1."""
    window: PositiveSeconds = written("1m")
    """How far back each of them looks."""


class Migrate(Section):
    """The re-encode of a collection with another model, under live traffic."""

    to: Name
    """The new model; it needs an encoder."""
    target: Name | None = None
    """Collection that takes the new vectors, made when it is missing; default: COLLECTION--MODEL (Milvus: __)."""
    field: str = ""
    """Vector that is re-encoded; default: the unnamed one, or the only one there is."""
    text: Name | None = None
    """Where a document's text is, as in the collection; default: the collection's."""
    goal: Goal = "none"
    """How far to go by itself: none, copied, 10% or switched. It waits for every gate, and never completes."""
    ramp: Sequence[RampStep] = ()
    """Steps between copied and the goal, in rising order; without them the goal is one step."""
    guardrails: Guardrails = Guardrails()
    """What must hold while traffic moves."""
    shadow: Percent = 0.0
    """How many of a hundred queries are sent to the new index as well, after their answer, to compare."""
    strategy: Strategy = "auto"
    """How new-model queries are answered on the way."""
    verdict: PathValue | None = None
    """The report (probe.json) of crossfade probe, by which auto weighs both models at each share that is re-encoded."""
    pace: Pace = Pace()
    """Limits of the re-encode."""
    order: Literal["id", "popularity"] = "id"
    """What is re-encoded first once `refit` documents are: what observed queries find most often, or the next by id."""
    refit: int = Field(default=8_000, ge=0, le=100_000)
    """Most re-encoded documents that the adapter is fitted again on as they grow in number; 0: never again."""
    writes: Literal["closed", "open"] = "closed"
    """While the journal cannot be written: closed refuses writes, open lets them pass and copies all again later."""
    fall_back_after: PositiveSeconds = written("2s")
    """How long a read waits for the new index before the old one answers it alone."""
    read_your_writes: Seconds = written("1s")
    """How long a write with wait may wait to be readable in the new index, once that serves; 0: not at all."""


class Ray(Section):
    """The Ray cluster of migrations whose pace names the engine ray."""

    address: str | None = None
    """Address of the cluster: auto, ray://host:10001; default: one that is started on this machine."""
    actors: int = Field(default=2, ge=1, le=10_000)
    """Actors that read, encode and write; give the pace two workers or more for each."""
    cpus: float = Field(default=1.0, ge=0)
    """Cores that an actor takes."""
    gpus: float = Field(default=0.0, ge=0)
    """Graphics processors that an actor takes; 0.5: two actors share one."""


class Databases(Section):
    """Where migrations are kept. One machine needs none of these keys."""

    store: DatabaseUrl | None = None
    """Database URL of the migrations' state; default: an SQLite file in `state`. Several machines: PostgreSQL."""
    journal: DatabaseUrl | None = None
    """Database URL of the journal of written keys; default: another SQLite file in `state`."""
    ray: Ray = Ray()
    """The Ray cluster, for the engine ray."""


def name_target(collection: str, migrate: Migrate, kind: str) -> str:
    """The target collection: the one that is given, or a name made of collection and model."""
    if migrate.target is not None:
        return migrate.target
    joined = f"{collection}--{migrate.to}"
    return _NOT_IN_MILVUS_NAMES.sub("_", joined) if kind == "milvus" else joined


def wanted_percent(goal: str) -> float | None:
    """The share of reads that a goal stands for, 0 to 100; None when it wants nothing."""
    match goal:
        case "none":
            return None
        case "copied":
            return 0.0
        case "switched":
            return 100.0
    return float(goal.removesuffix("%"))
