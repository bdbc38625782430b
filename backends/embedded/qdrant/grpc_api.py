"""The gRPC listener: every method of Qdrant's services, answered by the table of `service`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from qdrant_client.grpc import collections_service_pb2, points_service_pb2, qdrant_pb2, snapshots_service_pb2

from .access import OPEN_CALLS, Access
from .errors import Internal, ServiceError, Unsupported
from .service import Call

log = logging.getLogger(__name__)

_FILES = (collections_service_pb2, points_service_pb2, snapshots_service_pb2, qdrant_pb2)
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # a taken port must fail, not be shared
]
SERVING = b"\x08\x01"
"""The wire form of grpc.health.v1.HealthCheckResponse{status: SERVING}."""


def grpc_server(calls: Mapping[str, Call], access: Access, threads: int) -> grpc.Server:
    """A server with every method registered; ports are added and it is started by the caller."""
    server = grpc.server(ThreadPoolExecutor(threads, "qdrant-grpc"), options=_OPTIONS)
    for file in _FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            handlers = _service_handlers(service, calls, access)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    health = {"Check": grpc.unary_unary_rpc_method_handler(lambda request, context: SERVING)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),))
    return server


def _service_handlers(service: ServiceDescriptor, calls: Mapping[str, Call], access: Access) -> dict[str, Any]:
    return {method.name: _method_handler(service, method, calls, access) for method in service.methods}


def _method_handler(
    service: ServiceDescriptor, method: MethodDescriptor, calls: Mapping[str, Call], access: Access
) -> grpc.RpcMethodHandler[Any, Any]:
    path = f"/{service.full_name}/{method.name}"
    request_type = message_factory.GetMessageClass(method.input_type)
    response_type = message_factory.GetMessageClass(method.output_type)
    return grpc.unary_unary_rpc_method_handler(
        _answerer(path, calls.get(path) or _unknown(path), access),
        request_deserializer=request_type.FromString,
        response_serializer=response_type.SerializeToString,
    )


def _unknown(path: str) -> Call:
    def refuse(request: Any) -> Any:
        raise Unsupported(f"the method {path}")

    return refuse


def _answerer(path: str, call: Call, access: Access) -> Callable[[Any, grpc.ServicerContext], Any]:
    """Answer one RPC; a ServiceError becomes its status, anything else INTERNAL with a log entry."""
    guarded = bool(access.api_key) and path not in OPEN_CALLS

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            if guarded:
                sent = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
                access.check(sent.get("api-key"), sent.get("authorization"))
            return call(request)
        except ServiceError as error:
            failure = error
        except Exception as error:
            log.exception("%s failed", path)
            failure = Internal(f"{type(error).__name__}: {error}")
        context.abort(failure.grpc_code, str(failure))

    return answer
