"""Capabilities: what lets who has one write to some exchanges, or read from them, and no others.

The metadata service makes them, as an HMAC over what is allowed; it takes them in place of a token,
and daemons check them without asking anybody. Macaroons (Birgisson et al., NDSS 2014) call this a
bearer credential: whoever has it may, until its exchange ends.

One is `cosco1.` and, in URL-safe base64: the id of its key, the number of the first exchange and
how many there are, the rights, the second of the Unix clock from which on it is void (0: it lives
as long as its exchanges), the tag of the tenant whose they are, and two sums over all that, one for
the metadata service to check and one for daemons. Their keys are derived from one that never leaves
the metadata service, so what a daemon knows lets nobody call the metadata service. All daemons have
the same key: who has stolen one daemon's can read rows from the others, as docs/security.md says.
"""

from __future__ import annotations

import hmac
import math
import struct
from base64 import b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, IntFlag
from hashlib import blake2b
from typing import Final

from cosco.errors import (
    AccessDenied,
    CoscoError,
    ExchangeClosed,
    InvalidArgument,
    ServiceUnavailable,
)

PREFIX: Final = "cosco1."
#: Bytes of a key that is good.
KEY_BYTES: Final = 32
#: Characters of the longest capability there can be.
MAX_CHARACTERS: Final = 256
#: The longest life that one may be given, 30 days; without any it lives as long as its exchanges.
MAX_LIVES_S: Final = 2_592_000
#: Capabilities whose sums were right that a checker remembers: to look one up costs a tenth.
_MAX_REMEMBERED: Final = 4096
_FIELDS: Final = struct.Struct(">IQIBQQ")
#: A tenant's tag has this many bytes: among a thousand tenants two have the same one in one of
#: 10^13 clusters.
_TAG_BYTES: Final = 8
_SUM: Final = "sha256"
_SUM_BYTES: Final = 32
_BYTES: Final = _FIELDS.size + 2 * _SUM_BYTES


class Rights(IntFlag):
    """What may be done with an exchange; SERVICE is of no exchange, see `service_capability`."""

    READ = 1
    WRITE = 2
    OWN = 4
    SERVICE = 8


class Checker(Enum):
    """Who checks, by the place of its sum in a capability."""

    METADATA = 0
    DAEMON = 1


@dataclass(frozen=True, slots=True)
class CapabilityKey:
    """A secret by which capabilities are made or checked; `id` says which, 1 or more."""

    id: int
    secret: bytes = field(repr=False)

    def derived(self, checker: Checker) -> CapabilityKey:
        """Return the key of one that checks, which tells nothing of this one."""
        label = f"cosco capability, checked by {checker.name}".encode()
        return CapabilityKey(self.id, hmac.digest(self.secret, label, _SUM))


@dataclass(frozen=True, slots=True)
class Permit:
    """What a capability allows: `rights` on the `count` exchanges from the number `first` on.

    expires_s: the second of the Unix clock from which on it is void; 0: it lives as long as its
    exchanges. tenant: the tag of the tenant whose they are, see `tenant_tag`; 0: nobody's.
    """

    first: int
    count: int
    rights: Rights
    expires_s: int = 0
    tenant: int = 0

    def allows(self, number: int, rights: Rights) -> bool:
        """Whether all of `rights` are given on the exchange of that number."""
        is_covered = self.first <= number < self.first + self.count
        return is_covered and rights & self.rights == rights

    def is_void(self, now_s: float) -> bool:
        """Whether its time is over. now_s: of the Unix clock."""
        return bool(self.expires_s) and now_s >= self.expires_s


def tenant_tag(tenant: str) -> int:
    """Return the number by which daemons tell tenants apart; 0 for no tenant, which is ""."""
    if not tenant:
        return 0
    tag = blake2b(tenant.encode(), digest_size=_TAG_BYTES, person=b"cosco tenant").digest()
    return int.from_bytes(tag, "big") or 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What the maker of a capability may set: what it lets do, and for how long.

    lives_s: seconds from its making on; 0: as long as its exchanges.
    """

    rights: Rights = Rights.READ | Rights.WRITE
    lives_s: float = 0.0

    def check(self) -> None:
        """Raise InvalidArgument for what cannot be made."""
        if not self.rights or self.rights & ~(Rights.READ | Rights.WRITE):
            raise InvalidArgument("a capability is made for reading, for writing, or for both")
        if not 0 <= self.lives_s <= MAX_LIVES_S:  # also so for a NaN
            raise InvalidArgument(
                f"lives_s is {self.lives_s:g}, it must be more than 0 and at most {MAX_LIVES_S}"
            )

    def permit(self, first: int, count: int, now_s: float, tenant: int) -> Permit:
        """Return what a capability allows that is made now, for exchanges of the tenant of a tag.
        now_s: of the Unix clock."""
        expires_s = math.ceil(now_s + self.lives_s) if self.lives_s else 0
        return Permit(first, count, self.rights, expires_s, tenant)


#: What a handle allows for which nothing else was asked.
UNLIMITED: Final = Limits()


def made(key: CapabilityKey, permit: Permit) -> str:
    """Return the capability for a permit; `key` is the one from which the others derive."""
    content = _FIELDS.pack(
        key.id, permit.first, permit.count, permit.rights, permit.expires_s, permit.tenant
    )
    sums = [hmac.digest(key.derived(checker).secret, content, _SUM) for checker in Checker]
    return PREFIX + urlsafe_b64encode(b"".join([content, *sums])).decode()


def said_by(capability: str) -> Permit | None:
    """Return what a capability says that it allows, for its holder: it is not checked.

    Returns: None for what is no capability.
    """
    try:
        return _permit_in(_decoded(capability))
    except AccessDenied:
        return None


def service_capability(key: CapabilityKey, incarnation: int) -> str:
    """Return what shows a daemon that a service of its cluster calls: a daemon, or the metadata
    service.

    key: a daemon's, which clients do not know. incarnation: of the daemon that it is shown to, and
    that alone takes it.
    """
    content = _FIELDS.pack(key.id, incarnation, 1, Rights.SERVICE, 0, 0)
    sums = {checker: bytes(_SUM_BYTES) for checker in Checker}
    sums[Checker.DAEMON] = hmac.digest(key.secret, content, _SUM)
    return PREFIX + urlsafe_b64encode(b"".join([content, *sums.values()])).decode()


class CapabilityChecker:
    """Checks capabilities by the keys that are good at present."""

    def __init__(self, checker: Checker, keys: Iterable[CapabilityKey] = ()) -> None:
        """keys: derived for `checker`."""
        self._checker = checker
        self._secrets: dict[int, bytes] = {}
        self._remembered: OrderedDict[str, Permit] = OrderedDict()
        self.set_keys(keys)

    @property
    def has_keys(self) -> bool:
        """Whether any capability can be good."""
        return bool(self._secrets)

    def set_keys(self, keys: Iterable[CapabilityKey]) -> None:
        """Take these keys in the place of those before."""
        secrets = {key.id: key.secret for key in keys}
        if secrets != self._secrets:
            self._secrets = secrets
            self._remembered.clear()

    def permit(self, capability: str, now_s: float) -> Permit:
        """Return what a capability allows. now_s: of the Unix clock.

        Raises: AccessDenied for one that was not made by the service of this cluster, or is void;
        ExchangeClosed for one of a key that has gone, as it goes with the last exchange that it
        made one for; ServiceUnavailable, of a daemon, for one of a key that it has not heard of.
        """
        permit = self._remembered.get(capability)
        if permit is None:
            permit = self._checked(capability)
            self._remembered[capability] = permit
            if len(self._remembered) > _MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        if permit.is_void(now_s):
            raise AccessDenied(
                "the capability has expired: take another handle from the driver of the exchange"
            )
        return permit

    def _checked(self, capability: str) -> Permit:
        content = _decoded(capability)
        key_id = int.from_bytes(content[:4], "big")
        secret = self._secrets.get(key_id)
        if secret is None:
            raise self._unknown(key_id)
        begin = _FIELDS.size + self._checker.value * _SUM_BYTES
        said = content[begin : begin + _SUM_BYTES]
        if not hmac.compare_digest(said, hmac.digest(secret, content[: _FIELDS.size], _SUM)):
            raise AccessDenied("the capability was not made by the metadata service")
        return _permit_in(content)

    def _unknown(self, key_id: int) -> CoscoError:
        if self._secrets and key_id < min(self._secrets):
            return ExchangeClosed("the exchange of this handle was closed, and its key has gone")
        if self._secrets and self._checker is Checker.DAEMON:
            # One that has not reached the metadata service for a while.
            return ServiceUnavailable(
                "this daemon has not heard of the key of the capability yet; the metadata service "
                "knows who takes over, or the capability is of another cluster"
            )
        return AccessDenied(
            "the capability was made by another cluster: take a handle from the driver of the "
            "exchange"
        )


def _permit_in(content: bytes) -> Permit:
    _, first, count, rights, expires_s, tenant = _FIELDS.unpack_from(content)
    return Permit(first, count, Rights(rights), expires_s, tenant)


def _decoded(capability: str) -> bytes:
    if capability.startswith(PREFIX) and len(capability) <= MAX_CHARACTERS:
        try:
            content = b64decode(capability[len(PREFIX) :], b"-_", validate=True)
        except ValueError:
            content = b""
        # One text for each: others would push good ones out of what is remembered.
        if len(content) == _BYTES and capability == PREFIX + urlsafe_b64encode(content).decode():
            return content
    raise AccessDenied(
        "what was shown is no capability of an exchange: use the handle that its driver gave out"
    )
