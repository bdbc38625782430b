"""Certificates of Crossfade's own ports -> Envoy's secrets (SDS) and transport sockets. Pure: PEM texts are handed in.

Envoy reads a listener's secrets from a file in the run directory, which the supervisor writes anew when a certificate
is replaced: connections that are open stay, and new ones are shaken hands with the new certificate.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
CERTIFICATE = "certificate"
AUTHORITIES = "authorities"


class Pems(NamedTuple):
    """A listener's certificate chain and key, and the authorities that clients' certificates must come from."""

    cert: str
    key: str
    client_ca: str | None


def secret_file(kind: str, secret: str) -> str:
    """The name of the file with one secret of a listener; Envoy takes one a file."""
    return f"sds-{kind}-{secret}.json"


def build_secrets(pems: Pems, version: str) -> dict[str, dict[str, Any]]:
    """Build the SDS files of one listener, {version_info, resources} by secret."""
    certificate = {
        "tls_certificate": {
            "certificate_chain": {"inline_string": pems.cert},
            "private_key": {"inline_string": pems.key},
        }
    }
    secrets: dict[str, dict[str, Any]] = {CERTIFICATE: certificate}
    if pems.client_ca is not None:
        secrets[AUTHORITIES] = {"validation_context": {"trusted_ca": {"inline_string": pems.client_ca}}}
    return {
        name: {"version_info": version, "resources": [{"@type": f"{_TYPE}.Secret", "name": name, **secret}]}
        for name, secret in secrets.items()
    }


def build_listener_tls(certificate: dict[str, Any], authorities: dict[str, Any] | None) -> dict[str, Any]:
    """The transport socket of a port, from where Envoy reads its secrets; with `authorities` mutual TLS."""
    common: dict[str, Any] = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [{"name": CERTIFICATE, "sds_config": certificate}],
    }
    if authorities is not None:
        common["validation_context_sds_secret_config"] = {"name": AUTHORITIES, "sds_config": authorities}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPE}.DownstreamTlsContext",
            "common_tls_context": common,
            "require_client_certificate": authorities is not None,
        },
    }
