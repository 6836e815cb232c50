"""The ledger: CPU seconds per GB of rows, by stage of the data path.

One process takes the same rows through the real functions of each stage, one stage after
another, with everything a stage needs at hand before its clock starts. The clock is the
process's (`time.process_time`: all threads, user and system). So the figures leave out what
only a running cluster has: waiting, contention, schedulers, cold caches. Two stages cannot be
cut out of the functions they are in; they are differences of two runs, and say so.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
import numpy as np
from pyroaring import BitMap

from cosco.client.content.byte_rows import rows_to_batch
from cosco.client.read.state.block_splitter import BlockSplitter
from cosco.client.read.state.merge import PartitionMerge
from cosco.client.write.state.framing import PackedFrame
from cosco.client.write.state.packing import RowPacker
from cosco.dfs import open_store
from cosco.errors import DataCorrupted
from cosco.format.block import (
    CODEC_NONE,
    CODECS,
    HEADER_BYTES,
    content_digest,
    decode_content,
    encode_block,
    walk_blocks,
)
from cosco.format.chunk import padded
from cosco.format.frame import MAX_FRAME_BYTES, FrameHeader
from cosco.local.workers import Link
from cosco.mechanics import NATIVE
from cosco.process.allocator import keep_large_blocks
from cosco.process.grpc_settings import CHANNEL_OPTIONS
from cosco.protocol.fetch_records import FetchPart, FetchRequest
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.protocol.push.messages import PushRequest
from cosco.protocol.push.sender import OutFrame
from cosco.protocol.records import (
    Assignment,
    AttemptSums,
    DaemonRef,
    ExchangeInfo,
    ExchangeSpec,
    OpenedAttempt,
    PartitionRange,
    ReadSnapshot,
    RowKind,
)
from cosco.protocol.wire import (
    fetch_reply,
    fetch_request_from_bytes,
    fetch_request_to_bytes,
    push_request_from_bytes,
    push_request_to_bytes,
)
from cosco.shuffle_service.io.arena import Arena, aligned
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.read.fetch_service import FetchService
from cosco.shuffle_service.io.read.read_memory import ReadMemory
from cosco.shuffle_service.state.buffers import mechanics_choice
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame
from cosco.shuffle_service.state.buffers.limits import pool_bytes
from cosco.shuffle_service.state.core import DaemonCore
from cosco_bench.harness.bench_rows import key_sum, keys_of, make_batches, partition_keys
from cosco_bench.harness.capacity import BUFFER_BYTES, GB, ROW_BYTES

_MIB: Final = 1 << 20
_EXCHANGE, _MAPPER, _ATTEMPT, _INCARNATION = 1, 0, 1, 1
_KEY: Final = AssignmentKey(_EXCHANGE, 0, 1)
_SEGMENT_BYTES: Final = 4 << 20
_READ_BYTES: Final = 32 << 20
_SERVICE: Final = "cosco.bench.Ledger"
_OPTIONS: Final = (
    *CHANNEL_OPTIONS,
    ("grpc.max_receive_message_length", 4 * MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", 4 * MAX_FRAME_BYTES),
)

#: In the order of the path of a row.
STAGES: Final = (
    "make rows", "partition", "pack", "compress", "push", "take in", "copy", "store", "fetch",
    "unpack", "verify",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stage:
    """One line of the ledger; `how` tells what was run."""

    name: str
    cpu_s_per_gb: float
    how: str


class _Ledger:
    """Collects stages in order."""

    def __init__(self, rows: int, link: Link) -> None:
        self._gb = rows * ROW_BYTES / GB
        self._link = link
        self.stages: list[Stage] = []

    def add(self, cpu_s: float, how: str) -> None:
        self.stages.append(Stage(STAGES[len(self.stages)], cpu_s / self._gb, how))
        self._link.progress(1)


class _Clock:
    """CPU seconds of the whole process within `with` blocks, added up."""

    def __init__(self) -> None:
        self.cpu_s = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        before = time.process_time()
        yield
        self.cpu_s += time.process_time() - before


def run_ledger(link: Link, rows: int, partitions: int, codec: str, directory: str) -> list[Stage]:
    """Measure every stage on `rows` rows; `directory` gets the stored files.

    `link` is told one unit of progress a stage. Raises DataCorrupted if the rows that come out
    are not those that went in.
    """
    keep_large_blocks()  # as all processes of a shuffle do
    ledger = _Ledger(rows, link)
    frames, sums, keys = _write_side(ledger, rows, partitions, CODECS[codec])
    messages = _push(ledger, frames)
    checked = _take_in(ledger, messages)
    fetched = asyncio.run(_daemon_side(ledger, checked, partitions, directory))
    if _read_side(ledger, fetched, sums) != keys:
        raise DataCorrupted("the ledger's rows changed on their way: its figures mean nothing")
    return ledger.stages


# --- writer -------------------------------------------------------------------------------


def _write_side(
    ledger: _Ledger, rows: int, partitions: int, codec: int
) -> tuple[list[PackedFrame], AttemptSums, int]:
    making, partitioning, packing = _Clock(), _Clock(), _Clock()
    with making.running():
        batches = make_batches(rows, seed=0)
    ledger.add(making.cpu_s, "numpy: random keys and payloads to Arrow arrays")
    with partitioning.running():
        row_partitions = [partition_keys(keys, partitions) for keys, _ in batches]
    ledger.add(partitioning.cpu_s, "hash of the key modulo partitions, vectorised")

    def packer(with_codec: int) -> RowPacker:
        names = {number: name for name, number in CODECS.items()}
        info = ExchangeInfo(
            number=_EXCHANGE,
            spec=ExchangeSpec("ledger", partitions, codec=names[with_codec]),
            generation=1,
            kind=RowKind.BYTES,
            schema=b"",
            ranges=(PartitionRange(0, 0, partitions),),
            assignments=(),
        )
        return RowPacker(OpenedAttempt(info, _MAPPER, _ATTEMPT), BUFFER_BYTES)

    def frames_of(packer: RowPacker) -> Iterator[PackedFrame]:
        for each, (_, batch) in zip(row_partitions, batches, strict=True):
            yield from packer.collect_batch(each, batch)
        yield from packer.drain()

    coded = packer(codec)
    frames = list(frames_of(coded))
    with packing.running():
        # Frames go as they come, as those of a writer do when they are acknowledged.
        deque(frames_of(packer(CODEC_NONE)), maxlen=0)
    ledger.add(
        packing.cpu_s, "RowPacker.collect_batch and drain, codec none: sort, digest, CRC, frames"
    )
    contents = [
        decode_content(header, body[offset + HEADER_BYTES : offset + header.block_bytes])
        for frame in frames
        for body in [memoryview(b"".join(frame.parts))]
        for offset, header in walk_blocks(body)
    ]
    compressing = _encode_cpu_s(contents, codec) - _encode_cpu_s(contents, CODEC_NONE)
    mean = sum(map(len, contents)) / len(contents)
    ledger.add(
        compressing if codec != CODEC_NONE else 0.0,
        f"encode_block with the codec less without, blocks of {mean / 1024:,.0f} KiB",
    )
    return frames, coded.sums(), key_sum(np.concatenate([keys for keys, _ in batches]))


def _encode_cpu_s(contents: list[bytes], codec: int) -> float:
    clock = _Clock()
    with clock.running():
        for content in contents:
            encode_block(
                exchange=_EXCHANGE,
                partition=0,
                mapper=_MAPPER,
                attempt=_ATTEMPT,
                first_row=0,
                rows=1,
                content=content,
                codec=codec,
            )
    return clock.cpu_s


# --- the network --------------------------------------------------------------------------


async def _over_loopback(handlers: dict[str, Any], client: Callable[[grpc.Channel], None]) -> float:
    """Serve `handlers` and run `client` in a thread.

    Returns: the CPU seconds of both ends together.
    """
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    clock = _Clock()

    def call() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS) as channel:
            grpc.channel_ready_future(channel).result(timeout=10)
            with clock.running():
                client(channel)

    try:
        await asyncio.to_thread(call)
    finally:
        await server.stop(grace=None)
    return clock.cpu_s


def _push(ledger: _Ledger, frames: list[PackedFrame]) -> list[memoryview]:
    received: list[memoryview] = []

    async def serve(requests: Any, _context: Any) -> bytes:
        async for message in requests:
            request = push_request_from_bytes(message)
            assert request.frame is not None
            received.append(request.frame)
        return b""

    def messages() -> Iterator[Any]:
        for sequence, frame in enumerate(frames, 1):
            header = FrameHeader(
                _EXCHANGE,
                _INCARNATION,
                sequence,
                frame.range_index,
                1,
                frame.body_bytes,
                frame.blocks,
            )
            yield push_request_to_bytes(PushRequest(frame=OutFrame(header, frame.parts)))

    def client(channel: grpc.Channel) -> None:
        channel.stream_unary(f"/{_SERVICE}/Push")(messages())

    handlers: dict[str, Any] = {"Push": grpc.stream_unary_rpc_method_handler(serve)}
    cpu_s = asyncio.run(_over_loopback(handlers, client))
    ledger.add(cpu_s, "PushRequest to bytes and back, a gRPC stream over loopback; both ends")
    return received


# --- daemon -------------------------------------------------------------------------------


def _take_in(ledger: _Ledger, frames: list[memoryview]) -> list[CheckedFrame]:
    clock = _Clock()
    with clock.running():
        checked = [
            mechanics_choice.CHOSEN.check_frame(frame, _EXCHANGE, MapperAttempt(_MAPPER, _ATTEMPT))
            for frame in frames
        ]
    ledger.add(clock.cpu_s, "check_frame: headers and CRC of every block")
    return checked


async def _daemon_side(
    ledger: _Ledger, frames: list[CheckedFrame], partitions: int, directory: str
) -> dict[int, list[memoryview]]:
    """Copy to pages, store and fetch.

    Returns: the runs of blocks of each partition.
    """
    body_bytes = sum(frame.header.body_bytes for frame in frames)
    arena = Arena(pool_bytes(3 * body_bytes + partitions * 4 * padded(1) + 64 * _MIB))
    arena.memory[:] = bytes(len(arena.memory))  # a daemon's pages are warm after a while
    core = DaemonCore(arena=arena.memory, incarnation=_INCARNATION, segment_bytes=_SEGMENT_BYTES)
    core.cluster_id = "ledger"
    here = DaemonRef(_INCARNATION, "127.0.0.1:1")
    core.admit(_EXCHANGE, Assignment(0, 1, 1, here), PartitionRange(0, 0, partitions))
    held = core.assignment(_KEY)
    assert held is not None
    copying, storing = _Clock(), _Clock()
    with copying.running():
        for frame in frames:
            taken = core.append_frame(held, frame, 0)
            assert taken.next_run == frame.run_count
    ledger.add(copying.cpu_s, "DaemonCore.append_frame: deduplication, copy to pages")
    store = open_store(f"file://{directory}")
    await store.open()
    try:
        writes = written = 0
        with storing.running():
            core.flushes.everything = True
            while (flush := core.next_flush()) is not None:
                await store.put(flush.path, [*flush.parts, aligned(flush.index_bytes)])
                written += flush.length
                writes += 1
                core.end_flush(flush, 0.0)
        mean = written / writes / _MIB
        ledger.add(storing.cpu_s, f"file store: {writes} writes of {mean:.2f} MiB, fdatasync")
        reads = ReadMemory(Arena(_READ_BYTES).memory)
        service = FetchService(core, store, reads, DaemonMetrics(), _no_copies)
        return await _fetch(ledger, service, partitions)
    finally:
        await store.close()


async def _no_copies(_key: AssignmentKey) -> None:
    """Do nothing: there are no copies."""


async def _fetch(
    ledger: _Ledger, service: FetchService, partitions: int
) -> dict[int, list[memoryview]]:
    fetched: dict[int, list[memoryview]] = {}

    async def serve(request: bytes, _context: Any) -> Any:
        async for message in service.serve(fetch_request_from_bytes(request)):
            yield message

    def runs(channel: grpc.Channel, partition: int) -> Iterator[memoryview]:
        call: Any = channel.unary_stream(f"/{_SERVICE}/Fetch")
        splitter = BlockSplitter()
        part = FetchPart(_KEY.range_index, _KEY.epoch, BitMap([partition]))
        asked = FetchRequest(_KEY.number, (part,), several=False)
        for message in call(fetch_request_to_bytes(asked)):
            reply = fetch_reply(message)
            if isinstance(reply, memoryview):
                yield from splitter.feed(reply)
        splitter.finish()

    def keep(channel: grpc.Channel) -> None:
        for partition in range(partitions):
            fetched[partition] = list(runs(channel, partition))

    def drop(channel: grpc.Channel) -> None:
        for partition in range(partitions):
            deque(runs(channel, partition), maxlen=0)

    handlers: dict[str, Any] = {"Fetch": grpc.unary_stream_rpc_method_handler(serve)}
    await _over_loopback(handlers, keep)
    # Measured without what is kept for the next stage: readers keep nothing, and touching new
    # memory for all of it costs more than to fetch it.
    cpu_s = await _over_loopback(handlers, drop)
    ledger.add(cpu_s, "store reads, a gRPC stream over loopback, BlockSplitter; both ends")
    return fetched


# --- reader -------------------------------------------------------------------------------


def _read_side(ledger: _Ledger, fetched: dict[int, list[memoryview]], sums: AttemptSums) -> int:
    """Return the sum of the keys that came out."""
    everything, verifying = _Clock(), _Clock()
    keys = 0
    for index, partition in enumerate(sums.partitions.tolist()):
        merge = PartitionMerge(
            ReadSnapshot(
                version=1,
                generation=1,
                build=1,
                mappers=np.array([_MAPPER], np.uint32),
                attempts=np.array([_ATTEMPT], np.uint64),
                rows=int(sums.rows[index]),
                raw_bytes=int(sums.raw_bytes[index]),
                digest=int(sums.digests[index]),
                sources=(),
            ),
            exchange=_EXCHANGE,
            partition=partition,
            named=BitMap([_MAPPER]),
        )
        with everything.running():
            decoded = [rows for run in fetched[partition] for rows in merge.feed(run)]
            if not merge.complete():
                raise merge.failure()
            batch = rows_to_batch(decoded)
        keys += key_sum(keys_of(batch.column(0)))
        if NATIVE is None:
            verifying.cpu_s += _verify_cpu_s(fetched[partition])
    ledger.add(
        everything.cpu_s - verifying.cpu_s,
        "PartitionMerge.feed and rows_to_batch, less verify: decompress, deduplicate, to Arrow",
    )
    ledger.add(
        verifying.cpu_s,
        "walk_blocks and content_digest: CRC and digest of every block"
        if NATIVE is None
        else "done natively with the rest, and counted as unpack",
    )
    return keys % (1 << 64)


def _verify_cpu_s(runs: list[memoryview]) -> float:
    clock = _Clock()
    for run in runs:
        with clock.running():
            blocks = list(walk_blocks(run))
        contents = [
            (header, decode_content(header, run[at + HEADER_BYTES : at + header.block_bytes]))
            for at, header in blocks
        ]
        with clock.running():
            for header, content in contents:
                content_digest(header, content)
    return clock.cpu_s
