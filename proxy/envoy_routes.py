"""Config + dialect -> Envoy's routes (RDS): which requests go through Python, and which straight to the upstream."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from crossfade.backends.dialect import Dialect, Operation, Transport

from .config import Config
from .config_fields import collection_upstream
from .envoy import FAST_FILTER, FILTER, Listener
from .envoy_clusters import cluster_name
from .leading import Led

_TYPE = "type.googleapis.com/envoy"
# One that a listener does not have is not missed.
_SWITCH_ON = {name: {"@type": f"{_TYPE}.config.route.v3.FilterConfig", "config": {}} for name in (FAST_FILTER, FILTER)}

_FULL_ROUTE: Final = {FILTER: _SWITCH_ON[FILTER]}
NOTHING_LED: Final = Led()

# Nothing of these was seen by the upstream when they fire, so a write cannot be done twice.
_SAFE_RETRIES = {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2}


def build_routes(
    config: Config, dialect: Dialect, listener: Listener, version: str, led: Led = NOTHING_LED
) -> dict[str, Any]:
    """Build the RDS file of one listener: {version_info, resources}.

    gRPC names the collection in its body, so a method goes through Python as soon as one configured collection needs
    it; REST names it in the path, so only the configured collections do. What is led goes through Python with every
    method that can be told.
    """
    actions = {
        transport: _route_action(cluster_name(listener.upstream, transport, led.epoch))
        for transport in listener.transports
    }
    mine = {
        name
        for name, settings in config.collections.items()
        if collection_upstream(config, settings) == listener.upstream
    }
    names = {name for name, stands_for in led.names.items() if stands_for in mine}
    collections = sorted(mine | names)
    routes = []
    if collections:
        routes = [
            {"match": match, "route": actions[operation.transport], "typed_per_filter_config": _SWITCH_ON}
            for operation in dialect.operations
            if operation.transport in actions
            for match in _match_operation(operation, collections)
        ]
    if names:
        routes += [
            {"match": match, "route": actions[operation.transport], "typed_per_filter_config": _SWITCH_ON}
            for operation in _fast_writes(dialect)
            if operation.transport in actions
            for match in _match_operation(operation, sorted(names))
        ]
        routes += [
            {"match": match, "route": actions[transport], "typed_per_filter_config": _FULL_ROUTE}
            for transport, match in _match_all(dialect, sorted(names))
            if transport in actions
        ]
    if listener.transport is None:
        routes.append({"match": {"prefix": "/", "grpc": {}}, "route": actions["grpc"]})
    routes.append({"match": {"prefix": "/"}, "route": actions[listener.transports[-1]]})
    route_configuration = {
        "@type": f"{_TYPE}.config.route.v3.RouteConfiguration",
        "name": listener.name,
        "virtual_hosts": [{"name": listener.name, "domains": ["*"], "routes": routes}],
    }
    return {"version_info": version, "resources": [route_configuration]}


def _route_action(cluster: str) -> dict[str, Any]:
    return {
        "cluster": cluster,
        "timeout": "0s",
        "max_stream_duration": {"grpc_timeout_header_max": "0s"},  # 0: as long as the client's own deadline says
        "retry_policy": _SAFE_RETRIES,
    }


def _fast_writes(dialect: Dialect) -> list[Operation]:
    """Writes without vectors that the fast path journals as well."""
    if dialect.reading is None or dialect.writing is None:
        return []
    told = dialect.writing.told_by_status
    return [operation for operation in dialect.reading.others if operation.writes and operation.name in told]


def _match_all(dialect: Dialect, names: list[str]) -> Iterator[tuple[Transport, dict[str, Any]]]:
    """What matches every request that can be about these collections, and as few others as the paths allow."""
    around = dialect.writing.around if dialect.writing is not None else ()
    for transport, template in around:
        if "{collection}" in template:
            yield transport, {"safe_regex": {"regex": f"{_path_pattern(template, names)}(?:/.*)?"}}
        else:
            yield transport, {"prefix": template}
    for operation in dialect.reading.others if dialect.reading is not None else ():
        if not any(
            operation.transport == transport and operation.path.startswith(below) for transport, below in around
        ):
            for match in _match_operation(operation, names):
                yield operation.transport, match


def _match_operation(operation: Operation, collections: list[str]) -> list[dict[str, Any]]:
    if operation.transport == "grpc":
        return [{"path": operation.path}]
    method = {"name": ":method", "string_match": {"exact": operation.method}}
    return [{"safe_regex": {"regex": _path_regex(operation.path, collections)}, "headers": [method]}]


def _path_regex(template: str, collections: list[str]) -> str:
    """The path template as a regular expression in which only these collections match, however they are encoded."""
    return f"{_path_pattern(template, collections)}/?"


def _path_pattern(template: str, collections: list[str]) -> str:
    names = "|".join(sorted({_encoded(name) for name in collections}))
    parts = re.split(r"(\{[a-z_]+\})", template.rstrip("/"))
    return "".join(
        f"(?:{names})" if part == "{collection}" else "[^/]+" if part.startswith("{") else re.escape(part)
        for part in parts
    )


def _encoded(name: str) -> str:
    """A name as it may stand in a path: each byte plain or percent-encoded in either case."""
    return "".join(_encoded_byte(byte) for byte in name.encode())


def _encoded_byte(byte: int) -> str:
    escape = "%" + "".join(_either_case(digit) for digit in f"{byte:02X}")
    plain = re.escape(chr(byte)) if 0x20 < byte < 0x7F and chr(byte) not in "%/?#" else None
    return f"(?:{plain}|{escape})" if plain is not None else escape


def _either_case(digit: str) -> str:
    return f"[{digit}{digit.lower()}]" if digit.isalpha() else digit
