"""What the native transport makes of files of TLS, and makes anew when these have changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from cosco.errors import InvalidArgument
from cosco.process.tls.tls_files import TlsContent, TlsFiles

log = logging.getLogger(__name__)

#: Returns what the next connection is made or served by, of the native part; None: without TLS.
Tls = Callable[[], Any]


def without_tls() -> None:
    """Make and serve connections without TLS."""


class Renewed:
    """A native object of what files have; called for each connection, it never raises."""

    def __init__(
        self, content: Callable[[], TlsContent], make: Callable[[TlsContent], Any]
    ) -> None:
        """Make the first one. Raises: InvalidArgument for what the transport cannot use."""
        self._content: Final = content
        self._make: Final = make
        first = content()
        try:
            #: What was made, and of what: set at once, as several threads may call.
            self._last = (first, make(first))
        except ValueError as error:
            raise InvalidArgument(f"the TLS files cannot be used: {error}") from None

    def __call__(self) -> Any:
        """Return the object of what the files have now, or had when they were sound."""
        content = self._content()
        of, made = self._last
        if content is not of:
            try:
                made = self._make(content)
            except ValueError as error:
                log.warning("new TLS files cannot be used, those before stay in use: %s", error)
            self._last = (content, made)
        return made


def native_server(native: Any, files: TlsFiles, *, requires_client_cert: bool) -> Renewed:
    """Return what serves connections; somebody must `watch` the files."""

    def make(content: TlsContent) -> Any:
        return native.TlsServer(content.cert, content.key, content.ca, requires_client_cert)

    return Renewed(lambda: files.content, make)


def native_client(native: Any, files: TlsFiles, *, looks: bool) -> Renewed:
    """Return what connects. looks: whether it looks whether files have changed, else somebody must
    `watch` them."""

    def make(content: TlsContent) -> Any:
        return native.TlsClient(content.ca, content.cert or None, content.key or None)

    return Renewed(files.current if looks else lambda: files.content, make)
