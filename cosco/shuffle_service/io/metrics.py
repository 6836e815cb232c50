"""The daemon's metrics, in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cosco.dfs import IOEvent
from cosco.process.native_grpc.server import PEER_BOUNDS
from cosco.protocol.daemon_figures import DaemonFigures, figures_from
from cosco.protocol.events import Event

#: What is counted beside the bounds.
_CAPABILITY: Final = "capability"
_TENANT_STREAMS: Final = "tenant_streams"
_SIZES: Final = [4096 << n for n in range(0, 17, 2)]  # 4 KiB … 256 MiB


class DaemonMetrics:
    """Counters of one daemon in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"cosco_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"cosco_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: list[float]) -> Histogram:
            return Histogram(f"cosco_{name}", text, buckets=buckets, registry=self.registry)

        self.bytes_received = counter("bytes_received", "Bytes of frames that passed all checks")
        self.blocks_received = counter("blocks_received", "Blocks taken in, duplicates included")
        self.rows_received = counter("rows_received", "Rows taken in, duplicates included")
        self.duplicates_dropped = counter("duplicates_dropped", "Blocks dropped as already held")
        self.marks = counter("marks", "Marks counted: mappers done with a range of a group")
        self.frames_refused = counter("frames_refused", "Frames or streams refused", "reason")
        self.segments_stored = counter("segments_stored", "Segments that became durable")
        self.chunks_stored = counter("chunks_stored", "Chunks in these segments")
        self.bytes_stored = counter("bytes_stored", "Bytes of blocks in stored chunks")
        self.flush_failures = counter("flush_failures", "Store writes that failed, or hung")
        self._add_sent(counter)
        self.store_write_bytes = histogram(
            "store_write_bytes", "Sizes of writes to the store, in bytes", list(_SIZES)
        )
        self.store_read_bytes = histogram(
            "store_read_bytes", "Sizes of reads from the store, in bytes", list(_SIZES)
        )
        seconds = [0.0005 * 2**n for n in range(14)]
        self.store_write_seconds = histogram("store_write_seconds", "Times of writes", seconds)
        self.store_read_seconds = histogram("store_read_seconds", "Times of reads", seconds)
        self.store_requests = counter(
            "store_requests",
            "Requests to the store: reads, writes, lists, deletions, heads",
            "kind",
        )
        self.pages_used_bytes = gauge("pages_used_bytes", "Bytes of pages in use")
        self.pages_capacity_bytes = gauge("pages_capacity_bytes", "Bytes of pages there are")
        self.copies_bytes = gauge("copies_bytes", "Bytes of pages that hold copies for others")
        self.forwards = gauge("forwards", "Frames forwarded to replicas and not released")
        self.granted_bytes = gauge("granted_bytes", "Bytes of frames granted and not answered")
        self.push_streams = gauge("push_streams", "Open push streams")
        self.fetch_streams = gauge("fetch_streams", "Readers being served")
        self.followers = gauge("followers", "Readers that wait for marks")
        self.assignments = gauge("assignments", "Assignments with buffers")
        self.events = counter("events", "Events, as the log has them", "event")
        self.refused = counter(
            "refused", "Calls and connections refused or ended, by the bound", "bound"
        )
        for bound in (*PEER_BOUNDS, _CAPABILITY, _TENANT_STREAMS):
            self.refused.labels(bound)
        self._add_waits(counter, gauge)
        self._add_parts(counter, gauge)
        self.store_writes_hanging = gauge(
            "store_writes_hanging", "Store writes under way for longer than --store-timeout-s"
        )

    def _add_sent(self, counter: Callable[..., Counter]) -> None:
        """Add what tells how much readers get."""
        self.bytes_fetched = counter("bytes_fetched", "Bytes of blocks sent to readers")
        self.rows_fetched = counter(
            "rows_fetched", "Rows of blocks sent to readers, copies included"
        )
        self.bytes_referenced = counter("bytes_referenced", "Bytes readers are to read themselves")
        self.fetch_failures = counter("fetch_failures", "Chunks or files readers were not given")

    def _add_waits(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        """Add what tells that writers are faster than the store."""
        self.writers_waited_seconds = counter(
            "writers_waited_seconds", "Seconds that frames of writers waited for memory, added up"
        )
        self.tenants_held_up = gauge(
            "tenants_held_up", "Tenants whose writers wait, as they have all that may be theirs"
        )
        self.waiting_frames_bytes = gauge(
            "waiting_frames_bytes", "Bytes of frames that wait for memory"
        )

    def _add_parts(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        """Add what a store of several directories, or of two tiers, tells."""
        self.directory_free_bytes = gauge(
            "directory_free_bytes",
            "Free bytes of each of several directories before its last write",
            "directory",
        )
        self.directory_well = gauge(
            "directory_well", "Whether each of several directories takes writes", "directory"
        )
        self.tier_put_bytes = counter(
            "tier_put_bytes", "Bytes of segments put, by the tier that took them", "tier"
        )
        self.tier_moves = counter(
            "tier_moves", "Segments moved from flash to the slow tier, by why", "reason"
        )
        self.tier_moved_bytes = counter(
            "tier_moved_bytes", "Bytes moved from flash to the slow tier, by why", "reason"
        )
        self.tier_move_failures = counter("tier_move_failures", "Moves that failed")
        self.tier_damaged = counter("tier_damaged", "Segments found damaged on flash")
        self.tier_saved = counter("tier_saved", "Segments that never reached the slow tier")
        self.tier_saved_bytes = counter(
            "tier_saved_bytes", "Bytes of segments that never reached the slow tier"
        )
        self.flash_requests = counter("flash_requests", "Reads and writes of flash", "kind")
        self.flash_io_bytes = counter(
            "flash_io_bytes", "Bytes read from and written to flash", "kind"
        )
        self.flash_bytes = gauge("flash_bytes", "Bytes of segments on flash")
        self.flash_pending_bytes = gauge("flash_pending_bytes", "Bytes that are on flash alone")
        self.flash_well = gauge("flash_well", "Whether flash takes writes")

    def figures(self) -> DaemonFigures:
        """Return what heartbeats tell of all this."""
        collected = (sample for metric in self.registry.collect() for sample in metric.samples)
        return figures_from({one.name: one.value for one in collected if not one.labels})

    def count(self, what: str, amount: float) -> None:
        """Count something up, by the name of its counter here."""
        counter: Counter = getattr(self, what)
        counter.inc(amount)

    def set_directory(self, name: str, *, free_bytes: int, is_well: bool) -> None:
        """Say how one of several directories is."""
        self.directory_free_bytes.labels(name).set(free_bytes)
        self.directory_well.labels(name).set(is_well)

    def count_tier(self, what: str, amount: int, label: str) -> None:
        """Count something of two tiers up, by the name of its counter here without `tier_`."""
        counter: Counter = getattr(self, f"tier_{what}")
        (counter.labels(label) if label else counter).inc(amount)

    def observe_flash(self, event: IOEvent) -> None:
        """Count one physical read or write of the fast one of two tiers."""
        self.flash_requests.labels(event.kind).inc(event.requests)
        self.flash_io_bytes.labels(event.kind).inc(event.length)

    def count_refused(self, bound: str) -> None:
        """Count a call that was refused for a bound."""
        self.refused.labels(bound).inc()

    def count_denied(self) -> None:
        """Count who did not show that he may do what he wanted."""
        self.count_refused(_CAPABILITY)

    def count_too_many(self) -> None:
        """Count a stream that is one more than its tenant may have."""
        self.count_refused(_TENANT_STREAMS)

    def count_event(self, event: Event) -> None:
        """Count an event."""
        self.events.labels(event.kind.label).inc(event.times)

    def observe_io(self, event: IOEvent) -> None:
        """Count one physical read or write of the store, or another request to it."""
        self.store_requests.labels(event.kind).inc(event.requests)
        if event.kind == "write":
            self.store_write_bytes.observe(event.length)
            self.store_write_seconds.observe(event.seconds)
        elif event.kind == "read":
            self.store_read_bytes.observe(event.length)
            self.store_read_seconds.observe(event.seconds)
