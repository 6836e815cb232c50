"""What went wrong in a bucket, as errors of the system, in one line and without secrets.

What obstore says holds whole answers of servers: signatures, tokens and signed URLs among them.
So only the status, the server's code for the error and its message are taken out of it.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Final

from obstore.exceptions import (
    AlreadyExistsError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from cosco.dfs.protocol import StoreFull

#: The only words that mean: the bucket is there and this object is not. Anything else that comes
#: with a status 404, as of a bucket or a user, must not be taken for rows that are lost.
_NO_SUCH_OBJECT: Final = frozenset({"NoSuchKey", "BlobNotFound"})
_FULL: Final = frozenset(
    {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "InsufficientCapacity",
     "XMinioAdminBucketQuotaExceeded", "AccountQuotaExceeded"}
)  # fmt: skip
_FULL_STATUS: Final = 507
_REFUSED: Final = frozenset(
    {"AccessDenied", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId",
     "InvalidToken", "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch",
     "TokenRefreshRequired", "XAdminUserNotFound", "AuthenticationFailed",
     "AuthorizationFailure", "AuthorizationPermissionMismatch"}
)  # fmt: skip
_REFUSED_STATUS: Final = frozenset({401, 403})
_HINTS: Final = {
    "AccessDenied": "give its user the right to read, write, list and delete there",
    "ExpiredToken": "renew the credentials",
    "InvalidAccessKeyId": "see to the credentials",
    "SignatureDoesNotMatch": "see to the secret of the credentials",
    "RequestTimeTooSkewed": "set the clock of this host",
    "NoSuchBucket": "make the bucket, or name another one",
    "AuthorizationHeaderMalformed": "give the URL the region of the bucket: ?region=",
    "PermanentRedirect": "give the URL the region of the bucket: ?region=",
}
_STATUS: Final = re.compile(r"status code: (\d{3})")
#: As a server says it, and as obstore does of one object of many that were to be deleted.
_CODE: Final = re.compile(r"<Code>\s*([\w.]+)\s*</Code>|\(code: (\w+)\)")
_MESSAGE: Final = re.compile(r"<Message>\s*([^<\n]*)")
_TIMED_OUT: Final = re.compile(r"\bkind: Timeout\b|\bTimedOut\b|operation timed out")
_NO_CONNECTION: Final = re.compile(r"\bkind: Connect\b")
#: Who is asked for credentials: the machine, the container, or a service beside the store.
_ASKED_FOR_CREDENTIALS: Final = re.compile(
    r"latest/api/token|latest/meta-data|169\.254\.|computeMetadata|metadata\.google|oauth2|AssumeRole"
)
#: What a provider of `cosco.dfs.objects.aws_profiles` has raised.
_PROVIDER: Final = re.compile(
    r"credential provider: (?:(?:PermissionError|InvalidArgument): (?P<ours>[^\n]+)|(?P<kind>\w+))"
)
_SYSTEM: Final = re.compile(r'message: "([^"]{1,80})"')
_RANGE_IGNORED: Final = "non-partial response"
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")
_MESSAGE_MAX: Final = 160
#: Names of variables of the environment whose values no message may have.
_SECRET: Final = re.compile(r"KEY|SECRET|TOKEN|PASS|SAS|CREDENTIAL", re.IGNORECASE)
_SECRET_BYTES_MIN: Final = 6


class RangeIgnored(OSError):
    """The server has answered a request for a range with more than that."""


class PastTheEnd(OSError):
    """The range begins behind the end of the object."""


class Torn(OSError):
    """An answer ended before it was complete, or is not what was asked for."""


def explained(error: Exception, what: str) -> OSError:
    """Return the error of the system that says what `error`, of obstore, means for `what`."""
    text = str(error)
    if (without := _without_credentials(text, what)) is not None:
        return without
    status = int(found[1]) if (found := _STATUS.search(text)) else 0
    code = found[1] or found[2] if (found := _CODE.search(text)) else ""
    if code in _NO_SUCH_OBJECT:
        return FileNotFoundError(errno.ENOENT, "no such file in the store", what)
    if isinstance(error, AlreadyExistsError):
        return FileExistsError(errno.EEXIST, "there is such a file in the store", what)
    if status == 416 or code == "InvalidRange":
        return PastTheEnd(errno.EINVAL, "the range begins behind the end of the object", what)
    refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if status or code or refused:
        return _of_answer(text, status, code, what, refused=refused)
    return _without_answer(text, what)


def _without_credentials(text: str, what: str) -> PermissionError | None:
    """Return the error of a request that was not made, as it could not be signed."""
    if found := _PROVIDER.search(text):
        why = found["ours"] or f"their provider has raised {found['kind']}"
        said = f"no credentials for the store: {printable(why)}"
    elif _ASKED_FOR_CREDENTIALS.search(text.partition("\n")[0]):
        said = (
            "no credentials for the store: neither the environment nor a profile has any, and no "
            "role of this machine has answered"
        )
    else:
        return None
    return PermissionError(errno.EACCES, said, what)


def _of_answer(text: str, status: int, code: str, what: str, *, refused: bool) -> OSError:
    said = f"the store's server has answered {status or 'with an error'}"
    said += f" {code}" if code else ""
    if found := _MESSAGE.search(text):
        said += f" ({printable(found[1])})" if found[1].strip() else ""
    if hint := _HINTS.get(code):
        said += f": {hint}"
    if code in _FULL or status == _FULL_STATUS:
        return StoreFull(errno.ENOSPC, said, what)
    if refused or code in _REFUSED or status in _REFUSED_STATUS:
        return PermissionError(errno.EACCES, said, what)
    return OSError(errno.EIO, said, what)


def _without_answer(text: str, what: str) -> OSError:
    if _RANGE_IGNORED in text:
        return RangeIgnored(errno.EIO, "the store's server ignores ranges", what)
    first = text.partition("\n")[0].partition("?")[0]  # queries of URLs may be signed
    if _TIMED_OUT.search(text):
        return TimeoutError(errno.ETIMEDOUT, "the store's server has not answered in time", what)
    if _NO_CONNECTION.search(text):
        why = f": {printable(found[1])}" if (found := _SYSTEM.search(text)) else ""
        return ConnectionError(
            errno.EHOSTUNREACH, f"the store's server cannot be reached{why}", what
        )
    if "error decoding" in text or "kind: Decode" in text or "kind: Body" in text:
        return Torn(errno.EIO, "the store's server has broken off its answer", what)
    return OSError(errno.EIO, f"the store has failed: {printable(first)}", what)


def printable(text: str) -> str:
    """Return the first of a text that comes from elsewhere, as one line without secrets."""
    for name, value in os.environ.items():
        if len(value) >= _SECRET_BYTES_MIN and _SECRET.search(name):
            text = text.replace(value, "***")
    text = _UNPRINTABLE.sub(" ", text).strip()
    return text if len(text) <= _MESSAGE_MAX else f"{text[:_MESSAGE_MAX]}…"
