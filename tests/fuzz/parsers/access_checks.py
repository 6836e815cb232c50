"""What must hold of what strangers show and ask operators' endpoints: capabilities, and HTTP."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from io import BytesIO
from types import SimpleNamespace
from typing import Any, Final

from cosco.errors import AccessDenied, ExchangeClosed, ServiceUnavailable
from cosco.process import http_endpoint
from cosco.protocol.capability import (
    PREFIX,
    CapabilityChecker,
    CapabilityKey,
    Checker,
    Permit,
    Rights,
    made,
)

from .outcomes import must, must_agree, outcome

KEY: Final = CapabilityKey(1, bytes(range(32)))
#: Of the content of a capability, before its sums.
_FIELDS_BYTES: Final = 25
_NOW_S: Final = 1e9

#: Resources as services have them, with one that tells what it was asked.
RESOURCES: Final = {
    "/hello": lambda request: http_endpoint.text_answer(
        200, f"{len(request.query)} {request.header('x-who') is None}"
    ),
}
_STATUSES: Final = frozenset({200, 400, 404, 405, 408, 411, 414, 417, 431, 501, 505})
#: An answer is as long as our own texts, whatever was asked.
_MAX_ANSWER_BYTES: Final = 2048


#: Of another cluster or malformed; of a key that has gone; of one that a daemon has not heard of.
_REFUSALS = (AccessDenied, ExchangeClosed, ServiceUnavailable)


def capability_check(data: bytes) -> None:
    """Check a text as a capability; with bit 0 of the first byte, one whose sums are right."""
    if not data:
        return
    text = data[1:].decode(errors="replace")
    if data[0] & 1:
        content = data[1 : 1 + _FIELDS_BYTES].ljust(_FIELDS_BYTES, b"\0")
        sums = [hmac.digest(KEY.derived(one).secret, content, "sha256") for one in Checker]
        text = PREFIX + urlsafe_b64encode(b"".join([content, *sums])).decode()
    for one in Checker:
        checker = CapabilityChecker(one, [KEY.derived(one)])
        found = outcome(_REFUSALS, checker.permit, text, _NOW_S)
        must_agree(outcome(_REFUSALS, checker.permit, text, _NOW_S), found, "a second look")
        if not found.refusal:
            permit: Permit = found.value
            again = made(KEY, permit)
            must_agree(checker.permit(again, _NOW_S), permit, "a capability that is made again")
            must(not permit.expires_s or permit.expires_s > _NOW_S, "what has expired is void")
            must(
                not permit.allows(permit.first + permit.count, Rights(0)),
                "a permit has its end",
            )
            stranger = CapabilityChecker(one, [CapabilityKey(KEY.id, bytes(32))])
            must(bool(outcome(_REFUSALS, stranger.permit, text, _NOW_S).refusal), "keys differ")


class _Connection:
    """As much of a socket as a handler wants: all that a client says, and room for the answer."""

    def __init__(self, said: bytes) -> None:
        self._said = said
        self.answer = bytearray()

    def makefile(self, *_: Any) -> BytesIO:
        return BytesIO(self._said)

    def settimeout(self, _: float) -> None:
        """Nothing waits here."""

    def sendall(self, data: bytes) -> None:
        self.answer += data


def http_check(data: bytes) -> None:
    """Have an endpoint answer a request, of which it reads as much as it wants."""
    connection, server = _Connection(data), SimpleNamespace(resources=RESOURCES)
    http_endpoint._Handler(connection, ("127.0.0.1", 1), server)  # type: ignore[arg-type]
    answer = bytes(connection.answer)
    must(len(answer) <= _MAX_ANSWER_BYTES, "an answer is short")
    if answer.startswith(b"HTTP/"):
        status = int(answer.split(b" ", 2)[1])
        must(status in _STATUSES, f"an answer of status {status}")
        must(answer.count(b"HTTP/1.") == 1, "one answer to one request")
    elif answer:
        must(answer.endswith(b"\n"), "a request without a version has a line for its answer")
    else:
        words = data.split(b"\n", 1)[0].decode("latin-1").split()
        must(not words or words[0] == "HEAD", "a request has an answer")  # HTTP/0.9 has no head
