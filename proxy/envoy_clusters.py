"""Config -> Envoy's clusters (CDS): one for each upstream and transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .config import Config, Upstream
from .config_values import Address, Origin
from .envoy_headers import codec_filter, restore_headers

_TYPE = "type.googleapis.com/envoy"
# Qdrant, like most servers, closes an HTTP/1.1 connection after 5 idle seconds, and a request that is sent on it at
# that very moment is lost: it has to be given up here first.
_IDLE_SECONDS = 3
_UNBOUNDED = 1_000_000


def cluster_name(upstream: str, transport: str, epoch: int = 0) -> str:
    """The cluster of an upstream in an epoch (leading.py); most never see a second one."""
    return f"{upstream}-{transport}-{epoch}" if epoch else f"{upstream}-{transport}"


def channel_name(kind: str, transport: str | None) -> str:
    """Under which name the fast path's filter and Python meet."""
    return f"{kind}-{transport or 'any'}"


def build_clusters(config: Config, version: str, epochs: Sequence[int] = (0,)) -> dict[str, Any]:
    """Build the CDS file: {version_info, resources}, with each cluster once for each epoch."""
    resources = []
    for epoch in epochs:
        for name, upstream in config.upstreams.items():
            if (grpc := upstream.grpc) is not None:
                place = cluster_name(name, "grpc", epoch)
                resources.append(_build_cluster(place, grpc, upstream, secure=bool(upstream.tls)))
            if (rest := upstream.rest) is not None:
                place = cluster_name(name, "rest", epoch)
                resources.append(_build_cluster(place, rest, upstream, secure=_is_https(rest)))
    return {"version_info": version, "resources": resources}


def _is_https(origin: Origin) -> bool:
    return origin.scheme == "https"


def _build_cluster(name: str, place: Address | Origin, upstream: Upstream, *, secure: bool) -> dict[str, Any]:
    address = place.address if isinstance(place, Origin) else place
    host, port = address.host, address.port
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
    protocol: dict[str, Any] = {
        "explicit_http_config": {
            "http2_protocol_options": {
                "initial_stream_window_size": 1 << 20,
                "initial_connection_window_size": 16 << 20,
            }
        }
    }
    if isinstance(place, Origin):
        protocol = {
            "explicit_http_config": {"http_protocol_options": {}},
            "common_http_protocol_options": {"idle_timeout": f"{_IDLE_SECONDS}s"},
        }
    cluster = {
        "@type": f"{_TYPE}.config.cluster.v3.Cluster",
        "name": name,
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": f"{upstream.connect_timeout}s",
        "per_connection_buffer_limit_bytes": 1 << 20,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                **protocol,
                "http_filters": [restore_headers(), codec_filter()],
            }
        },
        # The database limits its own load; Envoy's defaults (1,024 of each) would turn a busy minute into errors.
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": _UNBOUNDED,
                    "max_pending_requests": _UNBOUNDED,
                    "max_requests": _UNBOUNDED,
                    "max_retries": 1024,
                }
            ]
        },
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 30}},
    }
    if secure:
        cluster["transport_socket"] = _build_tls(host, upstream)
    return cluster


def _build_tls(host: str, upstream: Upstream) -> dict[str, Any]:
    context: dict[str, Any] = {"alpn_protocols": ["h2", "http/1.1"]}
    tls = upstream.tls
    ca = str(tls.ca) if tls is not None and tls.ca is not None else "/etc/ssl/certs/ca-certificates.crt"
    context["validation_context"] = {"trusted_ca": {"filename": ca}}
    if tls is not None and tls.cert is not None:
        context["tls_certificates"] = [
            {"certificate_chain": {"filename": str(tls.cert)}, "private_key": {"filename": str(tls.key)}}
        ]
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": context,
            "sni": (tls.server_name if tls is not None else None) or host,
            "auto_sni_san_validation": True,
        },
    }
