"""What is answered to a request that fails: one shape for all, as RFC 9457 has it."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

from pydantic import BaseModel, Field

from cosco.errors import (
    AccessDenied,
    CapacityExceeded,
    CommitTimeout,
    CoscoError,
    ExchangeClosed,
    ExchangeExists,
    ExchangeNotFound,
    GenerationChanged,
    InvalidArgument,
    ServiceUnavailable,
)
from cosco.protocol.api_limits import printable

PROBLEM_TYPE: Final = "application/problem+json"
#: The first kind that an error is decides.
_STATUS: Final = (
    (ExchangeNotFound, HTTPStatus.NOT_FOUND),
    (ExchangeClosed, HTTPStatus.GONE),
    (ExchangeExists, HTTPStatus.CONFLICT),
    (GenerationChanged, HTTPStatus.CONFLICT),
    (AccessDenied, HTTPStatus.FORBIDDEN),
    (InvalidArgument, HTTPStatus.BAD_REQUEST),
    (CommitTimeout, HTTPStatus.SERVICE_UNAVAILABLE),
    (ServiceUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (CapacityExceeded, HTTPStatus.SERVICE_UNAVAILABLE),
)


class Unknown(CoscoError):
    """Nobody knows who calls: no credential was shown, or a bad one."""


class NothingThere(CoscoError):
    """What a path names is not there."""


class Problem(BaseModel):
    """Why a request has failed."""

    title: str = Field(description="what its status is called")
    status: int
    detail: str = Field(description="what is wrong, and what to do, in one line")
    error: str = Field(description="the class of cosco.errors; empty where it is none of those")
    retriable: bool = Field(description="whether the same request may succeed later")


Headers = dict[str, str]


def problem_of(error: CoscoError) -> tuple[Problem, Headers]:
    """Return what is answered for an error, and with which headers beside."""
    if isinstance(error, Unknown):
        return problem(HTTPStatus.UNAUTHORIZED, str(error), "AccessDenied"), {
            "WWW-Authenticate": 'Bearer realm="cosco"'
        }
    if isinstance(error, NothingThere):
        return problem(HTTPStatus.NOT_FOUND, str(error)), {}
    found = (status for kind, status in _STATUS if isinstance(error, kind))
    status = next(found, HTTPStatus.CONFLICT)
    name = type(error).__name__
    return problem(status, str(error), name, retriable=error.retriable), {}


def problem(
    status: HTTPStatus, detail: str, error: str = "", *, retriable: bool = False
) -> Problem:
    """Return why a request has failed."""
    return Problem(
        title=status.phrase,
        status=status,
        detail=printable(" ".join(detail.split())),
        error=error,
        retriable=retriable,
    )


def encoded(of: Problem) -> bytes:
    """Return the body of an answer."""
    return json.dumps(of.model_dump()).encode()
