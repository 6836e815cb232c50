"""Errors that cross the wire in trailing metadata, and come back as what they were."""

from __future__ import annotations

from typing import Final

import cosco.errors as errors
from cosco.errors import CoscoError, ServiceUnavailable
from cosco.protocol.pb import metadata_pb2 as mpb

#: Trailing metadata key of an ErrorDetail.
ERROR_KEY: Final = "cosco-error-bin"
#: Mappers that an error names, at most; those that are left are named by the next one.
MAX_ERROR_MAPPERS: Final = 100_000
#: Bound of an error with that many mappers, as trailing metadata.
MAX_ERROR_BYTES: Final = 1 << 20


def error_to_pb(error: CoscoError) -> mpb.ErrorDetail:
    detail = mpb.ErrorDetail(
        kind=type(error).__name__,
        message=str(error),
        shuffle_id=error.shuffle_id or "",
        mappers=error.mappers[:MAX_ERROR_MAPPERS],
        retriable=error.retriable,
    )
    if error.partition is not None:
        detail.partition = error.partition
    return detail


def error_to_bytes(error: CoscoError) -> bytes:
    return error_to_pb(error).SerializeToString()


def error_from_bytes(data: bytes) -> CoscoError:
    """Return the error a service meant; ServiceUnavailable for a kind unknown to this version."""
    return error_from_pb(mpb.ErrorDetail.FromString(data))


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
