"""`Connection`: where the metadata service of a cluster is, and as whom a client calls it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from cosco.client.access.credentials import (
    TOKEN_FILE_VARIABLE,
    TOKEN_FILES,
    CalledToken,
    Credential,
    GivenCredential,
    checked_token,
)
from cosco.config import DEFAULT_METADATA, METADATA_VARIABLE, is_loopback, parse_peer
from cosco.errors import InvalidArgument
from cosco.process.tls.tls_files import CLIENT_VARIABLES, TlsNames, client_files
from cosco.protocol.api_limits import shown_value


class Place(NamedTuple):
    """Where a service is, and by which files of TLS it is reached: whoever it is reached for."""

    address: str
    tls: TlsNames


@dataclass(frozen=True, slots=True, weakref_slot=True, init=False, repr=False, eq=False)
class Connection:
    """May be given wherever `metadata=` takes an address; a client that needs more than that has:

        connection = cosco.Connection("host:7070", ca="ca.pem", token_file="token")

    ca, cert, key: files of the authority of the services' certificates and of one's own, by which
    daemons are reached as well. token, token_file: who one is, as a text, as what is called for it,
    or in a file. What is None comes from the environment of the process that uses it: COSCO_TLS_CA,
    COSCO_TLS_CERT, COSCO_TLS_KEY, COSCO_TOKEN_FILE; an empty name stands for no file.

    Files are read again when they change. What is called for a token is called at most once in some
    seconds, by whichever thread needs it; what it raises is the cause of the AccessDenied that
    this thread gets.

    It pickles, and what comes of that has the names of the files, and neither what is in them nor
    `token`. Connections are equal that have the same address and name the same files; one that
    names none is equal to its address as a text.
    """

    address: str
    ca: str | None
    cert: str | None
    key: str | None
    token_file: str | None
    _token: str | CalledToken | None
    # What a handle carries for its exchanges: shown in the place of a token.
    _capability: str

    def __init__(
        self,
        address: str,
        *,
        ca: str | os.PathLike[str] | None = None,
        cert: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        token: str | Callable[[], str] | None = None,
        token_file: str | os.PathLike[str] | None = None,
    ) -> None:
        """Look at no file, and call nothing.

        Raises: InvalidArgument for what is no address, no name of a file or no token, and for both
        a token and its file.
        """
        if not isinstance(address, str):
            raise InvalidArgument(f"address is {shown_value(address)}, it must be host:port")
        parse_peer(address)
        if (cert is None) != (key is None):
            raise InvalidArgument("one of cert and key is given: name both, or neither")
        if token is not None and token_file is not None:
            raise InvalidArgument("token and token_file are given: one of them says who calls")
        self._set(
            str(address),
            _name("ca", ca),
            _name("cert", cert),
            _name("key", key),
            _name("token_file", token_file),
            _token_source(token),
            "",
        )

    @property
    def tls(self) -> TlsNames:
        """Return which files the services of the cluster are reached by."""
        return TlsNames(self.ca, self.cert, self.key)

    @property
    def place(self) -> Place:
        """Return what all have in common that reach the same service in the same way."""
        return Place(self.address, self.tls)

    @property
    def whole(self) -> tuple[Any, ...]:
        """Return what tells it from all others, with its secrets: for keys of tables that nobody
        is shown."""
        return (*self.place, self.token_file, self._token, self._capability)

    @property
    def has_given_token(self) -> bool:
        """Whether it has a token that stays behind when it is pickled."""
        return self._token is not None

    @property
    def capability(self) -> str:
        """Return what a handle carries for its exchanges; empty: it is no handle's, or nobody needs
        one."""
        return self._capability

    def with_capability(self, capability: str) -> Self:
        """Return one for some exchanges, which is shown in the place of a token, also by what a
        pickle of it gives; itself where nobody needs one (empty)."""
        if not capability:
            return self
        made = object.__new__(type(self))
        made._set(
            self.address, self.ca, self.cert, self.key, self.token_file, self._token, capability
        )
        return made

    def credential(self) -> Credential | None:
        """Return what says the credential of each call to the metadata service; None: there is
        none.

        Raises: InvalidArgument for a token file that cannot be read, or has no token, and where
        whoever is between could read what is shown.
        """
        source = self._credential_source()
        is_open = source is not None and not is_loopback(self.address)
        if is_open and client_files(names=self.tls) is None:
            raise InvalidArgument(
                f"this client has a token or a handle to show to {self.address}, and no TLS, so "
                "whoever is between could read it: name the authority of the services' "
                f"certificates by ca= or {CLIENT_VARIABLES[0]}"
            )
        return source

    def _credential_source(self) -> Credential | None:
        if self._capability:
            return GivenCredential(self._capability)
        token = self._token
        if token is not None:
            return GivenCredential(token) if isinstance(token, str) else token
        path = self.token_file
        if path is None:
            path = os.environ.get(TOKEN_FILE_VARIABLE)
        return TOKEN_FILES.of(path).current if path else None

    @property
    def _names(self) -> tuple[str | None, ...]:
        return (*self.tls, self.token_file)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Connection):
            return self.address == other.address and self._names == other._names
        return self.address == other and self._names == _NO_NAMES

    def __hash__(self) -> int:
        return hash(self.address)

    def __str__(self) -> str:
        return self.address

    def __repr__(self) -> str:
        shown = [repr(self.address)]
        for name in ("ca", "cert", "key", "token_file"):
            value = getattr(self, name)
            if value is not None:
                shown.append(f"{name}={value!r}")
        if self._token is not None:
            shown.append("token=...")
        more = ", with a capability" if self._capability else ""
        return f"Connection({', '.join(shown)}{more})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (
            self.address, self.ca, self.cert, self.key, self.token_file, self._capability,
        )  # fmt: skip

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # with its token, which does not leave the process

    def _set(self, *values: Any) -> None:
        for name, value in zip(_FIELDS, values, strict=True):
            object.__setattr__(self, name, value)


_NO_NAMES: Final = (None,) * 4
_FIELDS: Final = ("address", "ca", "cert", "key", "token_file", "_token", "_capability")


def connection_to(metadata: Connection | str | None) -> Connection:
    """Return the connection given, or one to the address given; else to that of the environment,
    else to the default one.

    Raises: InvalidArgument.
    """
    if isinstance(metadata, Connection):
        return metadata
    if metadata is not None and not isinstance(metadata, str):
        raise InvalidArgument(
            f"metadata is {shown_value(metadata)}, it must be host:port or a Connection"
        )
    address = metadata or os.environ.get(METADATA_VARIABLE) or DEFAULT_METADATA
    try:
        return Connection(address)
    except InvalidArgument as error:
        given = "metadata=" if metadata else f"the environment variable {METADATA_VARIABLE}"
        raise InvalidArgument(f"{given}: {error}") from None


def _restored(*fields: Any) -> Connection:
    """Return a connection of what was pickled of it."""
    made = object.__new__(Connection)
    *references, capability = fields
    made._set(*references, None, capability)
    return made


def _name(what: str, path: object) -> str | None:
    if path is None:
        return None
    try:
        name = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        name = None
    if not isinstance(name, str):
        raise InvalidArgument(f"{what} is {shown_value(path)}, it must be the path of a file")
    return name


def _token_source(token: object) -> str | CalledToken | None:
    if token is None:
        return None
    if callable(token):
        return CalledToken(token)
    return checked_token(token, "token")
