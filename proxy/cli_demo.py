"""`crossfade demo`: an upgrade of an embedding model, shown on real text with real models."""

from __future__ import annotations

import signal
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import typer

_NEEDS = {"qdrant": ("embedded", "qdrant_edge"), "milvus": ("milvus", "milvus_lite")}  # extra and module
MOST_DOCUMENTS = 20_000  # beyond, the new model encodes for longer than anybody watches


def demo(
    backend: Annotated[
        Literal["qdrant", "milvus"], typer.Option(help="The database: its embedded form is started.")
    ] = "qdrant",
    keep: Annotated[bool, typer.Option("--keep", help="Leave database and proxy running until Ctrl-C.")] = False,
    documents: Annotated[
        int, typer.Option(min=200, max=MOST_DOCUMENTS, help="Package descriptions in the index.")
    ] = 1500,
    queries: Annotated[int, typer.Option(min=20, help="Synopses asked; at most as many as documents.")] = 300,
    port: Annotated[
        int,
        typer.Option(min=0, max=65533, help="Crossfade's first port: REST, gRPC (one for both on Milvus), admin."),
    ] = 0,
    from_machine: Annotated[
        bool, typer.Option("--from-machine", help="Take the text from this Debian machine's package lists.")
    ] = False,
    directory: Annotated[
        Path | None, typer.Option(help="Where to work and leave the results; default: a temporary directory.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Save what is shown as a picture.")] = None,
) -> None:
    """Upgrade an embedding model in front of you: old index, adapter, proxy, flipped flag, and the figures."""
    from .cli_output import UsageProblem, need_extra
    from .demo_models import PACKAGE

    with need_extra("demo", PACKAGE):
        import_module(PACKAGE)  # asked for here, so that nothing has been started when it is missing
    with need_extra(*_NEEDS[backend]):
        import_module(_NEEDS[backend][1])
    from .demo import Settings, run_demo

    if queries > documents:
        raise UsageProblem(f"{queries} queries were asked for and only {documents} documents have one each")
    signal.signal(signal.SIGTERM, _interrupt)  # the servers it started are ended on the way out
    with tempfile.TemporaryDirectory(prefix="crossfade-demo-") as temporary:
        folder = directory or Path(temporary)
        run_demo(Settings(folder, backend, documents, queries, port, from_machine, keep, picture))


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
