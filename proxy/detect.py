"""Which model made this vector? Declared ones first, then who asks, then the collection's flag.

1. the request's header or metadata (`detect.header`); 2. the message itself (a Document's model, Milvus's search
parameter), the vector's name (`fields.NAME.declares`), or the port it came in at (`listen.milvus.by_model`); 3. the
client's identity (`detect.clients`); 4. for stored vectors the index's model (after a migration still the one that the
configuration names), for queries and answers `query_model`,
the flag people flip.

A declared model is taken at its word, so a vector of another length is refused. What only stands by default (3. and 4.)
gives way when exactly one other model of the field has the vector's length: the dimension then says which one made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from crossfade.backends.dialect import Role

from .config import Clients, Detect
from .errors import ModelNotMapped, UnknownModel, WrongDimension
from .routing import Snapshot, Space

PORT_MODEL = "x-crossfade-port-model"  # set by Envoy on what comes in at a port that stands for a model


class Declared(NamedTuple):
    """What a request says about its model as a whole."""

    header: str | None = None
    client: str | None = None  # the model of the client's identity
    header_name: str = ""
    port: str | None = None  # the model of the port it came in at

    @property
    def whole(self) -> str | None:
        """The model declared for everything in the request."""
        return self.header or self.port

    def without(self) -> Declared:
        """The same for a field that does not take that model."""
        return self._replace(header=None, port=None)


def read_declared(headers: Mapping[str, str], detect: Detect) -> Declared:
    """Read a request's headers (lower-case names; of a repeated one the last value counts)."""
    return Declared(
        header=headers.get(detect.header),
        client=_identify(headers, detect.clients),
        header_name=detect.header,
        port=headers.get(PORT_MODEL),
    )


def _identify(headers: Mapping[str, str], clients: Clients) -> str | None:
    """The model of the client that asks, by its own header, its request id or its user-agent."""
    client = headers.get(clients.header)
    if client is not None and client in clients.models:
        return clients.models[client]
    for name, models in (("client-request-id", clients.request_ids), ("user-agent", clients.user_agents)):
        if models and (text := headers.get(name)):
            fitting = [start for start in models if text.startswith(start)]
            if fitting:
                return models[max(fitting, key=len)]
    return None


def detect_model(
    space: Space, declared: Declared, role: Role, in_message: str | None, dim: int | None, known: Mapping[str, int]
) -> str:
    """The model that made a vector of `dim` dimensions (None: no vector at hand) standing in `space`.

    Raises UnknownModel, ModelNotMapped and WrongDimension.
    """
    model = declared.header or in_message or space.declares or declared.port
    if model is None:
        return _default_model(space, declared, role, dim)
    if model not in space.dims:
        _refuse_model(space, declared, model, in_message, known)
    if dim is not None and dim != space.dims[model]:
        raise WrongDimension(dim=dim, model=model, collection=space.collection, field=space.field, known=space.dims)
    return model


def check_declared(declared: Declared, collection: str, snapshot: Snapshot) -> None:
    """Refuse a request for vectors in the space of a model that nobody knows; raises UnknownModel."""
    if declared.header and declared.header not in snapshot.models:
        by = f"the header {declared.header_name}"
        raise UnknownModel(model=declared.header, collection=collection, declared_by=by, known=snapshot.models)


def _default_model(space: Space, declared: Declared, role: Role, dim: int | None) -> str:
    flag = (space.document_model or space.index_model) if role is Role.DOCUMENT else space.query_model
    client = declared.client if declared.client in space.dims else None
    model = client or flag
    if dim is None or space.dims[model] == dim:
        return model
    fitting = [name for name, length in space.dims.items() if length == dim]
    if len(fitting) == 1:
        return fitting[0]
    raise WrongDimension(dim=dim, model=model, collection=space.collection, field=space.field, known=space.dims)


def _refuse_model(
    space: Space, declared: Declared, model: str, in_message: str | None, known: Mapping[str, int]
) -> None:
    if model in known:
        raise ModelNotMapped(
            model=model,
            index_model=space.index_model,
            collection=space.collection,
            field=space.field,
            mapped=list(space.adapters),
        )
    by = (
        f"the header {declared.header_name}"
        if declared.header
        else "the message"
        if in_message
        else "the vector name"
        if space.declares
        else "the port"
    )
    raise UnknownModel(model=model, collection=space.collection, declared_by=by, known=known)
