"""Every stored byte of small files flipped, one at a time, and read: caught, or without effect.

The files are written by a daemon's own core from frames of the client's own packers, and read
by the daemon's walk through a store, taken apart and merged by the reader's own parts. There is
no switch that turns a check off, so each bit of each file has to be somebody's business.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from pyroaring import BitMap
from support.daemon_mechanics import check_frame
from support.fetching import one_partition
from support.frame_making import frame
from support.packed import table_of, verify

from cosco.client.content.byte_rows import iter_rows
from cosco.client.read.fetch_call import runs_of
from cosco.client.read.state.merge import PartitionMerge
from cosco.client.write.state.packing import ArrowPacker, RowPacker
from cosco.dfs import MemoryStore
from cosco.errors import CoscoError, DataCorrupted, DataLost
from cosco.format.block import CODECS, encode_block, parse_header, walk_blocks
from cosco.format.chunk import CHUNK_HEADER_BYTES, parse_chunk_header
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.protocol.records import (
    MASK64,
    Assignment,
    DaemonRef,
    ExchangeInfo,
    ExchangeSpec,
    OpenedAttempt,
    PartitionRange,
    ReadSnapshot,
    RowKind,
)
from cosco.protocol.wire import fetch_reply
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.io.read.fetch_service import FetchService
from cosco.shuffle_service.io.read.read_memory import ReadMemory
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.segments.segment_indexes import KeptIndexes

EXCHANGE, INCARNATION, PARTITION = 7, 11, 3
KEY = AssignmentKey(EXCHANGE, 0, 1)
RANGE = PartitionRange(0, 0, 8)
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])
#: Mapper 1 committed attempt 1, mapper 2 attempt 5; attempt 4 of mapper 2 did not.
COMMITTED = {1: 1, 2: 5}
LOSER = (2, 4)
#: Seeded by each test.
CHANCE = random.Random()

Row = bytes | tuple[int, str]


@dataclass(frozen=True)
class Case:
    """What was written: the blocks in their order, and how the rows are got out again."""

    blocks: list[bytes]
    rows: Counter[Row]
    arrow: bool


# --- writing ----------------------------------------------------------------------------------


def text(length: int) -> bytes:
    """Half of it compresses."""
    return bytes(CHANCE.choice(b"abcdefgh") for _ in range(length // 2)) + b"z" * (length // 2)


def packed(kind: str, codec: str, mapper: int, attempt: int, rows: int) -> tuple[bytes, list[Row]]:
    """One block of an attempt, as its writer packs it, and its rows."""
    spec = ExchangeSpec("s", RANGE.count, codec=codec)
    info = ExchangeInfo(EXCHANGE, spec, 1, RowKind.UNDECIDED, b"", (RANGE,), ())
    opened = OpenedAttempt(info, mapper, attempt)
    made: list[Row] = []
    packer: RowPacker | ArrowPacker
    if kind == "arrow":
        made = [(CHANCE.getrandbits(40), text(24).decode()) for _ in range(rows)]
        columns = [pa.array([row[i] for row in made], SCHEMA.types[i]) for i in range(2)]
        packer = ArrowPacker(opened, 1 << 20, SCHEMA)
        batch = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
        frames = packer.collect_batch([PARTITION] * rows, batch)
    else:
        made = [text(CHANCE.randrange(60)) for _ in range(rows)]
        packer = RowPacker(opened, 1 << 20)
        frames = packer.collect_batch([PARTITION] * rows, made)
    parts = [b"".join(one.parts) for one in [*frames, *packer.drain()]]
    return b"".join(parts), made


def packed_case(kind: str, codec: str) -> Case:
    blocks: list[bytes] = []
    rows: Counter[Row] = Counter()
    for mapper, attempt, count in ((1, 1, 60), (*LOSER, 9), (2, 5, 40), (*LOSER, 7)):
        block, made = packed(kind, codec, mapper, attempt, count)
        blocks.append(block)
        if COMMITTED[mapper] == attempt:
            rows.update(made)
    return Case(blocks, rows, kind == "arrow")


def fragments_case(codec: str) -> Case:
    """Rows that span blocks, as rows do that are longer than one; here short ones."""
    blocks = []
    rows: Counter[Row] = Counter()
    for mapper, attempt in COMMITTED.items():
        for row in range(2):
            parts = [text(300) for _ in range(3)]
            rows[b"".join(parts)] += 1
            for number, content in enumerate(parts):
                last = number == len(parts) - 1
                header, stored, _ = encode_block(
                    exchange=EXCHANGE, partition=PARTITION, mapper=mapper, attempt=attempt,
                    first_row=row, rows=int(last), content=content, codec=CODECS[codec],
                    fragment=number, last=last,
                )  # fmt: skip
                blocks.append(header + stored)
    return Case(blocks, rows, arrow=False)


def sums(case: Case) -> ReadSnapshot:
    """What the metadata service says once both mappers have committed."""
    committed = [
        header
        for _, header in walk_blocks(memoryview(b"".join(case.blocks)))
        if COMMITTED[header.mapper] == header.attempt
    ]
    return ReadSnapshot(
        version=1,
        generation=1,
        build=1,
        mappers=np.array(list(COMMITTED), np.uint32),
        attempts=np.array(list(COMMITTED.values()), np.uint64),
        rows=sum(header.rows for header in committed),
        raw_bytes=sum(header.row_bytes for header in committed),
        digest=sum(header.digest for header in committed) & MASK64,
        sources=(),
    )


def new_core(incarnation: int) -> DaemonCore:
    arena = memoryview(bytearray(8 * MAX_PAGE_BYTES))
    core = DaemonCore(arena=arena, incarnation=incarnation, segment_bytes=64 << 10)
    core.cluster_id = "c"
    return core


async def store_segments(case: Case, store: MemoryStore) -> None:
    """Write the blocks as a daemon does, in two segments."""
    core = new_core(INCARNATION)
    core.admit(EXCHANGE, Assignment(0, 1, 1, DaemonRef(INCARNATION, "a")), RANGE)
    half = len(case.blocks) // 2
    for sequence, blocks in enumerate((case.blocks[:half], case.blocks[half:]), start=1):
        for block in blocks:
            header = parse_header(block)
            checked = check_frame(
                memoryview(frame([block], sequence=sequence)),
                EXCHANGE,
                MapperAttempt(header.mapper, header.attempt),
            )
            held = core.assignment(KEY)
            assert held is not None
            assert core.append_frame(held, checked, 0).next_run == checked.run_count
        core.flushes.everything = True
        flush = core.next_flush()
        assert flush is not None
        await store.put(flush.path, [*flush.parts, memoryview(flush.index_bytes)])
        core.end_flush(flush, 0.0)
        assert core.next_flush() is None


# --- reading ----------------------------------------------------------------------------------


async def no_copies(key: AssignmentKey) -> None:
    """What a daemon does that is nobody's replica."""


class FlippedStore(MemoryStore):
    """Its files, one byte of which can be another one."""

    def flip(self, path: str, offset: int, bit: int) -> None:
        changed = bytearray(self._files[path])
        changed[offset] ^= bit
        self._files[path] = bytes(changed)


class Reading:
    """A daemon that did not write the segments, and looks at each anew."""

    def __init__(self, store: FlippedStore) -> None:
        self._core = new_core(INCARNATION + 1)
        self._store = store
        self._memory = ReadMemory(memoryview(bytearray(4 << 20)))
        self._metrics = DaemonMetrics()

    def anew(self) -> FetchService:
        """Return its reading half, without an index in memory."""
        self._core.indexes = KeptIndexes(1 << 20)
        return FetchService(self._core, self._store, self._memory, self._metrics, no_copies)


def rows_of(case: Case, merge: PartitionMerge, runs: Iterable[memoryview]) -> Iterator[Row]:
    for run in runs:
        for decoded in merge.feed(run):
            if case.arrow:
                table = table_of([decoded], SCHEMA)
                yield from zip(*(column.to_pylist() for column in table.columns), strict=True)
            else:
                yield from iter_rows(decoded)


async def read(
    case: Case, snapshot: ReadSnapshot, fetch: FetchService
) -> tuple[Counter[Row], CoscoError | None]:
    """The rows that a reader is given, and what it is told at the end."""
    merge = PartitionMerge(
        snapshot,
        exchange=EXCHANGE,
        partition=PARTITION,
        named=BitMap(COMMITTED),
    )
    found: Counter[Row] = Counter()
    try:
        replies = [
            fetch_reply(message)
            async for message in fetch.serve(one_partition(KEY, PARTITION, files=True))
        ]
        for row in rows_of(case, merge, runs_of(iter(replies), merge.bad.append)):
            found[row] += 1
        verify(merge)
    except CoscoError as error:
        return found, error
    return found, None


def must_be_caught(data: bytes) -> set[int]:
    """The bytes a reader depends on: blocks of committed attempts.

    Headers of chunks stand in for the index, and the index for them.
    """
    found: set[int] = set()
    header = parse_chunk_header(data)
    body = memoryview(data)[CHUNK_HEADER_BYTES : CHUNK_HEADER_BYTES + header.body_bytes]
    for first, block in walk_blocks(body):
        if COMMITTED[block.mapper] == block.attempt:
            start = CHUNK_HEADER_BYTES + first
            found.update(range(start, start + block.block_bytes))
    return found


@pytest.mark.parametrize(
    ("kind", "codec"),
    [("bytes", "lz4"), ("bytes", "none"), ("arrow", "lz4"), ("fragments", "none")],
)
def test_a_flipped_bit_is_caught_or_changes_nothing(kind: str, codec: str) -> None:
    CHANCE.seed(f"{kind} {codec}")
    case = fragments_case(codec) if kind == "fragments" else packed_case(kind, codec)
    snapshot = sums(case)

    async def main() -> tuple[int, int]:
        store = FlippedStore()
        await store_segments(case, store)
        files = await store.list("")
        assert len(files) == 2
        reading = Reading(store)
        assert await read(case, snapshot, reading.anew()) == (case.rows, None)
        flips = caught = 0
        for file in files:
            data = await store.read(file.path, 0, file.size_bytes)
            assert len(data) >= 8192
            vital = must_be_caught(data)
            for offset in range(len(data)):
                bit = 1 << CHANCE.randrange(8)
                store.flip(file.path, offset, bit)
                found, error = await read(case, snapshot, reading.anew())
                store.flip(file.path, offset, bit)
                where = f"bit {bit:#x} of byte {offset} of {file.path}: {error}"
                if error is None:
                    assert offset not in vital, where
                    assert found == case.rows, where
                else:
                    assert isinstance(error, DataLost | DataCorrupted), where
                    assert found <= case.rows, where  # never a row that nobody wrote
                    caught += 1
            flips += len(data)
        return flips, caught

    flips, caught = asyncio.run(main())
    print(f"{kind}, {codec}: {caught} of {flips} flips caught, the others without effect")
