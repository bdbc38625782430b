"""Config -> Envoy's bootstrap: listeners, filters and error bodies. Pure; routes and clusters come from files.

Methods that can carry a vector are switched through Python by their route (`envoy_routes`); everything else is Envoy's
alone, streamed, byte for byte.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from crossfade.backends.dialect import Transport

from .config import Config, ListenTls
from .config_fields import serving_upstream
from .config_values import Address
from .detect import PORT_MODEL
from .envoy_clusters import channel_name
from .envoy_headers import FORWARDED, copy_header, set_header
from .envoy_secrets import AUTHORITIES, CERTIFICATE, build_listener_tls, secret_file

Envoy = dict[str, Any]
FILTER = "crossfade"
FAST_FILTER = "crossfade-fast"
_TYPE = "type.googleapis.com/envoy"
_MANAGER = f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_MIB = 1 << 20

# What is buffered for one connection or stream before the peer is made to wait: a 512 MiB body on a native route
# passes in bounded memory.
CONNECTION_BUFFER = _MIB
STREAM_WINDOW = _MIB
CONNECTION_WINDOW = 16 * _MIB

# A route's regular expression names every collection in every spelling; Envoy's own bound (100) refuses three names.
_RUNTIME = {"re2.max_program_size.error_level": 1_000_000, "re2.max_program_size.warn_level": 1_000_000}


def build_bootstrap(config: Config, run_dir: str, module: str, fast: str | None = None) -> Envoy:
    """Build the bootstrap that every worker starts from.

    `run_dir` holds the route and cluster files; `module` is the path of pyvoy's dynamic module, `fast` that of the fast
    path's, if there is one. The admin address is each worker's own and is merged in on its command line.
    """
    listeners = [_build_listener(listener, run_dir, module, fast) for listener in listeners_of(config)]
    return {
        "node": {"id": "crossfade", "cluster": "crossfade"},
        "dynamic_resources": {"cds_config": watched_file(f"{run_dir}/cds.json", run_dir)},
        "static_resources": {"listeners": listeners},
        "overload_manager": {"resource_monitors": [_connection_limit()]},
        "layered_runtime": {"layers": [{"name": "crossfade", "static_layer": _RUNTIME}]},
    }


@dataclass(frozen=True, slots=True)
class Listener:
    """One port of the data plane."""

    name: str
    kind: str
    transport: Transport | None  # None: both, told apart by the content type
    address: Address
    upstream: str
    key: str  # its key path in the configuration
    tls: ListenTls | None
    declares: str | None = None  # the model of everything that comes in here

    @property
    def transports(self) -> tuple[Transport, ...]:
        """What is spoken here."""
        return ("grpc", "rest") if self.transport is None else (self.transport,)


def listeners_of(config: Config) -> list[Listener]:
    """Every port of the data plane."""
    found = []
    for kind, listener in config.listen.kinds.items():
        upstream = serving_upstream(config, kind, listener)
        assert upstream is not None  # the configuration's check refuses a listener without an upstream
        for index, port in enumerate(listener.ports):
            name = f"{kind}-{port.transport or index}"
            key = ".".join(("listen", kind, *port.key))
            found.append(Listener(name, kind, port.transport, port.address, upstream, key, listener.tls, port.declares))
    return found


def _connection_limit() -> Envoy:
    """Far above what a database takes; without any limit Envoy warns at every start."""
    monitors = f"{_TYPE}.extensions.resource_monitors"
    return {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": f"{monitors}.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": "50000",
        },
    }


def watched_file(path: str, directory: str) -> Envoy:
    """A resource file that Envoy reads again whenever one is renamed into its directory."""
    return {
        "path_config_source": {"path": path, "watched_directory": {"path": directory}},
        "resource_api_version": "V3",
    }


def socket_address(address: Address) -> Envoy:
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _build_listener(listener: Listener, run_dir: str, module: str, fast: str | None) -> Envoy:
    name = listener.name
    filters = [_python_filter(listener, module), _router_filter()]
    if fast is not None:
        filters.insert(0, _fast_filter(listener, fast))
    manager = {
        "@type": f"{_MANAGER}",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "rds": {"route_config_name": name, "config_source": watched_file(f"{run_dir}/rds-{name}.json", run_dir)},
        "http_filters": filters,
        "http2_protocol_options": {
            "initial_stream_window_size": STREAM_WINDOW,
            "initial_connection_window_size": CONNECTION_WINDOW,
            "max_concurrent_streams": 2048,
        },
        # A transparent proxy leaves requests as they are: no normalising, no request ids, no hop headers of its own.
        "normalize_path": False,
        "merge_slashes": False,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "generate_request_id": False,
        "skip_xff_append": True,
        "server_header_transformation": "PASS_THROUGH",
        "early_header_mutation_extensions": [_mark_incoming(listener.declares)],
        "common_http_protocol_options": {"headers_with_underscores_action": "ALLOW", "max_headers_count": 1000},
        "http_protocol_options": {"accept_http_10": True},
        "max_request_headers_kb": 1024,
        # Deadlines are the client's: an idle connection or a long upsert is not ours to cut.
        "stream_idle_timeout": "0s",
        "request_timeout": "0s",
        "drain_timeout": "1s",
        "delayed_close_timeout": "1s",
    }
    if (listener.kind, listener.transport) == ("qdrant", "rest"):
        manager["local_reply_config"] = _qdrant_errors()
    chain: Envoy = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    if listener.tls is not None:
        manager["scheme_header_transformation"] = {"match_upstream": True}  # what the client spoke is not what we speak
        chain["transport_socket"] = _listener_tls(listener.kind, listener.tls, run_dir)
    return {
        "name": name,
        "address": socket_address(listener.address),
        "enable_reuse_port": True,
        "per_connection_buffer_limit_bytes": CONNECTION_BUFFER,
        "socket_options": [{"level": 6, "name": 1, "int_value": 1, "state": "STATE_LISTENING"}],  # TCP_NODELAY
        "filter_chains": [chain],
    }


def _listener_tls(kind: str, tls: ListenTls, run_dir: str) -> Envoy:
    def source(secret: str) -> Envoy:
        return watched_file(f"{run_dir}/{secret_file(kind, secret)}", run_dir)

    return build_listener_tls(source(CERTIFICATE), None if tls.client_ca is None else source(AUTHORITIES))


def _fast_filter(listener: Listener, module: str) -> Envoy:
    """Stands before the full route, and leaves to it what it does not do itself."""
    return _module_filter(FAST_FILTER, module, "fast", channel_name(listener.kind, listener.transport))


def _python_filter(listener: Listener, module: str) -> Envoy:
    settings = {
        "app": f"crossfade.proxy.app:{listener.kind}_{listener.transport or 'any'}",
        "interface": "asgi",
        "root_path": "",
        "lifespan": True,
        "worker_threads": 1,
    }
    return _module_filter(FILTER, module, "pyvoy", json.dumps(settings))


def _module_filter(name: str, module: str, inside: str, settings: str) -> Envoy:
    """A filter of a dynamic module, under its name inside the module."""
    return {
        "name": name,
        "disabled": True,  # a route switches it on
        "typed_config": {
            "@type": f"{_TYPE}.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {"module": {"local": {"filename": module}}},
            "filter_name": inside,
            "filter_config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": settings},
        },
    }


def _mark_incoming(declares: str | None) -> Envoy:
    """Put the client's own x-forwarded-* aside before Envoy sets them; each cluster puts them back.

    What comes in at a port that stands for a model says so to Python, and nobody else can.
    """
    model = set_header(PORT_MODEL, declares) if declares is not None else {"remove": PORT_MODEL}
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{_TYPE}.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [*(copy_header(name, aside) for name, aside in FORWARDED.items()), model],
        },
    }


def _router_filter() -> Envoy:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": f"{_TYPE}.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": True,
        },
    }


def _qdrant_errors() -> Envoy:
    """Envoy's own answers (upstream down, body too large) in the form of Qdrant's REST errors."""
    return {
        "body_format": {
            "json_format": {"status": {"error": "crossfade: %LOCAL_REPLY_BODY%"}, "time": 0.0},
            "content_type": "application/json",
        }
    }
