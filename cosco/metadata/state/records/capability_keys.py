"""The keys by which capabilities are made and checked, and how one follows another.

A new key is given to daemons first, with the answers to their heartbeats, and makes capabilities
once all of them have had the time to hear of it. The one before stays for as long as an exchange is
open that may have a capability by it; numbers of exchanges ascend, so it is enough to note which
one was the last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.protocol.capability import (
    UNLIMITED,
    CapabilityChecker,
    CapabilityKey,
    Checker,
    Limits,
    Permit,
    made,
    service_capability,
    tenant_tag,
)

#: Keys at a time. An exchange that stays open for as many periods delays the next key.
MAX_KEYS: Final = 64


@dataclass(slots=True)
class _Kept:
    """A key. made_s: of the Unix clock. last_number: of the last exchange that may have a
    capability by it; None: the key is in use, or not yet."""

    key: CapabilityKey
    made_s: float
    last_number: int | None = None

    def row(self) -> Row:
        return self.key.secret, self.made_s, self.last_number


class CapabilityKeys:
    """All keys of the cluster, by which nothing is made or checked until `begin`."""

    def __init__(self, rows: Iterable[Row], changes: ChangeLog) -> None:
        """rows: of the table `capability_keys`."""
        self._changes = changes
        self._kept = [
            _Kept(CapabilityKey(key_id, secret), made_s, last_number)
            for key_id, secret, made_s, last_number in rows
        ]
        self._is_on = False
        #: When the newest was given to daemons, of the monotonic clock.
        self._given_at = 0.0
        self._of_daemons: tuple[CapabilityKey, ...] = ()
        self._checker = CapabilityChecker(Checker.METADATA)

    @property
    def of_daemons(self) -> tuple[CapabilityKey, ...]:
        """Return what daemons check capabilities by; none: nobody needs one."""
        return self._of_daemons

    @property
    def is_full(self) -> bool:
        """Whether there can be no further key before an old exchange is closed."""
        return len(self._kept) >= MAX_KEYS

    def begin(self, secret: bytes, unix_s: float, now: float) -> None:
        """Have capabilities needed from now on. secret: for the first key, if there is none."""
        self._is_on = True
        self._given_at = now
        if not self._kept:
            self._add(1, secret, unix_s)
        self._changed()

    def capability(
        self,
        number: int,
        count: int = 1,
        limits: Limits = UNLIMITED,
        unix_s: float = 0.0,
        *,
        tenant: str,
    ) -> str:
        """Return what lets who has it use the `count` exchanges of a tenant from a number on,
        within `limits`; empty where nobody needs it. unix_s: of the Unix clock, for what is to
        expire."""
        if not self._is_on:
            return ""
        return made(self._making.key, limits.permit(number, count, unix_s, tenant_tag(tenant)))

    def proof(self, incarnation: int) -> str:
        """Return what shows a daemon that a service of its cluster calls; empty where nobody needs
        to show anything."""
        if not self._is_on:
            return ""
        return service_capability(self._making.key.derived(Checker.DAEMON), incarnation)

    def permit(self, capability: str, unix_s: float) -> Permit:
        """Return what a capability allows; raises AccessDenied."""
        return self._checker.permit(capability, unix_s)

    def turn(
        self,
        secret: bytes,
        unix_s: float,
        now: float,
        *,
        period_s: float,
        spread_s: float,
        last_number: int,
        oldest_open: int,
    ) -> None:
        """Do what is due: a new key, its use, the end of old ones. To be called now and then.

        secret: for a new key. spread_s: how long daemons have to hear of it. last_number: the last
        that an exchange was given. oldest_open: the lowest number of an open exchange.
        """
        if not self._is_on:
            return
        newest, making = self._kept[-1], self._making
        if newest is not making:
            if now - self._given_at >= spread_s:
                making.last_number = last_number
                self._put(making)
        elif unix_s - newest.made_s >= period_s and not self.is_full:
            self._given_at = now
            self._add(newest.key.id + 1, secret, unix_s)
        for kept in self._kept[:-1]:
            if kept.last_number is not None and kept.last_number < oldest_open:
                self._kept.remove(kept)
                self._changes.delete("capability_keys", (kept.key.id,))
        self._changed()

    @property
    def _making(self) -> _Kept:
        return next(kept for kept in self._kept if kept.last_number is None)

    def _add(self, key_id: int, secret: bytes, unix_s: float) -> None:
        kept = _Kept(CapabilityKey(key_id, secret), unix_s)
        self._kept.append(kept)
        self._put(kept)

    def _put(self, kept: _Kept) -> None:
        self._changes.put("capability_keys", (kept.key.id,), partial(_Kept.row, kept))

    def _changed(self) -> None:
        keys = [kept.key for kept in self._kept]
        self._of_daemons = tuple(key.derived(Checker.DAEMON) for key in keys)
        self._checker.set_keys(key.derived(Checker.METADATA) for key in keys)
