"""The run directory: what the supervisor publishes for its workers, generation by generation.

envoy/          routes, clusters and certificates, replaced by rename; Envoy watches the folder
generation.json which configuration counts now; workers poll it
config-N.yaml   the text of each generation's file, secrets still as ${NAME}
migrations.json what workers have to know of migrations; they poll it too
led.json        the collections for which all requests go through Python (leading.py)
worker-PID.json what each worker serves with; tally-*.json what it counted
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from crossfade.backends.dialect import Dialect

from .config import Config
from .envoy import listeners_of
from .envoy_clusters import build_clusters
from .envoy_routes import build_routes
from .envoy_secrets import Pems, build_secrets, secret_file
from .leading import Led, read_led
from .live import GENERATION, MIGRATIONS
from .migration.record import MigrationView
from .telemetry import write_atomically

ENVOY = "envoy"


def publish_config(run_dir: Path, text: str, base: Path, generation: int) -> None:
    """Make a configuration the current one for the Python side of every worker."""
    path = run_dir / f"config-{generation}.yaml"
    write_atomically(path, text.encode())
    stated = {"generation": generation, "config": str(path), "base": str(base)}
    write_atomically(run_dir / GENERATION, orjson.dumps(stated))
    for old in run_dir.glob("config-*.yaml"):
        if int(old.stem.removeprefix("config-")) < generation - 1:
            old.unlink()


def publish_clusters(run_dir: Path, config: Config, generation: int, led: Led | None = None) -> None:
    """Hand Envoy the clusters of a configuration, for what is led at present unless told what will be."""
    (run_dir / ENVOY).mkdir(exist_ok=True)
    led = led or read_led(run_dir)
    clusters = build_clusters(config, led.version(generation), led.epochs)
    write_atomically(run_dir / ENVOY / "cds.json", orjson.dumps(clusters))


def publish_secrets(run_dir: Path, certificates: Mapping[str, Pems], version: int) -> None:
    """Hand Envoy the certificates of its ports; the folder is for this user alone."""
    (run_dir / ENVOY).mkdir(exist_ok=True)
    for kind, pems in certificates.items():
        for name, secret in build_secrets(pems, str(version)).items():
            write_atomically(run_dir / ENVOY / secret_file(kind, name), orjson.dumps(secret))


def publish_routes(run_dir: Path, config: Config, dialects: dict[str, Dialect], generation: int) -> None:
    """Hand Envoy the routes of a configuration."""
    led = read_led(run_dir)
    for listener in listeners_of(config):
        routes = build_routes(config, dialects[listener.kind], listener, led.version(generation), led)
        write_atomically(run_dir / ENVOY / f"rds-{listener.name}.json", orjson.dumps(routes))


def publish_migrations(run_dir: Path, views: Sequence[MigrationView]) -> None:
    """Tell every worker how the migrations stand; of two of one collection the later counts."""
    write_atomically(run_dir / MIGRATIONS, orjson.dumps([view.model_dump(mode="json") for view in views]))


def read_workers(run_dir: Path) -> dict[int, dict[str, object]]:
    """What each worker said last, by process id: its generation, what kept it from a newer one, and the oldest version
    of each migration that it acts on."""
    stated = (orjson.loads(path.read_bytes()) for path in run_dir.glob("worker-*.json"))
    return {one["pid"]: one for one in stated}
