"""Headers that Envoy adds of its own accord, and how the database is spared them.

Envoy sets x-forwarded-proto on every request, and on calls from inside (Python's) x-forwarded-for, x-envoy-internal
and its timeout. A transparent proxy adds none: what the client itself sent is put aside when a request comes in and put
back when it goes out.
"""

from __future__ import annotations

from typing import Any

from .detect import PORT_MODEL

_TYPE = "type.googleapis.com/envoy"
FORWARDED = {
    "x-forwarded-proto": "x-crossfade-kept-proto",
    "x-forwarded-for": "x-crossfade-kept-for",
}
_OWN = ("x-envoy-internal", "x-envoy-expected-rq-timeout-ms")


def copy_header(name: str, to: str) -> dict[str, Any]:
    """A mutation that copies a header if it is there."""
    return {
        "append": {
            "header": {"key": to, "value": f"%REQ({name})%"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            "keep_empty_value": False,
        }
    }


def set_header(name: str, value: str) -> dict[str, Any]:
    """A mutation that sets a header to a text as it is."""
    return {
        "append": {
            "header": {"key": name, "value": value.replace("%", "%%")},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }


def restore_headers() -> dict[str, Any]:
    """The filter of a cluster that takes off what Envoy added and puts back what the client sent."""
    mutations: list[dict[str, Any]] = [{"remove": name} for name in (*_OWN, PORT_MODEL)]
    for name, aside in FORWARDED.items():
        mutations += [{"remove": name}, copy_header(aside, name), {"remove": aside}]
    return {
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {
            "@type": f"{_TYPE}.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": mutations},
        },
    }


def codec_filter() -> dict[str, Any]:
    """The last filter of a cluster."""
    return {
        "name": "envoy.filters.http.upstream_codec",
        "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.upstream_codec.v3.UpstreamCodec"},
    }
