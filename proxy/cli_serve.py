"""`crossfade serve` and `crossfade embedded qdrant`: what keeps running until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The configuration file (YAML).", show_default=False)
]


def serve(
    config: ConfigPath,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Envoy processes, instead of the file's `workers`.", show_default=False)
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of the serve that runs with this file, losing no request.")
    ] = False,
    print_envoy_config: Annotated[
        bool, typer.Option("--print-envoy-config", help="Print what Envoy would be given, as JSON, and end.")
    ] = False,
) -> None:
    """Serve a configuration until SIGTERM.

    SIGHUP or a change of the file reloads it; the first SIGTERM drains, a second one ends at once.
    """
    if print_envoy_config:
        _print_envoy_config(config)
        return
    from .serve import serve as run

    raise typer.Exit(run(config, workers, replaces=replace))


def _print_envoy_config(path: Path) -> None:
    from .cli_output import print_json
    from .envoy import build_bootstrap, listeners_of
    from .envoy_clusters import build_clusters
    from .envoy_routes import build_routes
    from .loading import load_config
    from .native import filter_module
    from .processes import pyvoy_module
    from .supervisor import DIALECTS

    config = load_config(path)
    routes = {
        listener.name: build_routes(config, DIALECTS[listener.kind], listener, "1") for listener in listeners_of(config)
    }
    bootstrap = build_bootstrap(config, "/run/crossfade/envoy", pyvoy_module(), filter_module())
    print_json({"bootstrap": bootstrap, "clusters": build_clusters(config, "1"), "routes": routes})


def embedded_qdrant(
    data: Annotated[Path, typer.Option(help="Data directory, made when it is missing.", show_default=False)],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the gRPC API; 0 takes a free one.")] = 6334,
    rest_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the REST API; 0 takes a free one.")] = 6333,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="QDRANT_API_KEY", help="Key that clients must send.", show_default=False),
    ] = None,
) -> None:
    """Serve Qdrant's API from a directory, without a Qdrant server."""
    from .cli_output import need_extra

    with need_extra("embedded", "qdrant_edge"):
        from crossfade.backends.embedded import serve_qdrant

    serve_qdrant(data, host, grpc_port, rest_port, api_key)
