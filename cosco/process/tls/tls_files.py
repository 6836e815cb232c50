"""The certificate, the key and the authority of a process, in files that may change.

Whoever makes a connection takes what there is then: what is open goes on, and what is made after a
rotation has the new certificate, without a restart.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cosco.errors import InvalidArgument
from cosco.process.files.whole_files import Seen, look_at, read_at_most, reason

log = logging.getLogger(__name__)

#: How often it is looked whether files have changed.
LOOK_S: Final = 1.0
#: A process that begins waits this long for the rest of files that are just being replaced: one of
#: them is newer than _NEW_NS.
FIRST_S: Final = 2.0
_AGAIN_S: Final = 0.02
_NEW_NS: Final = 10_000_000_000
#: Longer files are none of certificates and keys.
_MAX_BYTES: Final = 1 << 20
#: Sets of files that a process remembers.
_MAX_KNOWN: Final = 16
#: The environment of a client: the authority, and its own certificate and key.
CLIENT_VARIABLES: Final = ("COSCO_TLS_CA", "COSCO_TLS_CERT", "COSCO_TLS_KEY")

#: What tells one state of files from another.
_Seen = tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class TlsContent:
    """What TLS needs, each as PEM. A client may have no certificate, and then no key."""

    ca: bytes
    cert: bytes = b""
    key: bytes = field(default=b"", repr=False)


class TlsFiles:
    """Files of PEM, which are read again when they change. Used by any thread."""

    def __init__(self, ca: str, cert: str = "", key: str = "") -> None:
        """Read the files.

        ca: the authority that others' certificates must be of. cert, key: this process's own; a
        client may have none.

        Raises: InvalidArgument if one cannot be read or is none, or if they do not fit.
        """
        self._paths: Final[tuple[str, str, str]] = (ca, cert, key)
        self._looking = threading.Lock()  # never waited for: a forked child may find it taken
        self._looked_at = time.monotonic()
        #: What has been said of a change that cannot be taken up.
        self._doubt = ""
        self._seen, self._content = self._first()

    @property
    def paths(self) -> tuple[str, str, str]:
        """The paths of the authority, the certificate and the key; empty: none."""
        return self._paths

    @property
    def content(self) -> TlsContent:
        """What the files had when they were read last and were sound; nothing is read."""
        return self._content

    def current(self) -> TlsContent:
        """Return what the files have, which are looked at again if that was LOOK_S ago."""
        if time.monotonic() - self._looked_at >= LOOK_S:
            self.look()
        return self._content

    def look(self) -> None:
        """Read the files again if they have changed.

        What cannot be read, or does not fit, leaves things as they are: of a certificate and a key
        one is replaced after the other.
        """
        if not self._looking.acquire(blocking=False):
            return  # another thread does
        try:
            self._looked_at = time.monotonic()
            self._take_up()
        finally:
            self._looking.release()

    def in_child(self) -> None:
        """Let a forked process look by itself, whatever a thread of the parent did."""
        self._looking = threading.Lock()

    async def watch(self) -> None:
        """Look again and again, in a thread, until this is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await asyncio.to_thread(self.look)
            except RuntimeError as error:  # the host has no more threads for now
                log.warning("it cannot be looked whether TLS files have changed: %s", error)

    def _take_up(self) -> None:
        try:
            seen = self._look_at()
            if seen == self._seen:
                return
            content = self._read()
            if self._look_at() != seen:  # it goes on changing
                return
        except InvalidArgument as error:
            if str(error) != self._doubt:
                self._doubt = str(error)
                log.warning("the TLS files in use stay as they were: %s", error)
            return
        self._seen, self._doubt = seen, ""
        if content != self._content:
            self._content = content
            log.info("new TLS files are taken up: %s", ", ".join(filter(None, self._paths)))

    def _first(self) -> tuple[_Seen, TlsContent]:
        """Read what there is, again if it is just being replaced: one file comes after another."""
        until = time.monotonic() + FIRST_S
        while True:
            seen = self._look_at()
            try:
                content = self._read()
                if self._look_at() == seen:
                    return seen, content
            except InvalidArgument:
                is_new = time.time_ns() - max(when for _, when, _ in seen) < _NEW_NS
                if not is_new or time.monotonic() >= until:
                    raise
            time.sleep(_AGAIN_S)

    def _look_at(self) -> _Seen:
        return tuple(look_at(path) for path in self._paths if path)

    def _read(self) -> TlsContent:
        ca, cert, key = self._paths
        content = TlsContent(_pem(ca), _pem(cert) if cert else b"", _pem(key) if key else b"")
        _check(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ca, cert, key)
        return content

    def __repr__(self) -> str:
        return f"TlsFiles{self._paths!r}"


class _ClientFiles:
    """The files that clients of this process use, by what the environment has named."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, ...], TlsFiles] = OrderedDict()

    def of(self, ca: str, cert: str, key: str) -> TlsFiles:
        # Without a lock, which a forked child might find taken.
        known = self._known.get((ca, cert, key))
        if known is None:
            known = self._known.setdefault((ca, cert, key), TlsFiles(ca, cert, key))
            if len(self._known) > _MAX_KNOWN:
                with suppress(KeyError):  # another thread was faster
                    self._known.popitem(last=False)
        return known

    def in_child(self) -> None:
        for files in list(self._known.values()):
            files.in_child()


_CLIENT_FILES: Final = _ClientFiles()
os.register_at_fork(after_in_child=_CLIENT_FILES.in_child)


class TlsNames(NamedTuple):
    """Which files a client has been told to use; None: those that the environment of the process
    names that uses them. Empty: none."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


#: Which files the environment says.
BY_ENVIRONMENT: Final = TlsNames()


def client_files(
    environment: Mapping[str, str] = os.environ, names: TlsNames = BY_ENVIRONMENT
) -> TlsFiles | None:
    """Return the files of a client by their names; None: it is to speak without TLS.

    Clients of a process share them, whose `current` they call.

    Raises: InvalidArgument as `TlsFiles`, and for a certificate without its key or an authority.
    """
    ca, cert, key = (
        environment.get(variable, "") if given is None else given
        for variable, given in zip(CLIENT_VARIABLES, names, strict=True)
    )
    if not (ca or cert or key):
        return None
    if not ca:
        raise InvalidArgument(
            f"{CLIENT_VARIABLES[1]} or {CLIENT_VARIABLES[2]} is set, and {CLIENT_VARIABLES[0]} is "
            "not: name the authority of the services' certificates, there or by ca="
        )
    if bool(cert) != bool(key):
        raise InvalidArgument(
            f"one of {CLIENT_VARIABLES[1]} and {CLIENT_VARIABLES[2]} is set: name both, or neither"
        )
    return _CLIENT_FILES.of(ca, cert, key)


def _pem(path: str) -> bytes:
    content = read_at_most(path, _MAX_BYTES + 1)
    if len(content) > _MAX_BYTES or b"-----BEGIN " not in content:
        raise InvalidArgument(f"{path!r} is no file of PEM")
    return content


def _check(context: ssl.SSLContext, ca: str, cert: str, key: str) -> None:
    try:
        context.load_verify_locations(ca)
    except (OSError, ValueError) as error:  # errors of ssl are OSErrors
        raise InvalidArgument(f"{ca!r} has no certificate: {reason(error)}") from None
    if not cert:
        return

    def no_password() -> bytes:
        raise InvalidArgument(f"{key!r} has a password: give a key without one")

    try:
        context.load_cert_chain(cert, key, password=no_password)
    except (OSError, ValueError) as error:
        raise InvalidArgument(
            f"{cert!r} and {key!r} are no certificate and its key: {reason(error)}"
        ) from None
