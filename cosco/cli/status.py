"""A cluster's status as text for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from cosco.cli.options import format_size
from cosco.observe import ClusterStatus


def to_json(cluster: ClusterStatus) -> str:
    """Return one object: cluster_id, daemons, exchanges; sizes are bytes."""
    return json.dumps(
        {
            "cluster_id": cluster.cluster_id,
            "daemons": [
                {
                    "address": d.ref.address,
                    "incarnation": d.ref.incarnation,
                    "state": d.state.name.lower(),
                    "host_id": d.host_id,
                    "store_id": d.store_id,
                    "memory_bytes": d.memory_bytes,
                    "free_bytes": d.free_bytes,
                    "metrics_address": d.metrics_address,
                    "assignments": d.assignments,
                }
                for d in cluster.daemons
            ],
            "exchanges": [
                {
                    "shuffle_id": e.shuffle_id,
                    "number": e.number,
                    "partitions": e.partitions,
                    "mappers_committed": e.mappers_committed,
                    "rows": e.rows,
                    "closing": e.closing,
                }
                for e in cluster.exchanges
            ],
        },
        indent=2,
    )


def to_text(cluster: ClusterStatus) -> str:
    """Return two tables."""
    daemons = [
        (
            d.ref.address,
            d.state.name.lower(),
            d.host_id,
            d.store_id,
            format_size(d.memory_bytes),
            f"{100 * (1 - d.free_bytes / d.memory_bytes):.0f}%" if d.memory_bytes else "-",
            str(d.assignments),
            d.metrics_address or "-",
        )
        for d in cluster.daemons
    ]
    exchanges = [
        (
            # Ids are any text; a control character must not reach the terminal.
            e.shuffle_id if e.shuffle_id.isprintable() else repr(e.shuffle_id),
            str(e.number),
            str(e.partitions),
            str(e.mappers_committed),
            str(e.rows),
            "closing" if e.closing else "open",
        )
        for e in cluster.exchanges
    ]
    return "\n".join(
        [
            f"cluster {cluster.cluster_id}: {len(daemons)} daemons, {len(exchanges)} exchanges",
            *_table(
                ("daemon", "state", "host", "store", "memory", "used", "assignments", "metrics"),
                daemons,
            ),
            *_table(("exchange", "number", "partitions", "mappers", "rows", "state"), exchanges),
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )
    return ["", *lines]
