"""Who calls, and whether he may: by his certificate, his token or his capability."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from cosco.errors import AccessDenied
from cosco.metadata.service.limits.tenant_calls import TenantCalls
from cosco.metadata.state.access.exchange_access import Named
from cosco.metadata.state.access.rights import ANYBODY, NEEDS, Caller
from cosco.metadata.state.state import MetadataState
from cosco.process.grpc_handlers.calling_peer import peer_of
from cosco.protocol.api_limits import shown
from cosco.protocol.capability import PREFIX
from cosco.protocol.peer import NAMES, Principal, Role, ServiceNames

log = logging.getLogger(__name__)

#: The methods that are for daemons alone.
DAEMON_METHODS: Final = frozenset({"RegisterDaemon", "Heartbeat", "LookupAssignment"})
#: Those that daemons call beside, as others do.
_ALSO_BY_DAEMONS: Final = frozenset({"ReportDaemon"})
#: What a refusal counts as in the metrics.
_BOUND: Final = "access"


class Tokens(Protocol):
    """What tells whose a token is."""

    def known(self, token: str) -> Principal | None:
        """Return at once whose it is, if that is known."""

    async def principal(self, token: str) -> Principal:
        """Return whose it is; raises AccessDenied."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A call, for the handlers that act after they have waited for something.

    check: raises AccessDenied unless its caller may make it now. What it names by an id may come to
    be later, so who waits checks again, with nothing waited for between that and the act.
    may_commit: raises AccessDenied unless the caller may commit to the exchange of a number.
    is_daemon: whether a daemon calls, as far as services are known at all. method: that is called;
    empty where nobody is asked who he is.
    """

    caller: Caller
    check: Callable[[], None]
    may_commit: Callable[[int], None]
    is_daemon: bool
    method: str = ""


class Guard:
    """Stands before every call of the metadata service."""

    def __init__(
        self,
        state: MetadataState,
        names: ServiceNames = NAMES,
        tokens: Tokens | None = None,
        refused: Callable[[str], object] = str,
        calls_max: int = 0,
    ) -> None:
        """names: by which services are known. tokens: None where nobody needs a credential.

        refused: is called for each refusal, to count it. calls_max: that a tenant may
        have under way; 0: any number.
        """
        self.calls = TenantCalls(calls_max, refused)
        self._state = state
        self._names = names
        self._tokens = tokens
        self._refused = refused

    async def visit(self, method: str, request: Any, context: Any) -> Visit:
        """Return a call that its caller may make at this moment; raises AccessDenied."""
        is_daemons = method in DAEMON_METHODS
        if self._tokens is None and not self._names.is_checked:
            return _BY_ANYBODY
        peer = peer_of(context)
        is_daemon = self._names.is_daemon(peer) or not self._names.is_checked
        if is_daemons:
            try:
                self._names.check_daemon(peer, method)
            except AccessDenied:
                self._refused(_BOUND)
                raise
        if is_daemons or (is_daemon and method in _ALSO_BY_DAEMONS):
            return replace(_BY_ANYBODY, is_daemon=is_daemon)
        return await self.admit(peer.credential, method, request, is_daemon=is_daemon)

    @property
    def asks(self) -> bool:
        """Whether whoever calls needs a credential."""
        return self._tokens is not None

    async def caller(self, credential: str, method: str) -> Caller:
        """Return who calls, whatever he may; raises AccessDenied for no credential or a bad one."""
        if self._tokens is None:
            return ANYBODY
        try:
            return await self._who(credential, method)
        except AccessDenied:
            self._refused(_BOUND)
            raise

    async def admit(
        self, credential: str, method: str, request: Any, *, is_daemon: bool = False
    ) -> Visit:
        """Return a call that whoever has this credential may make at this moment, be he who he may;
        raises AccessDenied. `method` is none that is for daemons alone."""
        if self._tokens is None:
            return replace(_BY_ANYBODY, is_daemon=is_daemon)
        caller = await self.caller(credential, method)
        visit = self._visit(caller, method, request, is_daemon)
        visit.check()
        if caller.principal is not None and NEEDS[method].least is Role.ADMIN:
            who = caller.principal
            log.info("%s by token %s of tenant %s", method, shown(who.name), who.tenant)
        return visit

    def _visit(self, caller: Caller, method: str, request: Any, is_daemon: bool) -> Visit:
        access, named = self._state.access, _named(method, request)

        def check(of: Named = named) -> None:
            try:
                access.check(caller, method, of)
            except AccessDenied:
                self._refused(_BOUND)
                raise

        return Visit(caller, check, lambda number: check(Named((number,))), is_daemon, method)

    async def _who(self, credential: str, method: str) -> Caller:
        assert self._tokens is not None  # else nobody is asked
        if not credential:
            raise AccessDenied(
                f"{method} needs a token, and none was shown: name its file by COSCO_TOKEN_FILE, "
                "or give cosco.Connection(..., token_file=...)"
            )
        if credential.startswith(PREFIX):
            permit = self._state.access.permit(credential, time.time())
            return Caller(permit=permit, capability=credential)
        principal = self._tokens.known(credential)
        return Caller(principal or await self._tokens.principal(credential))


def _nothing(*_: object) -> None:
    """Whoever calls may."""


_BY_ANYBODY: Final = Visit(ANYBODY, _nothing, _nothing, is_daemon=True)


def _named(method: str, request: Any) -> Named:
    """Return what a request names, by the fields that all requests call alike; of a batch its
    commits are checked one by one."""
    if method == "CreateGroup":
        return Named(group_id=request.spec.shuffle_id)
    number, group_id = getattr(request, "number", None), getattr(request, "group_id", "")
    is_described = method == "DescribeExchange"
    return Named(
        () if number is None or (group_id and not number) else (number,),
        getattr(request, "shuffle_id", ""),
        group_id,
        getattr(request, "application_id", ""),
        takes_over=is_described and bool(request.owner),
        reads=is_described and request.HasField("reading"),
    )
