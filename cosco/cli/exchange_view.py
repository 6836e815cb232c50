"""Exchanges as text for people and as JSON for programs; docs/operating.md has the keys."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from cosco.cli.text_table import printable, table
from cosco.protocol.admin_records import ExchangeDetail, LossStatus
from cosco.protocol.records import ExchangeStatus

_HEAD = ("exchange", "number", "partitions", "mappers", "rows", "state")
#: Ranges of a loss that a table names.
_SHOWN_RANGES: Final = 5


def status_fields(status: ExchangeStatus) -> dict[str, Any]:
    """Return what JSON has of an exchange in a list."""
    return {
        "shuffle_id": status.shuffle_id,
        "number": status.number,
        "partitions": status.partitions,
        "mappers_committed": status.mappers_committed,
        "rows": status.rows,
        "closing": status.closing,
    }


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
                "closing" if e.closing else "open",
            )
            for e in exchanges
        ],
    )


def list_to_json(exchanges: Iterable[ExchangeStatus], following: int) -> str:
    """Return one object: exchanges, and where the next page begins; null after the last one."""
    listed = [status_fields(status) for status in exchanges]
    return json.dumps({"exchanges": listed, "next": following or None}, indent=2)


def detail_to_json(detail: ExchangeDetail) -> str:
    """Return one object; what an exchange that is closing does not have is empty or null."""
    open_ = not detail.status.closing
    fields: dict[str, Any] = {
        **status_fields(detail.status),
        "state": "open" if open_ else "closing",
        "waiting_for": list(detail.waiting_for),
    }
    if open_:
        fields |= _open_fields(detail)
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
        "largest_partitions": [
            {"partition": p.partition, "rows": p.rows, "bytes_raw": p.raw_bytes}
            for p in detail.largest
        ],
        "ranges": detail.ranges,
        "losses_count": detail.losses_count,
        **_lists(detail),
    }


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
        f"exchange {printable(status.shuffle_id)} (number {status.number}): "
        + ("closing" if status.closing else "open")
    ]
    if status.closing:
        lines += [f"waits for {printable(party)}" for party in detail.waiting_for]
        return "\n".join(lines)
    facts = {
        "mappers": f"{status.mappers_committed} committed of {detail.mappers_opened} opened",
        "rows": _rows(detail),
        "partitions": f"{status.partitions} in {detail.ranges} ranges, {detail.empty_partitions} "
        "without rows",
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


def _tables(detail: ExchangeDetail) -> list[str]:
    lines = table(
        ("largest partition", "rows", "bytes"),
        [(str(p.partition), str(p.rows), str(p.raw_bytes)) for p in detail.largest],
    )
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
