"""What an operator asks of a cluster, and has it do, beside what `cosco.observe` shows.

Every call names the metadata service as host:port, makes one or more calls to it, and raises
ServiceUnavailable when it does not answer within `timeout_s`, InvalidArgument for what is no
address, and what each says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cosco.client.access.service_connection import Connection
from cosco.errors import ExchangeNotFound
from cosco.observe import call_metadata
from cosco.protocol.admin_records import (
    MAX_PAGE,
    ExchangeDetail,
    ExchangePage,
    ExchangePhase,
    ForgottenStore,
)
from cosco.protocol.events import Severity
from cosco.protocol.records import ExchangeStatus
from cosco.protocol.wire import from_pb, mpb


@dataclass(frozen=True, slots=True)
class ShownEvent:
    """An event as the log has it. time_s: of the Unix clock; `fields` begins with `event`."""

    sequence: int
    time_s: float
    severity: Severity
    fields: dict[str, Any]


def list_exchanges(
    metadata: Connection | str,
    *,
    phase: ExchangePhase | None = None,
    prefix: str = "",
    after: int = 0,
    limit: int = MAX_PAGE,
    timeout_s: float = 10.0,
) -> ExchangePage:
    """Return a page of the exchanges that are open or closing, by number.

    phase: only those; None: any. prefix: of their ids. after: `next` of the page before. A page
    may be short, or empty, though others follow.
    """
    request = mpb.ListExchangesRequest(
        phase=None if phase is None else f"EXCHANGE_PHASE_{phase.name}",
        prefix=prefix,
        after=after,
        limit=limit,
    )
    return from_pb(ExchangePage, call_metadata(metadata, "ListExchanges", request, timeout_s))


def all_exchanges(
    metadata: Connection | str,
    *,
    phase: ExchangePhase | None = None,
    prefix: str = "",
    after: int = 0,
    timeout_s: float = 10.0,
) -> Iterator[ExchangeStatus]:
    """Return an iterator over the exchanges of all pages, which are asked for as it goes on."""
    while True:
        page = list_exchanges(
            metadata, phase=phase, prefix=prefix, after=after, timeout_s=timeout_s
        )
        yield from page.exchanges
        if not page.next:
            return
        after = page.next


def show_exchange(
    metadata: Connection | str, shuffle_id: str, timeout_s: float = 10.0
) -> ExchangeDetail:
    """Return what there is to know of an exchange that is open or closing.

    Raises: ExchangeNotFound, ExchangeClosed.
    """
    request = mpb.ShowExchangeRequest(shuffle_id=shuffle_id)
    return from_pb(ExchangeDetail, call_metadata(metadata, "ShowExchange", request, timeout_s))


def list_events(
    metadata: Connection | str,
    *,
    after: int = 0,
    severity: Severity = Severity.INFO,
    limit: int = 100,
    wait_s: float = 0.0,
    timeout_s: float = 10.0,
) -> tuple[list[ShownEvent], int]:
    """Return what operators were told lately, the oldest first, and the sequence to go on from.

    after: that sequence of the call before; 0: the newest events are wanted. severity: the least.
    limit: at most this many, 1 to 1,000. wait_s: 0 to 30, for the first event after `after`.

    What the metadata service told before it started is not there; docs/operating.md says where logs
    have it.
    """
    request = mpb.ListEventsRequest(after=after, limit=limit, severity=int(severity), wait_s=wait_s)
    reply = call_metadata(metadata, "ListEvents", request, timeout_s + wait_s)
    events = [
        ShownEvent(told.sequence, told.time_s, Severity(told.severity), json.loads(told.fields))
        for told in reply.events
    ]
    return events, reply.last


def close_exchange(metadata: Connection | str, shuffle_id: str, timeout_s: float = 10.0) -> bool:
    """Close an exchange, or a group with all its exchanges.

    Returns: whether it was open; closing it again is harmless.

    Raises: ExchangeNotFound.
    """
    try:
        request = mpb.CloseExchangeRequest(shuffle_id=shuffle_id)
        return bool(call_metadata(metadata, "CloseExchange", request, timeout_s).was_open)
    except ExchangeNotFound as error:
        missing = error
    try:
        group = mpb.CloseGroupRequest(group_id=shuffle_id)
        return bool(call_metadata(metadata, "CloseGroup", group, timeout_s).was_open)
    except ExchangeNotFound:
        raise missing from None


def undrain_daemon(metadata: Connection | str, daemon: str, timeout_s: float = 10.0) -> bool:
    """Give `daemon` (host:port), which drains by `drain_daemon`, work again.

    Returns: whether it drained.

    Raises: InvalidArgument when no such daemon lives, or it was told to end by a signal.
    """
    request = mpb.UndrainDaemonRequest(daemon=daemon)
    return bool(call_metadata(metadata, "UndrainDaemon", request, timeout_s).was_draining)


def forget_store(
    metadata: Connection | str, store_id: str, timeout_s: float = 60.0
) -> ForgottenStore:
    """Say that a store is gone for good, which nobody serves: what only it had is lost.

    Closing exchanges do not wait for it any more. Repeatable. If a daemon comes with that store
    after all, it counts as any other.

    Returns: what followed from it.

    Raises: InvalidArgument for a store that a live daemon serves, or that nobody has heard of.
    """
    request = mpb.ForgetStoreRequest(store_id=store_id)
    return from_pb(ForgottenStore, call_metadata(metadata, "ForgetStore", request, timeout_s))
