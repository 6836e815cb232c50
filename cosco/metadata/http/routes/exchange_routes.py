"""The routes of one exchange: all there is to know of it, and what is too much for one answer."""

from __future__ import annotations

import time
from functools import partial
from itertools import islice
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Path, Query, Response
from pyroaring import BitMap

from cosco.metadata.http import models
from cosco.metadata.http.calls import LIMIT, Call, Caller_, Cursor, Limit, as_json
from cosco.metadata.http.mapper_runs import mapper_runs
from cosco.metadata.http.paging import cursor_after, number_after
from cosco.metadata.service.guard import Visit
from cosco.metadata.service.polls import MAX_WAIT_S, Waiter
from cosco.metadata.state.partition_sizes import (
    SizePicture,
    check_by_size,
    kept_picture,
    size_page,
    size_picture,
)
from cosco.protocol.admin_records import DaemonShare, ExchangeDetail, LossStatus, RangeStatus
from cosco.protocol.api_limits import check_shuffle_id
from cosco.protocol.records import U64, DaemonRef, RowKind
from cosco.protocol.wire import mpb

router: Final = APIRouter(prefix="/api/v1/exchanges/{shuffle_id}", tags=["exchanges"])

#: Runs of mappers that are given.
MAX_RUNS: Final = 1000
_KINDS: Final = {
    RowKind.UNDECIDED: "",
    RowKind.BYTES: "bytes",
    RowKind.ARROW: "arrow",
    RowKind.OPAQUE: "opaque",
}


async def exchange_id(
    shuffle_id: Annotated[str, Path(description="its id, with a slash as %2F")],
) -> str:
    """Return the id of the exchange that a path names; raises InvalidArgument."""
    found = unquote(shuffle_id)
    check_shuffle_id(found)
    return found


ExchangeId = Annotated[str, Depends(exchange_id)]


@router.get("", response_model=models.ExchangeDetail, summary="one exchange")
async def exchange(call: Caller_, shuffle_id: ExchangeId) -> Response:
    handlers, state = call.inside.handlers, call.inside.state

    async def act(visit: Visit) -> models.ExchangeDetail:
        used = await handlers.used(shuffle_id)
        visit.check()
        count = state.view.partitions(shuffle_id)

        def now() -> tuple[ExchangeDetail, tuple[U64, ...]]:
            visit.check()
            # What was open may have ended since, and is no stranger then.
            is_used = used or count > 0
            detail = state.overview.detail(shuffle_id, time.monotonic(), used=is_used)
            status = detail.status
            if status.closing or status.finished:
                return detail, ()
            return detail, (state.view.sizes(status.number)[1],)

        detail, picture = await call.desk.sizes.look(count, now, _picture)
        if picture is None:
            picture = kept_picture(detail.sizes, detail.status.partitions, detail.bytes_raw)
        return _detail(detail, picture)

    return as_json(await call.answer("ShowExchange", _named(shuffle_id), act))


@router.get(
    "/partitions", response_model=models.PartitionPage, summary="partitions, by size or by number"
)
async def partitions(
    call: Caller_,
    shuffle_id: ExchangeId,
    order: Annotated[
        Literal["size", "number"],
        Query(description="size: the largest first, as far as the first 10,000"),
    ] = "size",
    cursor: Cursor = "",
    limit: Limit = LIMIT,
) -> Response:
    """Sizes change as mappers commit: pages by size may then repeat a partition, or leave one
    out."""

    async def act(visit: Visit) -> models.PartitionPage:
        number = await _number(call, shuffle_id, visit)
        view, of = call.inside.state.view, f"partitions by {order}"
        skip = number_after(of, cursor)

        def now() -> tuple[None, tuple[U64, ...]]:
            visit.check()
            return None, view.sizes(number)

        rows, raw_bytes = view.sizes(number)
        count = len(rows)
        if order == "size":
            check_by_size(skip)
            largest = partial(size_page, skip=skip, limit=limit, by_size=True)
            _, page = await call.desk.sizes.look(count, now, largest)
        else:
            page = size_page(rows, raw_bytes, skip, limit, by_size=False)
        after = skip + len(page)
        return models.PartitionPage(
            partitions=[
                models.Partition(partition=p.partition, rows=p.rows, raw_bytes=p.raw_bytes)
                for p in page
            ],
            next=cursor_after(of, after) if page and after < count else None,
        )

    return as_json(await call.answer("ShowExchange", _named(shuffle_id), act))


@router.get(
    "/assignments", response_model=models.AssignmentPage, summary="which daemons take its rows"
)
async def assignments(
    call: Caller_, shuffle_id: ExchangeId, cursor: Cursor = "", limit: Limit = LIMIT
) -> Response:
    async def act(visit: Visit) -> models.AssignmentPage:
        number = await _number(call, shuffle_id, visit)
        after = number_after("assignments", cursor, -1)
        found = call.inside.state.view.places(number, after, limit + 1)
        page = found[:limit]
        return models.AssignmentPage(
            assignments=[
                models.Assignment(
                    range_index=place.partition_range.index,
                    first=place.partition_range.first,
                    count=place.partition_range.count,
                    epoch=place.last.epoch,
                    build=place.last.build,
                    sealed=place.last.sealed,
                    primary=_name(place.last.primary),
                    replicas=[_name(ref) for ref in place.last.replicas],
                )
                for place in page
            ],
            next=cursor_after("assignments", page[-1].partition_range.index)
            if len(found) > limit
            else None,
        )

    return as_json(await call.answer("ShowExchange", _named(shuffle_id), act))


@router.get("/commits", response_model=models.Commits, summary="which mappers have committed")
async def commits(
    call: Caller_,
    shuffle_id: ExchangeId,
    wait: Annotated[
        float, Query(ge=0, le=MAX_WAIT_S, description="seconds to wait for more than `after`")
    ] = 0.0,
    after: Annotated[
        int | None,
        Query(ge=0, le=1 << 31, description="how many are known; none: as many as there are now"),
    ] = None,
) -> Response:
    """With `wait` the answer comes when another mapper commits, the exchange ends, or in time."""

    async def act(visit: Visit) -> models.Commits:
        number = await _number(call, shuffle_id, visit)
        view, polls = call.inside.state.view, call.inside.polls
        known = len(view.committed(number)) if after is None else after

        def add(_: int, waiter: Waiter) -> None:
            polls.waiting.add_watcher(number, waiter)

        await polls.poll(
            lambda: len(view.committed(number)),
            lambda count: count > known,
            add,
            wait,
            held_bytes=0,
        )
        visit.check()
        return _commits(number, view.committed(number))

    return as_json(await call.answer("Progress", _named(shuffle_id), act))


def _named(shuffle_id: str) -> Any:
    return mpb.ShowExchangeRequest(shuffle_id=shuffle_id)


async def _number(call: Call, shuffle_id: str, visit: Visit) -> int:
    """Return the number of an open exchange; raises ExchangeNotFound or ExchangeClosed."""
    used = await call.inside.handlers.used(shuffle_id)
    visit.check()
    return call.inside.state.view.number_of(shuffle_id, used=used)


def _commits(number: int, mappers: BitMap) -> models.Commits:
    runs = list(islice(mapper_runs(mappers), MAX_RUNS + 1))
    return models.Commits(
        number=number,
        committed=len(mappers),
        mappers=[models.Run(first=first, last=last) for first, last in runs[:MAX_RUNS]],
        is_cut=len(runs) > MAX_RUNS,
    )


def _picture(*raw_bytes: U64) -> SizePicture | None:
    """Return a picture of the sizes of an open exchange; of one that has ended there are none."""
    return size_picture(raw_bytes[0]) if raw_bytes else None


def _name(ref: DaemonRef) -> models.DaemonName:
    return models.DaemonName(address=ref.address, incarnation=str(ref.incarnation))


def _sizes(of: SizePicture) -> models.Sizes:
    smallest, median, p90, p99, _ = of.quantiles
    return models.Sizes(
        bands=[
            models.Band(
                first=band.first,
                count=band.count,
                raw_bytes=band.raw_bytes,
                largest_bytes=band.largest_bytes,
            )
            for band in of.bands
        ],
        smallest_bytes=smallest,
        median_bytes=median,
        p90_bytes=p90,
        p99_bytes=p99,
        largest_bytes=of.largest_bytes,
        mean_bytes=of.mean_bytes,
        skew=of.skew,
    )


def _detail(of: ExchangeDetail, picture: SizePicture | None) -> models.ExchangeDetail:
    status = of.status
    return models.ExchangeDetail(
        shuffle_id=status.shuffle_id,
        number=status.number,
        state=models.phase_name(status),
        tenant=of.tenant,
        partitions=status.partitions,
        mappers_committed=status.mappers_committed,
        rows=status.rows,
        group_id=of.group_id,
        application_id=of.application_id,
        replicas=of.replicas,
        min_replicas=of.min_replicas,
        copies=of.copies,
        codec=of.codec,
        kind=_KINDS[of.kind],
        deterministic=of.deterministic,
        direct_reads=of.direct_reads,
        generation=of.generation,
        callback=of.callback,
        lease_s=of.lease_s,
        heard_s=round(of.heard_s, 3),
        lease_left_s=round(of.lease_left_s, 3),
        mappers_opened=of.mappers_opened,
        group_mappers=of.group_mappers,
        created_s=of.created_s,
        closed_s=of.closed_s,
        cause=of.cause,
        rebuilds=of.rebuilds,
        raw_bytes=of.bytes_raw,
        stored_bytes=of.bytes_stored,
        ranges=of.ranges,
        empty_partitions=of.empty_partitions,
        largest=[
            models.Partition(partition=p.partition, rows=p.rows, raw_bytes=p.raw_bytes)
            for p in of.largest
        ],
        sizes=None if picture is None else _sizes(picture),
        daemons=[_share(one) for one in of.daemons],
        unusual=[_unusual(one) for one in of.unusual],
        rebuilt_ranges=sum(one.build > 1 for one in of.unusual),
        losses=[_loss(one) for one in of.losses],
        losses_count=of.losses_count,
        failures=[
            models.Failure(range_index=one.range_index, error=one.error, reason=one.reason)
            for one in of.failures
        ],
        contradicted=list(islice(of.contradicted, MAX_RUNS)),
        waiting_for=list(of.waiting_for),
    )


def _share(of: DaemonShare) -> models.Share:
    return models.Share(
        address=of.ref.address,
        incarnation=str(of.ref.incarnation),
        store_id=of.store_id,
        state=models.state_name(of.state),
        primary=of.primary,
        replica=of.replica,
        sealed=of.sealed,
    )


def _unusual(of: RangeStatus) -> models.UnusualRange:
    return models.UnusualRange(
        range_index=of.partition_range.index,
        first=of.partition_range.first,
        count=of.partition_range.count,
        epoch=of.epoch,
        build=of.build,
        sealed=of.sealed,
        copies=of.copies,
        waiting_for=of.waiting_for,
    )


def _loss(of: LossStatus) -> models.Loss:
    return models.Loss(
        loss_id=of.loss_id,
        ranges=list(of.ranges),
        ranges_count=of.ranges_count,
        state=models.loss_state_name(of.state),
        mappers=of.mappers,
        reason=of.reason,
        failure=of.failure,
    )
