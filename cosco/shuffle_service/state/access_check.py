"""Who may write to a daemon, read from it, and speak to it as a service of the cluster. No IO.

A daemon that the metadata service has given keys lets in who shows a capability; one without keys
lets in everybody. What was let in goes on: a push stream is checked as its writer says hello, a
`Follow` stream as an exchange is first asked about, a fetch as it begins. Times are seconds of the
Unix clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from cosco.errors import AccessDenied, CoscoError
from cosco.protocol.capability import (
    KEY_BYTES,
    CapabilityChecker,
    CapabilityKey,
    Checker,
    Permit,
    Rights,
    service_capability,
)
from cosco.shuffle_service.state.tenants.tenant_streams import TenantStreams

#: Exchanges that are remembered of one stream of readers; those asked about last.
MAX_REMEMBERED: Final = 1024


class AccessCheck:
    """The keys of one daemon, and what they let others do."""

    def __init__(
        self,
        incarnation: int = 0,
        count_refused: Callable[[], object] = lambda: None,
        *,
        lets_in_strangers: bool = False,
    ) -> None:
        """Begin without keys, so that nobody needs a capability.

        incarnation: of this daemon. count_refused: called for each refusal. lets_in_strangers:
        who connects needs no certificate; without keys nobody could show anything then, and
        everybody is refused.
        """
        self._lets_in_strangers = lets_in_strangers
        self._incarnation = incarnation
        self._count_refused = count_refused
        self._checker = CapabilityChecker(Checker.DAEMON)
        self._keys: list[CapabilityKey] = []  # the newest first
        #: Whether capabilities are asked for.
        self.is_needed = lets_in_strangers

    def set_keys(self, keys: Sequence[CapabilityKey]) -> None:
        """Take the keys that the metadata service says now; none: nobody needs a capability.

        One that is too short to be a secret is not used. If no other came, nobody is let in.
        """
        good = [key for key in keys if key.id and len(key.secret) == KEY_BYTES]
        self.is_needed = bool(keys) or self._lets_in_strangers
        self._keys = sorted(good, key=lambda key: key.id, reverse=True)
        self._checker.set_keys(good)

    def check(self, number: int, rights: Rights, capability: str, now_s: float) -> Permit | None:
        """Refuse who does not show that he has these rights on an exchange.

        Returns: what was shown; None if nobody needs to.
        Raises: AccessDenied, or what else `CapabilityChecker.permit` says.
        """
        if not self.is_needed:
            return None
        try:
            return self._checked(number, rights, capability, now_s)
        except CoscoError:
            self._count_refused()
            raise

    def check_service(self, capability: str, what: str, whom: str, now_s: float) -> None:
        """Refuse who does not show that he is a service of this cluster; raises AccessDenied.

        what: is to be done, which is for `whom` alone.
        """
        try:
            permit = self._checker.permit(capability, now_s) if self.is_needed else None
            is_shown = permit is None or permit.allows(self._incarnation, Rights.SERVICE)
        except CoscoError:
            is_shown = False
        if not is_shown:
            self._count_refused()
            raise AccessDenied(f"{what} is for {whom} alone, and nothing shows that they call")

    def proof(self, incarnation: int, attempt: int) -> str:
        """Return what shows another daemon that this one is of its cluster; empty without keys.

        attempt: 0, 1, … With each another key is used: while keys are replaced the other daemon may
        lack the newest one, or have let go of the oldest one.
        """
        if not self._keys:
            return ""
        return service_capability(self._keys[attempt % len(self._keys)], incarnation)

    def _checked(self, number: int, rights: Rights, capability: str, now_s: float) -> Permit:
        verbs = " and ".join(_VERBS[right] for right in rights)
        what = f"to {verbs} the exchange of the number {number}"
        if not self._keys:
            raise AccessDenied(
                f"nothing lets anybody in {what}: this daemon asks for no certificate "
                "(--tls-client-auth optional), and its metadata service for no token"
            )
        if not capability:
            raise AccessDenied(
                f"a capability is needed {what}, and none was shown: this cluster has tokens"
            )
        permit = self._checker.permit(capability, now_s)
        if not permit.allows(number, rights):
            raise AccessDenied(f"what was shown is a capability, and not one {what}")
        return permit


_VERBS: Final = {Rights.READ: "read from", Rights.WRITE: "write to"}


class ReadingStream:
    """What the readers of one `Follow` stream have shown: once for each exchange is enough.

    It is the tenant's who showed something first. Where he has as many streams as he may, it waits
    for nothing: what is asked `now` is answered, by which mappers are found that have ended and are
    not committed, and it is to be ended then.
    """

    def __init__(self, access: AccessCheck, streams: TenantStreams | None = None) -> None:
        """Begin with nothing shown. streams: of readers, by tenant."""
        self._access = access
        self._streams = streams or TenantStreams()
        self._tenant: int | None = None
        #: Whether it is one more than its tenant may have.
        self.is_beyond = False
        self._shown: OrderedDict[int, Permit] = OrderedDict()

    def check(self, number: int, capability: str, now_s: float, *, waits: bool = True) -> None:
        """Refuse a question about an exchange that nobody on this stream may read.

        waits: whether the question may have to wait. Raises: AccessDenied; ServiceUnavailable for
        one that waits, if the stream is one more than its tenant may have.
        """
        if not self._access.is_needed:
            return
        known = self._shown.get(number)
        if known is None or known.is_void(now_s):
            permit = self._access.check(number, Rights.READ, capability, now_s)
            if permit is not None:
                self._remember(number, permit)
        if self.is_beyond:
            self._enter(now_s, waits=waits)

    def _remember(self, number: int, permit: Permit) -> None:
        if self._tenant is None:
            self._tenant, self.is_beyond = permit.tenant, True
        self._shown[number] = permit
        self._shown.move_to_end(number)
        if len(self._shown) > MAX_REMEMBERED:
            self._shown.popitem(last=False)

    def _enter(self, now_s: float, *, waits: bool) -> None:
        tenant = self._tenant or 0
        if waits or not self._streams.is_full(tenant):
            self._streams.enter(tenant, self, now_s)
            self.is_beyond = False

    def close(self) -> None:
        """Note that the stream has ended. Repeatable."""
        self._streams.leave(self._tenant or 0, self)
        self._tenant, self.is_beyond = 0, False

    def make_room(self, now: float) -> bool:
        """See `TenantStream`: never, as who is refused is told elsewhere what he asks."""
        return False
