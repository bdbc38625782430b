"""What `crossfade migrate plan` and `set` read: figures with or without a running serve, and limits as KEY=VALUE."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .cli_output import UsageProblem
from .migration.pace import Pace

_STRATEGY = "strategy"


def look(collection: str, config: Path | None, admin: str | None, price: float | None) -> Any:
    """The plan as JSON has it: asked of the running serve, or made here when none answers and there is a file.

    Raises NotServing, Refused, ConfigError, BadPlan, IndexRefusedError.
    """
    from .admin_client import AdminClient, NotServing, find_admin

    try:
        return AdminClient(find_admin(config, admin)).get(collection, "plan", price_per_million=price)
    except NotServing:
        if config is None or admin is not None:
            raise
    from pydantic import TypeAdapter

    from .loading import load_config
    from .migration.plan import Plan
    from .migration.wanted import plan_from

    made = asyncio.run(plan_from(load_config(config), collection, price))
    return TypeAdapter(Plan).dump_python(made, mode="json")


def read_limits(given: Sequence[str]) -> dict[str, Any]:
    """The body of `set` from KEY=VALUE texts. Raises UsageProblem; values are checked by the other side."""
    pace: dict[str, str | None] = {}
    body: dict[str, Any] = {"pace": pace}
    for one in given:
        key, found, value = one.partition("=")
        if not found or key not in (*Pace.model_fields, _STRATEGY):
            keys = ", ".join((*Pace.model_fields, _STRATEGY))
            raise UsageProblem(f"{one!r} is no limit; write KEY=VALUE with one of {keys}")
        if key == _STRATEGY:
            body[_STRATEGY] = value
        elif key == "flag_file" and value != "none":
            pace[key] = str(Path(value).absolute())  # the serve may run in another folder
        else:
            pace[key] = None if value == "none" else value
    return body
