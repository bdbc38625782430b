"""What can go wrong with a migration, in the tree of crossfade.proxy.errors.

OperatorError
|- IllegalMove            a verb or step that the migration's state does not allow
|- GateClosed             allowed by the state, but a condition for it does not hold
|- UnknownMigration       no migration of that collection
|- NotConfigured          the configuration describes no migration of that collection
|- LeaseLost              another controller has taken over; this one must not write any more
'- BadPlan                what was asked cannot become a migration
UpstreamError
'- MigrationStorageError  the database of journal and state cannot be read or written
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import OperatorError, UpstreamError


class IllegalMove(OperatorError):
    """A verb or step that the migration's state does not allow."""

    http_status = 409
    label = "illegal_move"

    def __init__(self, *, collection: str, step: str, state: str, allowed: Sequence[str]) -> None:
        super().__init__(
            f"collection {collection!r}: {step!r} is not possible while the migration is {state}; "
            f"possible now: {', '.join(allowed) or 'nothing'}"
        )


class GateClosed(OperatorError):
    """A step whose conditions do not hold yet."""

    http_status = 409
    label = "gate_closed"

    def __init__(self, *, collection: str, step: str, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(f"collection {collection!r}: {step!r} has to wait: {'; '.join(reasons)}")


class UnknownMigration(OperatorError):
    """No migration under this collection or id."""

    http_status = 404
    label = "unknown_migration"

    def __init__(self, *, collection: str, known: Sequence[str]) -> None:
        there = f"there are migrations of {', '.join(map(repr, known))}" if known else "there is none at all"
        super().__init__(f"collection {collection!r} has no migration; {there}")


class NotConfigured(OperatorError):
    """The configuration describes no migration of this collection."""

    http_status = 404
    label = "not_configured"

    def __init__(self, *, collection: str, having: Sequence[str]) -> None:
        there = f"; there is one in {', '.join(map(repr, having))}" if having else ""
        super().__init__(
            f"collection {collection!r} has no migrate section in the configuration{there}; "
            f"add collections.{collection}.migrate: {{to: MODEL}}"
        )


class LeaseLost(OperatorError):
    """Another controller has taken over, or may have."""

    http_status = 409
    label = "lease_lost"

    def __init__(self, *, name: str, holder: str, token: int, reason: str) -> None:
        super().__init__(f"lease {name!r}: {holder} with token {token} may not write any more: {reason}")


class BadPlan(OperatorError):
    """What was asked cannot become a migration."""

    http_status = 400
    label = "bad_plan"

    def __init__(self, *, collection: str, reason: str) -> None:
        super().__init__(f"collection {collection!r} cannot be migrated: {reason}")


class MigrationStorageError(UpstreamError):
    """The database of journal and state does not do its part."""

    label = "migration_storage"

    def __init__(self, *, place: str, reason: str) -> None:
        super().__init__(
            f"the migration database {place} cannot be used: {reason}; see that it exists, has room and may be written"
        )
