"""The routes of what a cluster has: daemons, exchanges, groups, applications, events."""

from __future__ import annotations

import time
from operator import attrgetter
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from cosco.errors import AccessDenied
from cosco.metadata.http import models
from cosco.metadata.http.calls import LIMIT, Caller_, Cursor, Limit, as_json
from cosco.metadata.http.live import shown_event
from cosco.metadata.http.paging import LOOKED_AT, cursor_after, number_after, text_after
from cosco.metadata.service.guard import Visit
from cosco.metadata.state.daemons.daemon_lists import Wanted
from cosco.process.build import VERSION
from cosco.protocol.admin_records import ExchangePhase
from cosco.protocol.api_limits import MAX_SHUFFLE_ID_BYTES, shown
from cosco.protocol.daemon_figures import SAMPLES, DaemonFigures
from cosco.protocol.events import Severity
from cosco.protocol.records import DaemonState, DaemonStatus

router: Final = APIRouter(prefix="/api/v1", tags=["cluster"])
#: Names of tenants have 64 characters at most.
_TENANT_MAX: Final = 64
_ADDRESS_MAX: Final = 300
#: More daemons than there can be.
MAX_SKIPPED: Final = 1 << 20
_values_of: Final = attrgetter(*SAMPLES)


@router.get("/cluster", response_model=models.Cluster, summary="the cluster, and how much it has")
async def cluster(call: Caller_) -> Response:
    def act(visit: Visit) -> models.Cluster:
        inside = call.inside
        return models.Cluster(
            cluster_id=inside.state.cluster_id,
            version=VERSION,
            address=inside.behind.address,
            started_s=inside.started_s,
            figures=models.Figures(**inside.feed.figures(visit.caller.sees)),
            last_event=inside.history.last,
        )

    return as_json(await call.look(act))


@router.get("/daemons", response_model=models.DaemonPage, summary="daemons, by pages")
async def daemons(
    call: Caller_,
    state: Annotated[
        models.DaemonStateName | None, Query(description="those of this state alone")
    ] = None,
    prefix: Annotated[
        str, Query(max_length=_ADDRESS_MAX, description="how their addresses begin")
    ] = "",
    order: Annotated[
        models.DaemonOrder,
        Query(description="incarnation: the lowest first; else those that have most of this"),
    ] = "incarnation",
    cursor: Cursor = "",
    limit: Limit = LIMIT,
) -> Response:
    """What daemons have changes: pages by that may repeat a daemon, or leave one out."""

    def act(_: Visit) -> models.DaemonPage:
        states = tuple(DaemonState) if state is None else (DaemonState[state.upper()],)
        wanted, view = Wanted(states, prefix), call.inside.state.view
        of = "daemons" if order == "incarnation" else f"daemons by {order}"
        after = number_after(of, cursor)
        if order == "incarnation":
            found = view.daemons(wanted, after, limit + 1)
        else:
            found = view.largest_daemons(wanted, order, min(after, MAX_SKIPPED), limit + 1)
        page = found[:limit]
        following: str | None = None
        if len(found) > limit:
            last = page[-1].ref.incarnation if order == "incarnation" else after + limit
            following = cursor_after(of, last)
        return models.DaemonPage(daemons=[_daemon(one) for one in page], next=following)

    return as_json(await call.look(act))


@router.get("/exchanges", response_model=models.ExchangePage, summary="exchanges, by number")
async def exchanges(
    call: Caller_,
    state: Annotated[
        models.PhaseName | None, Query(description="those of this state alone")
    ] = None,
    prefix: Annotated[
        str, Query(max_length=MAX_SHUFFLE_ID_BYTES, description="how their ids begin")
    ] = "",
    tenant: Annotated[
        str | None, Query(max_length=_TENANT_MAX, description="those of this tenant alone")
    ] = None,
    cursor: Cursor = "",
    limit: Limit = LIMIT,
) -> Response:
    """A page may be short, or empty, though others follow it."""

    def act(visit: Visit) -> models.ExchangePage:
        whose = _whose(visit.caller.sees, tenant)
        phase = 0 if state is None else ExchangePhase[state.upper()]
        after, view = number_after("exchanges", cursor), call.inside.state.view
        page = call.inside.state.overview.page(
            phase, prefix, after, limit, whose, looked_at=LOOKED_AT
        )
        return models.ExchangePage(
            exchanges=[
                models.Exchange(
                    shuffle_id=one.shuffle_id,
                    number=one.number,
                    state=models.phase_name(one),
                    tenant=view.tenant_of(one.number),
                    partitions=one.partitions,
                    mappers_committed=one.mappers_committed,
                    rows=one.rows,
                )
                for one in page.exchanges
            ],
            next=cursor_after("exchanges", page.next) if page.next else None,
        )

    return as_json(await call.look(act, "ListExchanges"))


@router.get("/groups", response_model=models.GroupPage, summary="groups of exchanges, by id")
async def groups(call: Caller_, cursor: Cursor = "", limit: Limit = LIMIT) -> Response:
    def act(visit: Visit) -> models.GroupPage:
        after = text_after("groups", cursor)
        view, sees = call.inside.state.view, visit.caller.sees
        found = view.groups(after, limit + 1, sees, time.monotonic())
        more = len(found) > limit
        page = found[:limit]
        return models.GroupPage(
            groups=[
                models.Group(
                    group_id=one.group_id,
                    tenant=one.tenant,
                    exchanges=one.exchanges,
                    open=one.open,
                    partitions=one.partitions,
                    replicas=one.replicas,
                    mappers=one.mappers,
                    lease_s=one.lease_s,
                    heard_s=round(one.heard_s, 3),
                    lease_left_s=round(one.lease_left_s, 3),
                )
                for one in page
            ],
            next=cursor_after("groups", page[-1].group_id) if more else None,
        )

    return as_json(await call.look(act, "ListExchanges"))


@router.get(
    "/applications", response_model=models.ApplicationPage, summary="applications, by number"
)
async def applications(call: Caller_, cursor: Cursor = "", limit: Limit = LIMIT) -> Response:
    def act(visit: Visit) -> models.ApplicationPage:
        after = number_after("applications", cursor)
        view, sees = call.inside.state.view, visit.caller.sees
        found = view.applications(after, limit + 1, sees, time.monotonic())
        more = len(found) > limit
        page = found[:limit]
        return models.ApplicationPage(
            applications=[
                models.Application(
                    application_id=one.application_id,
                    number=one.number,
                    tenant=one.tenant,
                    exchanges=one.exchanges,
                    lease_s=one.lease_s,
                    heard_s=round(one.heard_s, 3),
                    lease_left_s=round(one.lease_left_s, 3),
                )
                for one in page
            ],
            next=cursor_after("applications", page[-1].number) if more else None,
        )

    return as_json(await call.look(act, "ListExchanges"))


@router.get("/events", response_model=models.EventPage, summary="the last events")
async def events(
    call: Caller_,
    severity: Annotated[
        models.SeverityName, Query(description="those that are at least as severe")
    ] = "info",
    cursor: Cursor = "",
    limit: Limit = LIMIT,
) -> Response:
    """Without a cursor these are the newest, else those that followed, the oldest first."""

    def act(visit: Visit) -> models.EventPage:
        history, sees = call.inside.history, visit.caller.sees
        least = Severity[severity.upper()]
        if cursor:
            found, last = history.after(number_after("events", cursor), limit, sees, least)
        else:
            found, last = history.newest(limit, sees, least), history.last
        return models.EventPage(
            events=[models.ToldEvent(**shown_event(told)) for told in found],
            next=cursor_after("events", last),
        )

    return as_json(await call.look(act))


def _whose(sees: str | None, asked: str | None) -> str | None:
    """Return the tenant whose exchanges are listed; None: everybody's."""
    if sees is not None and asked not in (None, sees):
        raise AccessDenied(f"you see what is of tenant {sees} alone, not of {shown(asked or '')}")
    return sees if asked is None else asked


def _figures(of: DaemonFigures) -> models.DaemonFigures:
    # Not checked again, as a page has up to a thousand.
    return models.DaemonFigures.model_construct(**dict(zip(SAMPLES, _values_of(of), strict=True)))


def _daemon(of: DaemonStatus) -> models.Daemon:
    return models.Daemon(
        address=of.ref.address,
        incarnation=str(of.ref.incarnation),
        host_id=of.host_id,
        store_id=of.store_id,
        state=models.state_name(of.state),
        memory_bytes=of.memory_bytes,
        memory_free_bytes=of.free_bytes,
        assignments=of.assignments,
        metrics_address=of.metrics_address,
        store_failing=of.store_failing,
        store_hangs=of.store_hangs,
        mechanics=of.mechanics,
        version=of.version,
        figures=None if of.figures is None else _figures(of.figures),
    )
