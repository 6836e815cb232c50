"""What reads and writes of a shuffle come to: counts, sizes, amplification, service time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cosco.dfs.protocol import IOEvent
from cosco_bench.io.spindle import Coalescing, service_s

#: What the 2019 talk on Cosco gives, the sort shuffle against Cosco.
PUBLISHED: Final = {
    "mean_io_bytes": {"sort_shuffle": 200 << 10, "cosco": int(2.5 * (1 << 20)), "ratio": 12.8},
    "write_amplification": {"sort_shuffle": 3.0, "cosco": 1.2, "ratio": 2.5},
    "service_time": {"ratio": 3.2},
}
_MIN_BUCKET: Final = 4 << 10


@dataclass(frozen=True, slots=True)
class ShuffleIo:
    """All IO of one shuffle of some rows.

    Spills are what is written and read before there is a file for readers. `bytes_stored`
    are those of the rows after compression, one copy, without any file's overhead. `requests`:
    what the stores were asked for, by kind.
    """

    writes: Sequence[IOEvent]
    reads: Sequence[IOEvent]
    bytes_raw: int
    bytes_stored: int
    spill_writes: Sequence[IOEvent] = field(default=())
    spill_reads: Sequence[IOEvent] = field(default=())
    requests: Mapping[str, int] = field(default_factory=dict)

    @property
    def bytes_written(self) -> int:
        """Spills included."""
        return _bytes(self.writes) + _bytes(self.spill_writes)

    def to_json(self) -> dict[str, Any]:
        """Return all figures, sizes in bytes, times in seconds."""
        spills = {"writes": sizes(self.spill_writes), "reads": sizes(self.spill_reads)}
        return {
            "writes": sizes(self.writes),
            "reads": sizes(self.reads),
            "spills": spills,
            "bytes_raw": self.bytes_raw,
            "bytes_stored": self.bytes_stored,
            "bytes_written": self.bytes_written,
            "write_amplification": self.bytes_written / self.bytes_stored,
            "write_amplification_raw": self.bytes_written / self.bytes_raw,
            "requests_per_stored_gb": {
                kind: 1e9 * count / self.bytes_stored for kind, count in self.requests.items()
            },
            "service_time_s": self.service_time(Coalescing.QUEUE),
            "service_time_without_coalescing_s": self.service_time(Coalescing.NONE),
        }

    def service_time(self, rule: Coalescing) -> dict[str, float]:
        """Return modelled seconds of one spindle, by what they are spent for."""
        parts = {
            "reads": service_s(self.reads, rule=rule),
            "writes": service_s(self.writes, rule=rule),
            "spills": service_s(self.spill_writes, rule=rule)
            + service_s(self.spill_reads, rule=rule),
        }
        return {**parts, "total": sum(parts.values())}


def requests_of(events: Iterable[IOEvent]) -> dict[str, int]:
    """Return how many requests of each kind there were."""
    found: Counter[str] = Counter()
    for event in events:
        found[event.kind] += event.requests
    return dict(sorted(found.items()))


def sizes(events: Sequence[IOEvent]) -> dict[str, Any]:
    """Return number, bytes, mean and histogram of the lengths of IOs."""
    total = _bytes(events)
    return {
        "count": len(events),
        "bytes": total,
        "mean_bytes": total / len(events) if events else 0.0,
        "histogram": histogram([event.length for event in events]),
    }


def histogram(lengths: Sequence[int]) -> list[dict[str, int]]:
    """Count the lengths up to each power of two, `up_to_bytes`, and above the one before."""
    counts: dict[int, list[int]] = {}
    for length in lengths:
        bucket = max(_MIN_BUCKET, 1 << max(0, length - 1).bit_length())
        entry = counts.setdefault(bucket, [0, 0])
        entry[0] += 1
        entry[1] += length
    return [
        {"up_to_bytes": bucket, "count": count, "bytes": total}
        for bucket, (count, total) in sorted(counts.items())
    ]


def ratios(cosco: dict[str, Any], sort: dict[str, Any]) -> dict[str, float]:
    """Return how many times better `cosco` is than `sort`, both from `to_json`."""
    times, uncoalesced = "service_time_s", "service_time_without_coalescing_s"
    return {
        "mean_write_bytes": cosco["writes"]["mean_bytes"] / sort["writes"]["mean_bytes"],
        "mean_read_bytes": cosco["reads"]["mean_bytes"] / sort["reads"]["mean_bytes"],
        "write_amplification": sort["write_amplification"] / cosco["write_amplification"],
        "read_service_time": sort[times]["reads"] / cosco[times]["reads"],
        "service_time": sort[times]["total"] / cosco[times]["total"],
        "service_time_without_coalescing": sort[uncoalesced]["total"] / cosco[uncoalesced]["total"],
    }


def _bytes(events: Sequence[IOEvent]) -> int:
    return sum(event.length for event in events)
