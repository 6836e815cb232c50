"""Exchanges as text for people and as JSON for programs; docs/operating.md has the keys."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import numpy as np

from cosco.cli.text_table import printable, table
from cosco.protocol.admin_records import ExchangeDetail, LossStatus
from cosco.protocol.html_view import largest_of_runs
from cosco.protocol.records import ExchangeStatus

_HEAD = ("exchange", "number", "partitions", "mappers", "rows", "state")
#: Ranges of a loss that a table names.
_SHOWN_RANGES: Final = 5
#: Bars of a picture of sizes, from nothing to the largest, and how many a line has.
_BARS: Final = " ▁▂▃▄▅▆▇█"
_BARS_MAX: Final = 64


def status_fields(status: ExchangeStatus) -> dict[str, Any]:
    """Return what JSON has of an exchange in a list."""
    return {
        "shuffle_id": status.shuffle_id,
        "number": status.number,
        "partitions": status.partitions,
        "mappers_committed": status.mappers_committed,
        "rows": status.rows,
        "closing": status.closing,
        "finished": status.finished,
    }


def state_name(status: ExchangeStatus) -> str:
    """Return what an exchange is: open, closing or finished."""
    return "finished" if status.finished else "closing" if status.closing else "open"


def list_to_text(exchanges: Iterable[ExchangeStatus]) -> list[str]:
    """Return the lines of a table; none for no exchanges."""
    return table(
        _HEAD,
        [
            (
                e.shuffle_id,
                str(e.number),
                str(e.partitions),
                str(e.mappers_committed),
                str(e.rows),
                state_name(e),
            )
            for e in exchanges
        ],
    )


def list_to_json(exchanges: Iterable[ExchangeStatus], following: int) -> str:
    """Return one object: exchanges, and where the next page begins; null after the last one."""
    listed = [status_fields(status) for status in exchanges]
    return json.dumps({"exchanges": listed, "next": following or None}, indent=2)


def detail_to_json(detail: ExchangeDetail) -> str:
    """Return one object; what an exchange does not have that has ended is not there, or null."""
    state = state_name(detail.status)
    fields: dict[str, Any] = {
        **status_fields(detail.status),
        "state": state,
        "tenant": detail.tenant or None,
        "created": _time(detail.created_s),
        "closed": _time(detail.closed_s),
        "cause": detail.cause or None,
        "waiting_for": list(detail.waiting_for),
        "rebuilds": detail.rebuilds,
        "partition_sizes": list(detail.sizes),
    }
    if state == "open":
        fields |= _open_fields(detail)
    elif detail.closed_s:
        fields |= _kept_fields(detail)
    return json.dumps(fields, indent=2)


def _open_fields(detail: ExchangeDetail) -> dict[str, Any]:
    return {
        "group_id": detail.group_id or None,
        "group_mappers": detail.group_mappers or None,
        "application_id": detail.application_id or None,
        "replicas": detail.replicas,
        "min_replicas": detail.min_replicas,
        "copies": detail.copies,
        "codec": detail.codec,
        "deterministic": detail.deterministic,
        "direct_reads": detail.direct_reads,
        "rows_are": detail.kind.name.lower(),
        "generation": detail.generation,
        "callback": detail.callback,
        "lease_s": detail.lease_s,
        "lease_left_s": round(detail.lease_left_s, 1),
        "driver_heard_s": round(detail.heard_s, 1),
        "mappers_opened": detail.mappers_opened,
        "mappers_contradicted": list(detail.contradicted),
        "bytes_raw": detail.bytes_raw,
        "bytes_stored": detail.bytes_stored,
        "empty_partitions": detail.empty_partitions,
        "largest_partitions": _largest(detail),
        "ranges": detail.ranges,
        "losses_count": detail.losses_count,
        **_lists(detail),
    }


def _kept_fields(detail: ExchangeDetail) -> dict[str, Any]:
    return {
        "replicas": detail.replicas,
        "codec": detail.codec,
        "bytes_raw": detail.bytes_raw,
        "bytes_stored": detail.bytes_stored,
        "empty_partitions": detail.empty_partitions,
        "largest_partitions": _largest(detail),
        "losses_count": detail.losses_count,
    }


def _largest(detail: ExchangeDetail) -> list[dict[str, int]]:
    return [
        {"partition": p.partition, "rows": p.rows, "bytes_raw": p.raw_bytes} for p in detail.largest
    ]


def _time(unix_s: float) -> str | None:
    """Return a time as programs and people read it, in UTC."""
    if not unix_s:
        return None
    return datetime.fromtimestamp(unix_s, UTC).isoformat(" ", "seconds")


def _lists(detail: ExchangeDetail) -> dict[str, Any]:
    return {
        "unusual_ranges": [
            {
                "range": r.partition_range.index,
                "first_partition": r.partition_range.first,
                "partitions": r.partition_range.count,
                "epoch": r.epoch,
                "build": r.build,
                "sealed": r.sealed,
                "copies": r.copies,
                "waiting_for": r.waiting_for or None,
            }
            for r in detail.unusual
        ],
        "daemons": [
            {
                "address": d.ref.address,
                "incarnation": d.ref.incarnation,
                "state": d.state.name.lower(),
                "store_id": d.store_id,
                "primary": d.primary,
                "replica": d.replica,
                "sealed": d.sealed,
            }
            for d in detail.daemons
        ],
        "losses": [
            {
                "loss_id": one.loss_id,
                "ranges": list(one.ranges),
                "ranges_count": one.ranges_count,
                "state": one.state.name.lower(),
                "mappers": one.mappers,
                "reason": one.reason,
                "failure": one.failure or None,
            }
            for one in detail.losses
        ],
        "failures": [
            {"range": f.range_index, "error": f.error, "reason": f.reason} for f in detail.failures
        ],
    }


def detail_to_text(detail: ExchangeDetail) -> str:
    """Return what matters first, then tables of what there is."""
    status = detail.status
    lines = [
        f"exchange {printable(status.shuffle_id)} (number {status.number}): " + state_name(status)
    ]
    lines += [f"waits for {printable(party)}" for party in detail.waiting_for]
    if status.closing or status.finished:
        return "\n".join([*lines, *_kept(detail)])
    facts = {
        "mappers": f"{status.mappers_committed} committed of {detail.mappers_opened} opened",
        "rows": _rows(detail),
        "partitions": f"{status.partitions} in {detail.ranges} ranges, {detail.empty_partitions} "
        "without rows",
        "sizes": picture(detail),
        "copies": f"{detail.copies} of {detail.replicas}",
        "driver": _driver(detail),
    }
    if detail.group_id:
        facts["group"] = printable(detail.group_id)
    if detail.application_id:
        facts["application"] = printable(detail.application_id)
    if detail.direct_reads:
        facts["readers"] = "read from the store themselves"
    if not detail.deterministic:
        facts["generation"] = str(detail.generation)
    if detail.contradicted:
        shown = ", ".join(map(str, islice(detail.contradicted, 10)))
        facts["unreadable"] = f"mappers that committed two different things: {shown}"
    lines += [f"{name:<12}{fact}" for name, fact in facts.items()]
    return "\n".join([*lines, *_tables(detail)])


def _kept(detail: ExchangeDetail) -> list[str]:
    """Return what is known of an exchange that has ended; of some that close it is nothing."""
    if not detail.closed_s:
        return []
    took = f" after {detail.closed_s - detail.created_s:.0f} s" if detail.created_s else ""
    facts = {
        "created": _time(detail.created_s) or "nobody knows when",
        "closed": f"{_time(detail.closed_s)}{took}, cause: {printable(detail.cause)}",
        "tenant": printable(detail.tenant) or "nobody's",
        "mappers": f"{detail.status.mappers_committed} committed",
        "rows": _rows(detail),
        "partitions": f"{detail.status.partitions}, {detail.empty_partitions} without rows",
        "sizes": picture(detail),
        "losses": f"{detail.losses_count}, {detail.rebuilds} ranges written anew",
    }
    return [*(f"{name:<12}{fact}" for name, fact in facts.items()), *_largest_table(detail)]


def picture(detail: ExchangeDetail) -> str:
    """Return bars that show how partitions differ, and how much the largest is above the mean.

    Each bar is the largest of some that follow each other, where they are many.
    """
    sizes = detail.sizes
    if not any(sizes):
        return "no rows"
    largest = largest_of_runs(np.array(sizes, np.uint64), _BARS_MAX).tolist()
    top = max(largest)
    bars = "".join(_BARS[-(-size * (len(_BARS) - 1) // top)] for size in largest)
    mean = detail.bytes_raw / detail.status.partitions
    return f"{bars}  the largest is {top / mean:.1f} times the mean"


def _rows(detail: ExchangeDetail) -> str:
    rate = detail.bytes_stored / detail.bytes_raw if detail.bytes_raw else 1.0
    kind = detail.kind.name.lower()
    return f"{detail.status.rows} ({kind}), {detail.bytes_raw} bytes, stored as {rate:.0%} of that"


def _driver(detail: ExchangeDetail) -> str:
    callback = "a callback" if detail.callback else "no callback"
    return (
        f"heard of {detail.heard_s:.0f} s ago, has {callback}; its lease ends in "
        f"{detail.lease_left_s:.0f} s"
    )


def _ranges(loss: LossStatus) -> str:
    first = ", ".join(map(str, loss.ranges[:_SHOWN_RANGES]))
    more = loss.ranges_count - _SHOWN_RANGES
    return (f"{first} and {more} more" if more > 0 else first) or "all"


def _largest_table(detail: ExchangeDetail) -> list[str]:
    return table(
        ("largest partition", "rows", "bytes"),
        [(str(p.partition), str(p.rows), str(p.raw_bytes)) for p in detail.largest],
    )


def _tables(detail: ExchangeDetail) -> list[str]:
    lines = _largest_table(detail)
    lines += table(
        ("daemon", "state", "store", "primary of", "replica of", "sealed"),
        [
            (
                d.ref.address,
                d.state.name.lower(),
                d.store_id,
                *map(str, (d.primary, d.replica, d.sealed)),
            )
            for d in detail.daemons
        ],
    )
    lines += table(
        ("range", "partitions", "epoch", "build", "copies", "waits"),
        [
            (
                str(r.partition_range.index),
                f"{r.partition_range.first} to {r.partition_range.end - 1}",
                str(r.epoch),
                str(r.build),
                str(r.copies),
                r.waiting_for or "-",
            )
            for r in detail.unusual
        ],
    )
    lines += table(
        ("loss", "ranges", "state", "mappers", "reason"),
        [
            (
                str(one.loss_id),
                _ranges(one),
                one.state.name.lower(),
                str(one.mappers),
                f"{one.reason}; {one.failure}" if one.failure else one.reason,
            )
            for one in detail.losses
        ],
    )
    return lines + table(
        ("failed range", "readers are told", "reason"),
        [(str(f.range_index), f.error, f.reason) for f in detail.failures],
    )
