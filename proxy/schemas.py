"""Schemas of collections, learned from the database where its messages do not say which fields are vectors (Milvus)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pyqwest import Headers

from crossfade.backends.dialect import MalformedError, RefusedError, Schema, SchemaCodec, Transport

from .errors import SchemaUnknown
from .framing import frame, unframe
from .upstream import Target, call_upstream, read_all

# A collection may be dropped and made anew, or gain a field, by clients of another worker.
_FRESH_SECONDS = 5.0


@dataclass(slots=True)
class Schemas:
    """What is known of the collections behind one listener, each for a few seconds."""

    codec: SchemaCodec | None
    _kept: dict[str, tuple[float, Schema]] = field(default_factory=dict)

    def find(self, collection: str) -> Schema | None:
        """A collection's schema if it was learned a moment ago."""
        kept = self._kept.get(collection)
        return kept[1] if kept is not None and time.monotonic() - kept[0] < _FRESH_SECONDS else None

    async def learn(
        self, collections: Iterable[str], target: Target, transport: Transport, headers: Mapping[str, str], limit: int
    ) -> None:
        """Ask the database for schemas, in the name of the client whose request needs them.

        Raises SchemaUnknown when it tells none, UpstreamDown.
        """
        assert self.codec is not None  # only a dialect with one leaves a message unsettled
        sent = Headers(list(self.codec.form_headers(transport, headers).items()))
        for collection in collections:
            body = frame(self.codec.ask(collection))
            response = await call_upstream(target, "POST", target.address, self.codec.path, sent, body)
            answer = await read_all(target, response, limit)
            try:
                if not answer:
                    raise RefusedError(response.headers.get("grpc-message") or f"HTTP {response.status}")
                learned = self.codec.read(unframe(answer, None, "DescribeCollection", limit))
            except (RefusedError, MalformedError) as error:
                raise SchemaUnknown(collection=collection, upstream=target.upstream, reason=str(error)) from error
            self._kept[collection] = (time.monotonic(), learned)
