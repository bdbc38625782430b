"""Qdrant's ReadCodec, which ties renaming, searches and hits of both transports together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..dialect import NO_CONTEXT, Message, Operation, RequestContext, Transport
from ..reading import Asking, Hit, Search
from . import hits, others, rest_searching, searching
from .message import QdrantMessage
from .retarget import retarget


class QdrantReading:
    """See reading.ReadCodec."""

    others: Sequence[Operation] = (*others.GRPC_OTHERS.values(), *others.REST_OTHERS)
    squares = False

    def find_other(self, transport: Transport, method: str, path: str) -> Operation | None:
        """The one of `others` that a request line names; on REST anything below a collection is one."""
        return others.find_other(transport, method, path.partition("?")[0])

    def find_collection(
        self, operation: Operation, path: str, body: bytes, context: RequestContext = NO_CONTEXT
    ) -> str | None:
        """The collection that a request of `others` is about; None for a change of aliases, which may name many."""
        return others.find_collection(operation, path, body)

    def retarget(
        self,
        operation: Operation,
        path: str,
        body: bytes,
        names: Mapping[str, str],
        context: RequestContext = NO_CONTEXT,
    ) -> tuple[str, bytes]:
        """Path and body of any request with collections named otherwise, and everything else as it was."""
        return retarget(operation, path, body, names)

    def find_searches(self, operation: Operation, request: Message) -> Sequence[Search] | None:
        """The searches of a request that consists of nothing but plain ones; None for every other request."""
        if operation.transport == "grpc":
            return searching.find_searches(operation, _own(request))
        return rest_searching.find_searches(operation, _own(request))

    def split_searches(self, asked: Sequence[tuple[Search, Asking]]) -> Sequence[Sequence[tuple[Search, Asking]]]:
        """One group: every search of a batch has a filter of its own."""
        return [asked] if asked else []

    def form_searches(self, operation: Operation, request: Message, asked: Sequence[tuple[Search, Asking]]) -> bytes:
        """The request with its searches asked otherwise; those that are not given are left out."""
        if operation.transport == "grpc":
            return searching.form_searches(operation, _own(request), asked)
        return rest_searching.form_searches(operation, _own(request), asked)

    def read_hits(self, operation: Operation, request: Message, body: bytes) -> Sequence[Sequence[Hit]]:
        """The hits of an answer, search by search."""
        if operation.transport == "grpc":
            return hits.read_hits(operation, body)
        return rest_searching.read_hits(operation, body)

    def form_hits(self, operation: Operation, request: Message, body: bytes, found: Sequence[Sequence[Hit]]) -> bytes:
        """The answer with these hits in place of its own, each with the score it is given with."""
        if operation.transport == "grpc":
            return hits.form_hits(operation, body, found)
        return rest_searching.form_hits(operation, body, found)

    def refuses(self, operation: Operation, body: bytes) -> bool:
        """Never: Qdrant's failures have a status of their own."""
        return False


def _own(request: Message) -> QdrantMessage:
    assert isinstance(request, QdrantMessage)  # the dialect reads every request itself
    return request
