"""What a call that has failed means for who made it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from cosco.client.rpc.scope import Unreachable
from cosco.errors import CoscoError, ServiceUnavailable
from cosco.process.wrong_address import guess
from cosco.protocol import wire

_PASSING: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED"})
_EXHAUSTED: Final = "RESOURCE_EXHAUSTED"
#: What gRPC's servers, and ours, say of calls beyond their bound; too long a message passes never.
_TOO_MANY_CALLS: Final = "Concurrent RPC limit exceeded"
_UNIMPLEMENTED: Final = "UNIMPLEMENTED"


class End(NamedTuple):
    """How a call has ended, as gRPC says it."""

    code: str
    details: str
    trailers: Iterable[tuple[str, str | bytes]]


def failure(end: End, where: str, shuffle_id: str) -> Exception:
    """Return what to raise for a call that has failed.

    where: the method and the address, for messages.
    """
    for key, value in end.trailers:
        if key == wire.ERROR_KEY and isinstance(value, bytes):
            meant = _meant(value, where, shuffle_id)
            if isinstance(meant, ServiceUnavailable) and meant.retriable:
                return Unreachable(str(meant), told=True)
            return meant
    reason = f"{where} failed: {end.code}: {' '.join(end.details.split())[:300]}"
    if end.code == _UNIMPLEMENTED:
        reason += f": {guess('Method not found')}; give the address that the service is ready on"
    if end.code in _PASSING or (end.code == _EXHAUSTED and _TOO_MANY_CALLS in end.details):
        return Unreachable(reason)
    return ServiceUnavailable(reason, shuffle_id=shuffle_id, retriable=False)


def refused(address: str, error: RuntimeError, shuffle_id: str) -> ServiceUnavailable:
    """Return what to raise where there is no thread for a call, and may be none later."""
    return ServiceUnavailable(
        f"{address} cannot be called: {error}", shuffle_id=shuffle_id, retriable=False
    )


def place(method: str, address: str) -> str:
    """Return what messages call a call."""
    return f"{method.rsplit('/', 1)[-1]} at {address}"


def _meant(detail: bytes, where: str, shuffle_id: str) -> CoscoError:
    # The service may know a number where its user knows a name.
    return wire.error_from_bytes(detail, where).place(shuffle_id)
