"""Errors that cross the wire in trailing metadata, and come back as what they were."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

import cosco.errors as errors
from cosco.errors import CoscoError, ServiceUnavailable
from cosco.protocol.api_limits import printable
from cosco.protocol.pb import metadata_pb2 as mpb

#: Trailing metadata key of an ErrorDetail.
ERROR_KEY: Final = "cosco-error-bin"
#: Mappers that an error names, at most; those that are left are named by the next one.
MAX_ERROR_MAPPERS: Final = 100_000
#: Bound of an error with that many mappers, as trailing metadata.
MAX_ERROR_BYTES: Final = 1 << 20


def error_line(error: CoscoError) -> str:
    """Return an error's message as it is told to a peer: in one line that no terminal obeys.

    Messages quote what others have sent, as addresses and reasons.
    """
    return printable(error)


def error_to_pb(error: CoscoError) -> mpb.ErrorDetail:
    detail = mpb.ErrorDetail(
        kind=type(error).__name__,
        message=error_line(error),
        shuffle_id=error.shuffle_id or "",
        mappers=error.mappers[:MAX_ERROR_MAPPERS],
        retriable=error.retriable,
    )
    if error.partition is not None:
        detail.partition = error.partition
    return detail


def error_to_bytes(error: CoscoError) -> bytes:
    return error_to_pb(error).SerializeToString()


def error_from_bytes(data: bytes, where: str = "a service") -> CoscoError:
    """Return the error that a service meant.

    ServiceUnavailable for a kind unknown to this version, and for bytes that are no error: `where`
    says what has failed.
    """
    try:
        detail = mpb.ErrorDetail.FromString(data)
    except DecodeError:
        text = f"{where} failed and its reason cannot be read: do the versions differ?"
        return ServiceUnavailable(text, retriable=False)
    return error_from_pb(detail)


def error_from_pb(detail: mpb.ErrorDetail) -> CoscoError:
    """Return the same as `error_from_bytes`."""
    cls = getattr(errors, detail.kind, None)
    if not (isinstance(cls, type) and issubclass(cls, CoscoError)):
        cls = ServiceUnavailable
    return cls(
        detail.message,
        shuffle_id=detail.shuffle_id or None,
        mappers=tuple(detail.mappers),
        partition=detail.partition if detail.HasField("partition") else None,
        retriable=detail.retriable,
    )
