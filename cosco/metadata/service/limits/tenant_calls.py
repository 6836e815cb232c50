"""How many calls each tenant has under way, those that wait included."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Final

from cosco.errors import ServiceUnavailable
from cosco.metadata.state.access.rights import Caller
from cosco.process.native_grpc.rare_warnings import RareWarnings
from cosco.protocol.capability import tenant_tag

log = logging.getLogger(__name__)

#: Methods that others do not wait for.
_LOOKING: Final = frozenset(
    {"AwaitCommits", "ListEvents", "ListExchanges", "Progress", "ShowExchange", "Status"}
)
#: The bound for which calls are refused, as metrics call it.
TENANT_CALLS: Final = "tenant_calls"


class TenantCalls:
    """The tallies of the tenants that have calls under way.

    What waits of one tenant may fill what calls may hold; so each may have some, wherever they come
    from. A bound of hosts does not do: a tenant's tasks are on many, and hosts have tasks of many.
    """

    def __init__(self, calls_max: int, refused: Callable[[str], object]) -> None:
        """calls_max: of one tenant; 0: any number. refused: called for each, with the bound."""
        self._calls_max = calls_max
        self._refused = refused
        self._tallies: dict[int, _Tally] = {}
        self._warnings = RareWarnings(log)

    def count(self, caller: Caller, method: str) -> AbstractContextManager[None]:
        """Return what counts a call of the caller, as one more, while it is entered.

        Calls that only look, or wait for others, are refused while a quarter of the bound is left:
        a tenant's readers wait for its writers, and its exchanges end if its drivers are not heard.
        Raises ServiceUnavailable, which clients take as: try again.
        """
        tag = _tag(caller)
        if not tag or not self._calls_max:
            return _NOT_COUNTED
        tally = self._tallies.get(tag)
        if tally is None:
            tally = self._tallies[tag] = _Tally(self._tallies, tag)
        kept = math.ceil(self._calls_max / 4) if method in _LOOKING else 0
        if tally.calls >= self._calls_max - kept:
            self._refuse(caller)
        return tally

    def _refuse(self, caller: Caller) -> None:
        self._refused(TENANT_CALLS)
        whose = f"tenant {caller.principal.tenant}" if caller.principal else "a tenant"
        most = self._calls_max
        text = "%s has %d calls under way, and can make no more (--tenant-calls)"
        self._warnings.tell(TENANT_CALLS, time.monotonic(), text, whose, most)
        raise ServiceUnavailable(
            f"{whose} has {most} calls under way at the metadata service (--tenant-calls); try "
            "again when some have ended"
        )


class _Tally(AbstractContextManager[None]):
    """What one tenant has under way. It goes with the last of them."""

    def __init__(self, tallies: dict[int, _Tally], tag: int) -> None:
        self.calls = 0
        self._tallies = tallies
        self._tag = tag

    def __enter__(self) -> None:
        self.calls += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.calls -= 1
        if not self.calls:
            del self._tallies[self._tag]


_NOT_COUNTED: Final = nullcontext()


def _tag(caller: Caller) -> int:
    if caller.permit is not None:
        return caller.permit.tenant
    return tenant_tag(caller.principal.tenant) if caller.principal is not None else 0
