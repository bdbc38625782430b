"""What both processes of the re-encode's benchmark open; importable by name."""

from __future__ import annotations

from typing import Final

from crossfade.backends.payload_text import compile_text
from crossfade.backends.qdrant.index import QdrantIndex
from crossfade.proxy.config_models import EncoderChoice, Model, PythonEncoder
from crossfade.proxy.encoders import build_encoder
from crossfade.proxy.migration.moving import LocalMover
from crossfade.proxy.migration.record import Spec
from tests.bench.reencode_encoders import DIMS
from tests.proxy.migration.scenery import connect

CONCURRENCY: Final = 2


def model_of(encoder: str) -> Model:
    """The model's section: a function of this package."""
    place = f"tests.bench.reencode_encoders:{encoder}"
    chosen = EncoderChoice(python=PythonEncoder(function=place, concurrency=CONCURRENCY, batch_size=64))
    return Model(dim=DIMS[encoder], encoder=chosen, cache=0)


async def open_mover(grpc_port: int, spec: Spec) -> LocalMover:
    """What a process of its own works with."""
    index, encoder = QdrantIndex(connect(grpc_port, 0)), build_encoder(spec.to_model, model_of(spec.to_model))
    await encoder.encode(["warm up"], "passage")
    return LocalMover(spec, index, encoder, compile_text(spec.text))
