"""What each call needs: a right of a capability on what it names, or a role of its tenant.

Who has a token may do with exchanges of his tenant what his role allows, an admin with all. Who has
a capability may write to its exchanges, read from them, or both, as it says, and nothing else. What
daemons alone do is no affair of either: they are known by their certificates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from cosco.errors import AccessDenied
from cosco.protocol.api_limits import shown
from cosco.protocol.capability import Permit, Rights
from cosco.protocol.peer import Principal, Role
from cosco.protocol.records import ExchangeInfo

#: From the one that may least.
_RANKS: Final = {Role.VIEWER: 0, Role.TENANT: 1, Role.ADMIN: 2}
_NONE: Final = Rights(0)
_ANY: Final = Rights.READ | Rights.WRITE


class Need(NamedTuple):
    """What a call needs: one of `rights` on each exchange that it names, or a token of at least
    the role `least` of the tenant whose it is. No rights: no capability is enough."""

    rights: Rights
    least: Role


#: By the names of the methods; what daemons alone call is not here.
NEEDS: Final[Mapping[str, Need]] = {
    "ReportDaemon": Need(_ANY, Role.TENANT),
    "DrainDaemon": Need(_NONE, Role.ADMIN),
    "UndrainDaemon": Need(_NONE, Role.ADMIN),
    "ForgetStore": Need(_NONE, Role.ADMIN),
    "CreateExchange": Need(_NONE, Role.TENANT),
    "DescribeExchange": Need(_ANY, Role.TENANT),
    "PollDriver": Need(Rights.OWN, Role.TENANT),
    "CloseExchange": Need(Rights.OWN, Role.TENANT),
    "Progress": Need(Rights.READ, Role.VIEWER),
    "MakeCapability": Need(_NONE, Role.TENANT),
    "OpenAttempt": Need(Rights.WRITE, Role.TENANT),
    "FixRowKind": Need(Rights.WRITE, Role.TENANT),
    "RenewAssignments": Need(Rights.WRITE, Role.TENANT),
    "Commit": Need(Rights.WRITE, Role.TENANT),
    "AwaitCommits": Need(Rights.READ, Role.TENANT),
    "ReportLoss": Need(Rights.READ, Role.TENANT),
    "CreateGroup": Need(_NONE, Role.TENANT),
    "PollGroup": Need(_NONE, Role.TENANT),
    "ReleaseExchanges": Need(_NONE, Role.TENANT),
    "CloseGroup": Need(_NONE, Role.TENANT),
    "CommitBatch": Need(Rights.WRITE, Role.TENANT),
    "ReportUncommitted": Need(Rights.READ, Role.TENANT),
    "CreateApplication": Need(_NONE, Role.TENANT),
    "PollApplication": Need(_NONE, Role.TENANT),
    "CloseApplication": Need(_NONE, Role.TENANT),
    "Status": Need(_NONE, Role.VIEWER),
    "ListExchanges": Need(_NONE, Role.VIEWER),
    "ShowExchange": Need(_NONE, Role.VIEWER),
    "ListEvents": Need(_NONE, Role.VIEWER),
}
#: Who takes an exchange over by DescribeExchange needs more than who looks at it.
TAKE_OVER: Final = Need(Rights.OWN, Role.TENANT)
#: Who asks by DescribeExchange for what is committed needs more than who looks at the exchange.
READING: Final = Need(Rights.READ, Role.TENANT)


class Subject(NamedTuple):
    """What a call names. number: of an exchange, 0 for something else; what is not open has none.
    tenant: whose it is; None: there is no such thing, as the call will say. what: for people."""

    number: int
    tenant: str | None
    what: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call: somebody with a token, or with a capability that is good.

    permit: what that allows. capability: itself.
    """

    principal: Principal | None = None
    permit: Permit | None = None
    capability: str = field(default="", repr=False)

    @property
    def tenant(self) -> str:
        """Return whose is what the caller makes."""
        return self.principal.tenant if self.principal else ""

    @property
    def sees(self) -> str | None:
        """Return the tenant whose exchanges alone the caller is told of; None: everybody's."""
        if self.principal is None or self.principal.role is Role.ADMIN:
            return None
        return self.principal.tenant

    def capability_for(self, info: ExchangeInfo) -> str:
        """Return which capability the caller is told of an exchange: who has shown one that one
        again, so that nobody comes to more rights, or to a longer time, by asking."""
        return info.capability if self.permit is None else self.capability

    def told(self, info: ExchangeInfo) -> ExchangeInfo:
        """Return what the caller is told of an exchange."""
        if self.permit is None:
            return info
        return replace(info, capability=self.capability)

    def check(self, method: str, need: Need, subjects: tuple[Subject, ...]) -> None:
        """Raise AccessDenied unless the caller may do this with all that the call names."""
        if self.permit is not None:
            _check_permit(self.permit, method, need, subjects)
        elif self.principal is not None:
            _check_principal(self.principal, method, need, subjects)


def _check_permit(permit: Permit, method: str, need: Need, subjects: tuple[Subject, ...]) -> None:
    if not need.rights:
        raise AccessDenied(
            f"{method} needs a token: a handle lets you write to its exchange or read from it"
        )
    for subject in subjects:
        if subject.tenant is None:
            continue
        if not any(permit.allows(subject.number, right) for right in need.rights):
            raise AccessDenied(
                f"the capability that was shown does not allow {method} of {subject.what}: take a "
                "handle that may from the driver of the exchange"
            )


def _check_principal(
    principal: Principal, method: str, need: Need, subjects: tuple[Subject, ...]
) -> None:
    who = f"token {shown(principal.name)}, a {principal.role} of tenant {principal.tenant}"
    if _RANKS[principal.role] < _RANKS[need.least]:
        raise AccessDenied(f"{method} needs the role {need.least}; {who}, may not do it")
    if principal.role is Role.ADMIN:
        return
    for subject in subjects:
        if subject.tenant == "":
            raise AccessDenied(
                f"{subject.what} is of no tenant, as it was made before tokens were asked for or "
                f"is closing: only admins may call {method} for it; {who}, may not"
            )
        if subject.tenant is not None and subject.tenant != principal.tenant:
            raise AccessDenied(f"{subject.what} is of another tenant; {who}, may not call {method}")


#: Who calls where nobody needs a credential.
ANYBODY: Final = Caller()
