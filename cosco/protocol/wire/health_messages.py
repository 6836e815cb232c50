"""The messages of `grpc.health.v1`: each has one field, as well-known types of protobuf have.

HealthCheckRequest is `string service = 1`, which is StringValue on the wire; HealthCheckResponse
is `ServingStatus status = 1`, which is Int32Value. The package grpcio-health-checking has them
under their names, and asks for the newest protobuf in return.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

HEALTH_SERVICE: Final = "grpc.health.v1.Health"

#: HealthCheckResponse.ServingStatus
SERVING: Final = 1
NOT_SERVING: Final = 2
SERVICE_UNKNOWN: Final = 3  # in answers of Watch alone


def service_of(request: bytes) -> str:
    """Return the service that a HealthCheckRequest names; empty: the whole server."""
    return StringValue.FromString(request).value


def status_message(status: int) -> bytes:
    """Return a HealthCheckResponse."""
    return Int32Value(value=status).SerializeToString()
