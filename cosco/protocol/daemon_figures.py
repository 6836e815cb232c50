"""What a daemon has done since it started, and holds now, as its heartbeats tell it.

Each figure is a sample of its metrics, so whoever sees one here and the other there sees the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from cosco.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class DaemonFigures:
    """The figures of one daemon at one moment. Bytes and numbers are since its start, but those of
    what is there now: pages, copies, what waits, what is granted, streams.

    write_s, read_s: seconds that IOs of the store took, added up. waited_s: seconds that frames of
    writers waited for memory, those that wait still left out.
    """

    bytes_received: int = 0
    blocks_received: int = 0
    rows_received: int = 0
    duplicates_dropped: int = 0
    bytes_stored: int = 0
    bytes_fetched: int = 0
    rows_fetched: int = 0
    bytes_referenced: int = 0
    flush_failures: int = 0
    writes: int = 0
    write_bytes: int = 0
    write_s: float = 0.0
    reads: int = 0
    read_bytes: int = 0
    read_s: float = 0.0
    waited_s: float = 0.0
    pages_used_bytes: int = 0
    copies_bytes: int = 0
    waiting_bytes: int = 0
    granted_bytes: int = 0
    push_streams: int = 0
    fetch_streams: int = 0
    followers: int = 0


#: The sample of each figure, as Prometheus calls it.
SAMPLES: Final[Mapping[str, str]] = {
    "bytes_received": "cosco_bytes_received_total",
    "blocks_received": "cosco_blocks_received_total",
    "rows_received": "cosco_rows_received_total",
    "duplicates_dropped": "cosco_duplicates_dropped_total",
    "bytes_stored": "cosco_bytes_stored_total",
    "bytes_fetched": "cosco_bytes_fetched_total",
    "rows_fetched": "cosco_rows_fetched_total",
    "bytes_referenced": "cosco_bytes_referenced_total",
    "flush_failures": "cosco_flush_failures_total",
    "writes": "cosco_store_write_bytes_count",
    "write_bytes": "cosco_store_write_bytes_sum",
    "write_s": "cosco_store_write_seconds_sum",
    "reads": "cosco_store_read_bytes_count",
    "read_bytes": "cosco_store_read_bytes_sum",
    "read_s": "cosco_store_read_seconds_sum",
    "waited_s": "cosco_writers_waited_seconds_total",
    "pages_used_bytes": "cosco_pages_used_bytes",
    "copies_bytes": "cosco_copies_bytes",
    "waiting_bytes": "cosco_waiting_frames_bytes",
    "granted_bytes": "cosco_granted_bytes",
    "push_streams": "cosco_push_streams",
    "fetch_streams": "cosco_fetch_streams",
    "followers": "cosco_followers",
}
#: Those that only grow while a daemon runs; the others say what is there now.
COUNTERS: Final = frozenset(
    name for name, sample in SAMPLES.items() if sample.endswith(("_total", "_count", "_sum"))
)
#: Seconds that a figure may tell. Sums of such are finite, as JSON has no other numbers.
MAX_S: Final = 1e12
_WHOLE: Final = [field.name for field in fields(DaemonFigures) if field.type == "int"]


def figures_from(samples: Mapping[str, float]) -> DaemonFigures:
    """Return the figures that samples, by their names, say; what is not among them is 0."""
    said: dict[str, Any] = {name: samples.get(sample, 0.0) for name, sample in SAMPLES.items()}
    for name in _WHOLE:
        said[name] = int(said[name])
    return DaemonFigures(**said)


def check_figures(figures: DaemonFigures) -> None:
    """Raise InvalidArgument for seconds that cannot be."""
    for name in ("write_s", "read_s", "waited_s"):
        value = getattr(figures, name)
        if not 0 <= value <= MAX_S:  # which nan is not, either
            raise InvalidArgument(f"figures: {name} is {value}, it must be 0 to {MAX_S:g}")
