"""Who is at the other end of a connection, as far as a server knows, what comes with a call, and
who that says somebody is."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cosco.errors import AccessDenied

#: The header of a call that its credential is in, and how that begins (RFC 6750).
CREDENTIAL_HEADER: Final = "authorization"
_SCHEME: Final = "Bearer "
#: Characters of the longest credential there can be.
MAX_CREDENTIAL_CHARACTERS: Final = 8 << 10
#: Names, and characters of each, that a refusal tells of.
_SHOWN_NAMES: Final = 4
_SHOWN_CHARACTERS: Final = 100


class Role(StrEnum):
    """What somebody may do with what is of his tenant; an admin with everything."""

    ADMIN = "admin"
    TENANT = "tenant"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, as a token has said.

    name: of the token, for logs. tenant: whose exchanges he makes; 1 to 64 of A-Z, a-z, 0-9, `.`,
    `_`, `-`.
    """

    name: str
    tenant: str
    role: Role


@dataclass(frozen=True, slots=True)
class Peer:
    """A plain record, whichever transport has filled it: rights and limits are decided on it alone.

    address: `host:port` of its end, which anybody may have. names: whom its certificate is of, DNS
    names, URIs and IP addresses, if that was verified; empty else. is_encrypted: whether nobody
    between can read or change what is said. credential: the token or the capability that came with
    the call; empty: none.
    """

    address: str
    names: frozenset[str]
    is_encrypted: bool
    credential: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ServiceNames:
    """By which names in their certificates services are known to others of their cluster.

    Without TLS nobody is known, and nothing is checked.
    """

    daemon: str
    metadata: str
    is_checked: bool

    def is_daemon(self, peer: Peer) -> bool:
        """Whether a peer is known to be a daemon."""
        return self.is_checked and peer.is_encrypted and self.daemon in peer.names

    def check_daemon(self, peer: Peer, what: str) -> None:
        """Refuse to have something done by who is no daemon; raises AccessDenied."""
        self._check(peer, self.daemon, what, "daemons", "--daemon-san")

    def check_metadata(self, peer: Peer, what: str) -> None:
        """Refuse to have something done by another than the metadata service; raises
        AccessDenied."""
        self._check(peer, self.metadata, what, "the metadata service", "--metadata-san")

    def _check(self, peer: Peer, name: str, what: str, whom: str, option: str) -> None:
        if self.is_checked and not (peer.is_encrypted and name in peer.names):
            raise AccessDenied(
                f"{what} is for {whom} alone, whose certificate has the name {name} ({option}); "
                f"{peer.address} has shown {_shown(peer.names)}"
            )


def _shown(names: frozenset[str]) -> str:
    if not names:
        return "none"
    first = sorted(names)[:_SHOWN_NAMES]
    text = ", ".join(name[:_SHOWN_CHARACTERS] for name in first)
    return text if len(names) == len(first) else f"{text} and {len(names) - len(first)} others"


def is_credential(text: str) -> bool:
    """Whether a text may be one: 1 to MAX_CREDENTIAL_CHARACTERS printable ones of ASCII, no
    blanks."""
    is_plain = text.isascii() and text.isprintable() and " " not in text
    return is_plain and 0 < len(text) <= MAX_CREDENTIAL_CHARACTERS


def credential_header(credential: str) -> str:
    """Return what the header of a call has that a credential comes with."""
    return _SCHEME + credential


def credential_of(header: bytes) -> str:
    """Return the credential in the header of a call; empty if there is none that may be one."""
    if len(header) > len(_SCHEME) + MAX_CREDENTIAL_CHARACTERS:
        return ""
    text = header.decode("latin-1")
    scheme, credential = text[: len(_SCHEME)], text[len(_SCHEME) :]
    is_one = scheme.lower() == _SCHEME.lower() and is_credential(credential)
    return credential if is_one else ""


#: A peer of which nothing is known.
NOBODY: Final = Peer("", frozenset(), is_encrypted=False)

#: Nobody is known by a name where there is no TLS.
NAMES: Final = ServiceNames("", "", is_checked=False)
