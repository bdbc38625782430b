"""The metrics that the dashboard and the alert rules in deploy/ ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
_NAME = re.compile(r"\b(?:crossfade|envoy)_[a-z0-9_]+\b")


def expressions() -> Iterator[str]:
    """Every PromQL expression, of panels, variables and rules."""
    dashboard: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (one["definition"] for one in dashboard["templating"]["list"] if "definition" in one)
    rules: dict[str, Any] = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())
    for group in rules["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def asked_metrics() -> set[str]:
    """Names of metrics, with the suffixes that PromQL needs."""
    return {name for expression in expressions() for name in _NAME.findall(expression)}


def exposed_metrics(text: str) -> set[str]:
    """Names that an exposition has, also of families without a sample yet."""
    found = set(re.findall(r"^([a-z_0-9]+)(?=[{ ])", text, re.MULTILINE))
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE):
        found |= {name} | ({f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else set())
    return found
