"""A cluster's status as text for people and as JSON for programs."""

from __future__ import annotations

import json

from cosco.cli.exchange_view import list_to_text, status_fields
from cosco.cli.options import format_size
from cosco.cli.text_table import table
from cosco.observe import ClusterStatus
from cosco.protocol.records import DaemonStatus


def to_json(cluster: ClusterStatus) -> str:
    """Return one object; sizes are bytes."""
    return json.dumps(
        {
            "cluster_id": cluster.cluster_id,
            "version": cluster.version,
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
                    "store_failing": d.store_failing,
                    "store_hangs": d.store_hangs,
                    "mechanics": d.mechanics,
                    "version": d.version,
                }
                for d in cluster.daemons
            ],
            "exchanges": [status_fields(e) for e in cluster.exchanges],
            "exchanges_open": cluster.open,
            "exchanges_closing": cluster.closing,
        },
        indent=2,
    )


def _state(daemon: DaemonStatus) -> str:
    """Return what a daemon does, and what its store does not."""
    store = "hangs" if daemon.store_hangs else "fails" if daemon.store_failing else ""
    return daemon.state.name.lower() + (f", store {store}" if store else "")


def to_text(cluster: ClusterStatus) -> str:
    """Return two tables."""
    daemons = [
        (
            d.ref.address,
            _state(d),
            d.host_id,
            d.store_id,
            format_size(d.memory_bytes),
            f"{100 * (1 - d.free_bytes / d.memory_bytes):.0f}%" if d.memory_bytes else "-",
            str(d.assignments),
            d.metrics_address or "-",
            d.mechanics or "-",
            d.version or "-",
        )
        for d in cluster.daemons
    ]
    in_all, listed = cluster.open + cluster.closing, len(cluster.exchanges)
    newest = f"; the newest {listed} of them:" if listed < in_all else ""
    head = (
        f"cluster {cluster.cluster_id}: {len(daemons)} daemons, {in_all} exchanges "
        f"({cluster.open} open, {cluster.closing} closing){newest}"
    )
    return "\n".join(
        [
            head,
            *table(
                (
                    "daemon",
                    "state",
                    "host",
                    "store",
                    "memory",
                    "used",
                    "assignments",
                    "metrics",
                    "mechanics",
                    "version",
                ),
                daemons,
            ),
            *list_to_text(cluster.exchanges),
        ]
    )
