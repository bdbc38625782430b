"""The API key: who may ask."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from .errors import Unauthenticated

OPEN_PATHS = frozenset({"/", "/healthz", "/livez", "/readyz"})
OPEN_CALLS = frozenset({"/qdrant.Qdrant/HealthCheck", "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})


@dataclass(frozen=True)
class Access:
    """The key that clients must send as `api-key`, or as `Authorization: Bearer`; None lets everyone in."""

    api_key: str | None

    def check(self, api_key: str | None, authorization: str | None) -> None:
        """Raise Unauthenticated unless one of the two headers carries the key."""
        if not self.api_key:
            return
        sent = api_key
        if sent is None and authorization is not None and authorization.startswith("Bearer "):
            sent = authorization.removeprefix("Bearer ")
        if sent is None:
            raise Unauthenticated("Must provide an API key or an Authorization bearer token")
        if not hmac.compare_digest(sent.encode(), self.api_key.encode()):
            raise Unauthenticated("Invalid API key or JWT")
