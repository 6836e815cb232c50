"""`cosco-bench daemon`: what a GB costs one shuffle daemon, and nobody else.

Frames are packed by the writer's own packer, stamped and serialized before the clock starts.
Then a process that does nothing but send pushes them, on one stream a mapper; the daemon checks
them, takes them in, stores them and acknowledges. Its processor time counts until it has stored
the last row, its speed until it has acknowledged the last frame. Reading them back, again by a
client that decodes nothing, is a measurement of its own. Every block that comes out is checked.
"""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

import grpc
import psutil
from rich.table import Table

from cosco import CoscoExchange
from cosco.client.read.fetch_call import runs_of
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.client.write.state.packing import RowPacker
from cosco.errors import DataCorrupted
from cosco.format.block import walk_blocks
from cosco.format.frame import MAX_FRAME_BYTES, FrameHeader
from cosco.local.cluster import LocalCluster
from cosco.local.workers import Link, TaskPool
from cosco.observe import fetch_status, read_metrics
from cosco.process.grpc_settings import CHANNEL_OPTIONS
from cosco.protocol import wire
from cosco.protocol.push.messages import Hello, PushRequest
from cosco.protocol.push.sender import OutFrame, PushSender
from cosco.protocol.records import MASK64, Assignment, ExchangeInfo, OpenedAttempt
from cosco.protocol.wire import spb
from cosco_bench.harness.bench_report import MIB, Bars, Report, table
from cosco_bench.harness.bench_rows import partition_keys
from cosco_bench.harness.capacity import BUFFER_BYTES, GB, ROW_BYTES, even_parts
from cosco_bench.harness.flow import make_stock, rows_of
from cosco_bench.harness.measuring import wait_until_deleted
from cosco_bench.settings import DaemonSettings

#: The daemon stores what is left after this time without a frame.
_IDLE_S: Final = 0.25
_POLL_S: Final = 0.1
_DEADLINE_S: Final = 120.0
_OPTIONS: Final = (*CHANNEL_OPTIONS, ("grpc.max_receive_message_length", 4 * MAX_FRAME_BYTES))


@dataclass(frozen=True, slots=True)
class DaemonFigures:
    """GB are 10^9 bytes of raw rows; `per_stored_gb`: of blocks, as they are sent and stored."""

    gb_per_s: float
    cpu_s_per_gb: float
    cpu_s_per_stored_gb: float
    read_gb_per_s: float
    read_cpu_s_per_gb: float
    stored_bytes: float
    mean_frame_bytes: float
    mean_block_bytes: float
    mean_write_bytes: float


@dataclass(frozen=True, slots=True)
class DaemonResult:
    """By the number of partitions: each run that counts."""

    runs: dict[int, list[DaemonFigures]]

    def medians(self) -> dict[int, DaemonFigures]:
        """Return the median of each figure over the runs."""
        return {
            partitions: DaemonFigures(
                *(
                    statistics.median(getattr(run, field.name) for run in runs)
                    for field in fields(DaemonFigures)
                )
            )
            for partitions, runs in self.runs.items()
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "partitions": {str(n): asdict(found) for n, found in self.medians().items()},
            "runs": {str(n): [asdict(run) for run in runs] for n, runs in self.runs.items()},
        }


def measure(settings: DaemonSettings, bars: Bars) -> Report:
    """Run exchanges one after another, each number of partitions in turn.

    Raises DataCorrupted if other blocks come out than were sent.
    """
    on_step = bars.counter("exchanges", len(settings.partitions) * (settings.runs + 1))
    result = DaemonResult({partitions: [] for partitions in settings.partitions})
    with (
        LocalCluster(
            1,
            memory=str(settings.memory),
            directory=settings.directory,
            daemon_options=("--store-idle-s", str(_IDLE_S)),
        ) as cluster,
        TaskPool("sender", 1) as pool,
    ):
        pool.run(make_stock, [()])
        for index in range(settings.runs + 1):
            for partitions in settings.partitions:
                shuffle_id = f"daemon-{uuid.uuid4()}"
                with CoscoExchange(
                    shuffle_id,
                    partitions,
                    replicas=1,
                    codec=settings.codec,
                    metadata=cluster.metadata,
                ):
                    task = cluster.metadata, cluster.daemons[0].pid, shuffle_id, settings
                    (done,) = pool.run(push_and_read, [task])
                wait_until_deleted(cluster.metadata, shuffle_id)
                if index:  # the first one warms up
                    result.runs[partitions].append(done.value)
                on_step(1)
    return Report(result.to_json(), [_table(settings, result)])


def _table(settings: DaemonSettings, result: DaemonResult) -> Table:
    found = result.medians()
    made = table(
        f"one daemon, {settings.mappers} streams, {settings.rows:,} rows",
        "",
        *(f"{partitions:,} partitions" for partitions in found),
    )
    for name, field, unit, form in (
        ("taken in and acknowledged, GB/s", "gb_per_s", 1, ".2f"),
        ("taken in and stored, CPU s per GB", "cpu_s_per_gb", 1, ".3f"),
        ("the same per GB of blocks", "cpu_s_per_stored_gb", 1, ".3f"),
        ("read, GB/s", "read_gb_per_s", 1, ".2f"),
        ("read, CPU s per GB", "read_cpu_s_per_gb", 1, ".3f"),
        ("blocks, MiB", "stored_bytes", MIB, ",.0f"),
        ("mean frame, KiB", "mean_frame_bytes", 1 << 10, ",.0f"),
        ("mean block, KiB", "mean_block_bytes", 1 << 10, ",.1f"),
        ("mean write, MiB", "mean_write_bytes", MIB, ",.2f"),
    ):
        made.add_row(name, *(f"{getattr(one, field) / unit:{form}}" for one in found.values()))
    return made


# --- in the process that sends --------------------------------------------------------------


@dataclass(slots=True)
class _Packed:
    """The frames of one mapper, ready to be sent, and the sums of their blocks."""

    attempt: OpenedAttempt
    frames: list[OutFrame]
    blocks: int
    block_bytes: int
    digests: int


def push_and_read(
    _link: Link, metadata: str, pid: int, shuffle_id: str, settings: DaemonSettings
) -> DaemonFigures:
    """Pack, push, wait until all is stored, and read.

    Returns: the figures of the daemon, process `pid`.
    """
    client = MetadataClient(metadata, Scope("a benchmark", shuffle_id), _DEADLINE_S)
    try:
        opened = [client.open_attempt(shuffle_id, mapper) for mapper in range(settings.mappers)]
    finally:
        client.close()
    packed = [_pack(attempt, settings) for attempt in opened]
    info = opened[0].info
    frames = sum(len(one.frames) for one in packed)
    blocks, block_bytes = sum(one.blocks for one in packed), sum(one.block_bytes for one in packed)
    (status,) = fetch_status(metadata).daemons
    daemon = psutil.Process(pid)
    before = read_metrics(status.metrics_address)

    cpu_s, began = _cpu_s(daemon), time.perf_counter()
    asyncio.run(_push(info.assignments[0].primary.address, packed))
    pushing_s = time.perf_counter() - began
    stored = _wait_until_stored(status.metrics_address, before, block_bytes)
    pushing_cpu_s = _cpu_s(daemon) - cpu_s

    cpu_s, began = _cpu_s(daemon), time.perf_counter()
    found = _read(info)
    reading_s, reading_cpu_s = time.perf_counter() - began, _cpu_s(daemon) - cpu_s
    sent = blocks, block_bytes, sum(one.digests for one in packed) & MASK64
    if found != sent:
        raise DataCorrupted(f"(blocks, bytes, digests) {sent} were sent and {found} came out")
    gb = settings.rows * ROW_BYTES / GB
    writes = "cosco_store_write_bytes"
    return DaemonFigures(
        gb_per_s=gb / pushing_s,
        cpu_s_per_gb=pushing_cpu_s / gb,
        cpu_s_per_stored_gb=pushing_cpu_s / block_bytes * GB,
        read_gb_per_s=gb / reading_s,
        read_cpu_s_per_gb=reading_cpu_s / gb,
        stored_bytes=block_bytes,
        mean_frame_bytes=block_bytes / frames,
        mean_block_bytes=block_bytes / blocks,
        mean_write_bytes=(stored[f"{writes}_sum"] - before[f"{writes}_sum"])
        / (stored[f"{writes}_count"] - before[f"{writes}_count"]),
    )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _pack(attempt: OpenedAttempt, settings: DaemonSettings) -> _Packed:
    info, mapper = attempt.info, attempt.mapper
    packer = RowPacker(attempt, BUFFER_BYTES)
    by_range: dict[int, Assignment] = {one.range_index: one for one in info.assignments}
    partitions = info.ranges[-1].first + info.ranges[-1].count
    packed = _Packed(attempt, [], 0, 0, 0)
    rows = len(even_parts(settings.rows, settings.mappers)[mapper])

    def all_frames() -> Iterator[Any]:
        for keys, batch in rows_of(mapper, rows):
            yield from packer.collect_batch(partition_keys(keys, partitions), batch)
        yield from packer.drain()

    for sequence, frame in enumerate(all_frames(), 1):
        assignment = by_range[frame.range_index]
        header = FrameHeader(
            exchange=info.number,
            incarnation=assignment.primary.incarnation,
            sequence=sequence,
            range_index=frame.range_index,
            epoch=assignment.epoch,
            body_bytes=frame.body_bytes,
            blocks=frame.blocks,
        )
        request = PushRequest(frame=OutFrame(header, frame.parts))
        packed.frames.append(OutFrame(header, wire.push_request_to_bytes(request)))
        packed.blocks += frame.blocks
        packed.block_bytes += frame.body_bytes
    packed.digests = int(packer.sums().digests.sum())
    return packed


async def _push(address: str, packed: list[_Packed]) -> None:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        await asyncio.gather(*(_push_frames(channel, one) for one in packed))


async def _push_frames(channel: grpc.aio.Channel, packed: _Packed) -> None:
    """Announce on one stream as a writer does, and send whatever is granted."""
    number, assignments = packed.attempt.info.number, packed.attempt.info.assignments
    incarnation = assignments[0].primary.incarnation
    sender = PushSender(Hello(number, packed.attempt.mapper, packed.attempt.attempt, incarnation))
    for frame in packed.frames:
        sender.add(frame)
    call: Any = channel.stream_stream(f"/{wire.SHUFFLE_SERVICE}/Push")()
    while len(sender):
        for request in sender.requests():
            ready = None if request.frame is None else request.frame.payload
            await call.write(ready or wire.push_request_to_bytes(request))
        reply = wire.push_reply_from_bytes(await call.read())
        # Nothing is sent eagerly: the messages are made, and say that they are not.
        answered = sender.on_reply(replace(reply, eager_bytes=0))
        for _, refusal in answered.refused:
            raise DataCorrupted(f"frames were refused: {refusal.reason}")
    await call.done_writing()


def _wait_until_stored(
    address: str, before: dict[str, float], block_bytes: int
) -> dict[str, float]:
    """Return the daemon's metrics once `block_bytes` more bytes of blocks are in its store."""
    name, deadline = "cosco_bytes_stored_total", time.monotonic() + _DEADLINE_S
    while True:
        metrics = read_metrics(address)
        if metrics[name] - before[name] >= block_bytes:
            return metrics
        if time.monotonic() > deadline:
            raise DataCorrupted(f"rows were not stored within {_DEADLINE_S:g} s")
        time.sleep(_POLL_S)


def _read(info: ExchangeInfo) -> tuple[int, int, int]:
    """Return blocks, their bytes, and the sum of their digests, of all partitions."""
    blocks = block_bytes = digests = 0

    def bad(reason: str) -> None:
        raise DataCorrupted(f"a chunk cannot be read: {reason}")

    address = info.assignments[0].primary.address
    epochs = {one.range_index: one.epoch for one in info.assignments}
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        fetch: Any = channel.unary_stream(f"/{wire.SHUFFLE_SERVICE}/Fetch")
        for one in info.ranges:
            for partition in range(one.first, one.first + one.count):
                request = spb.FetchRequest(
                    number=info.number,
                    range_index=one.index,
                    epoch=epochs[one.index],
                    partition=partition,
                )
                replies = map(wire.fetch_reply, fetch(request.SerializeToString()))
                for run in runs_of(replies, bad):
                    assert isinstance(run, memoryview)  # as everybody's blocks are wanted
                    block_bytes += len(run)
                    for _, header in walk_blocks(run):
                        blocks += 1
                        digests += header.digest
    return blocks, block_bytes, digests & MASK64
