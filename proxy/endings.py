"""What a database's answer says of the end of a write. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from crossfade.backends.dialect import Operation
from crossfade.backends.reading import ReadCodec

from .errors import BodyTooLarge, MalformedRequest
from .framing import unpack

# OK, and what a database says before it has begun. Any other status may come while it still works on the write.
_DECIDED: Final = frozenset({0, 3, 5, 6, 7, 9, 11, 12, 16})


def is_decided(operation: Operation, status: int) -> bool:
    """Whether an answer's status, gRPC's or HTTP's, means that nothing of its write is still to happen."""
    if operation.transport == "grpc":
        return status in _DECIDED
    return status < 500 and status != 408


@dataclass(frozen=True, slots=True)
class Ending:
    """An answer, gathered: its HTTP and gRPC status, and its body as it came, at most `limit` bytes unpacked."""

    operation: Operation
    http: int
    grpc: str  # "" where there is none
    body: bytes
    encoding: str | None
    limit: int

    @property
    def has_ended(self) -> bool:
        """Whether the status means that nothing of the write is still to happen, once earlier answers' writes have."""
        if self.operation.transport == "grpc":
            return self.grpc.isdecimal() and is_decided(self.operation, int(self.grpc))
        return is_decided(self.operation, self.http)

    def is_settled(self, codec: ReadCodec | None) -> bool:
        """Whether the write has certainly ended.

        A failure that Milvus tells inside of an answer may be a timeout of its own, after which it works on.
        """
        return self.has_ended and not self._fails_inside(codec)

    def succeeded(self, codec: ReadCodec | None) -> bool:
        """Whether the database has done what was asked."""
        done = self.grpc == "0" if self.operation.transport == "grpc" else self.http < 300
        return done and not self._fails_inside(codec)

    def _fails_inside(self, codec: ReadCodec | None) -> bool:
        if codec is None or not self.body:
            return False
        try:
            return codec.refuses(self.operation, unpack(self.operation, self.body, self.encoding, self.limit))
        except (MalformedRequest, BodyTooLarge):
            return False  # whatever it is, the status says what became of it
