"""The native mechanics of a daemon and their twins in Python do the same.

Where there is no native part the twins are compared with themselves.
"""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.frame_making import EXCHANGE, INCARNATION, block, frame
from support.mark_making import mark

from cosco.errors import DataCorrupted
from cosco.format.block import CODEC_LZ4, encode_block
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.shuffle_service.state.buffers.frame_append import Room
from cosco.shuffle_service.state.buffers.limits import PoolShares
from cosco.shuffle_service.state.buffers.mechanics_choice import NATIVE, PORTABLE, Mechanics
from cosco.shuffle_service.state.buffers.partition_buffer import ChunkState
from cosco.shuffle_service.state.buffers.pool import MAX_PAGE_BYTES, MIN_PAGE_BYTES, PagePool

TWINS = (PORTABLE, NATIVE or PORTABLE)
KEY = AssignmentKey(EXCHANGE, 0, 1)
ATTEMPT = MapperAttempt(1, 1)
PAGES = 3


@pytest.fixture(scope="module", autouse=True)
def mechanics() -> None:
    """Both are used here, whichever is chosen."""


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What came of a call, be it an error."""
    try:
        return call(*arguments)
    except (DataCorrupted, MemoryError, ValueError) as error:
        return type(error), str(error)


# --- frames -------------------------------------------------------------------------------


def checked(mechanics: Mechanics, data: bytes, *expected: Any) -> Any:
    """All that there is to see of a frame, or why there is none."""

    def look() -> Any:
        found = mechanics.check_frame(memoryview(data), *expected)
        header, stored = found.mark or (None, b"")
        positions = [found.positions(run) for run in range(found.run_count)]
        outside = [found.outside(*bounds) for bounds in ((0, 1 << 32), (2, 4), (0, 0))]
        seen = found.header, found.key, found.mapper_attempt, found.partitions(), positions
        return *seen, outside, header, bytes(stored)

    return outcome(look)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """A block as a writer makes it, or one that is not quite so."""
    kind = draw(st.sampled_from(["rows"] * 6 + ["fragment", "mark", "other", "last row"]))
    partition, row = draw(st.integers(0, 5)), draw(st.integers(0, 30))
    content = draw(st.binary(min_size=1, max_size=40)) * draw(st.sampled_from([1, 9]))
    fields: dict[str, Any] = {"first_row": row, "rows": draw(st.integers(1, 3))}
    if kind == "mark":
        return mark(1)
    if kind == "fragment":
        last = draw(st.booleans())
        number = draw(st.integers(0, 3))
        fields = {"first_row": row, "rows": int(last), "fragment": number, "last": last}
    elif kind == "last row":
        fields = {"first_row": (1 << 48) - 1, "rows": 1}
    attempt = draw(st.integers(1, 2)) if kind == "other" else 1
    header, stored, _ = encode_block(
        exchange=EXCHANGE,
        partition=partition,
        mapper=1,
        attempt=attempt,
        content=content,
        codec=draw(st.sampled_from([0, CODEC_LZ4])),
        **fields,
    )
    return header + stored


@given(
    st.lists(blocks(), max_size=8),
    st.sampled_from([EXCHANGE, EXCHANGE, EXCHANGE + 1]),
    st.sampled_from([(), (EXCHANGE, ATTEMPT), (EXCHANGE, MapperAttempt(2, 1))]),
    st.data(),
)
def test_a_frame_is_checked_alike(
    made: list[bytes], exchange: int, expected: tuple[Any, ...], data: st.DataObject
) -> None:
    found = bytearray(frame(made, exchange=exchange))
    damage = data.draw(st.sampled_from(["none", "none", "bit", "cut", "more", "count"]))
    if damage == "bit":
        at = data.draw(st.integers(0, 8 * len(found) - 1))
        found[at // 8] ^= 1 << at % 8
    elif damage == "cut":
        del found[data.draw(st.integers(0, len(found))) :]
    elif damage == "more":
        found += b"\0"
    elif damage == "count":
        found = bytearray(frame(made, exchange=exchange, count=data.draw(st.integers(0, 9))))
    portable, native = (checked(twin, bytes(found), *expected) for twin in TWINS)
    assert portable == native


def test_damage_of_a_block_is_told_alike() -> None:
    """Each bit of a block that its frame's own checksum does not cover."""
    good = frame([block(3, 0, b"abc"), block(4, 7)])
    for bit in range(48 * 8, len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        portable, native = (checked(twin, bytes(bad), EXCHANGE, ATTEMPT) for twin in TWINS)
        assert portable == native
        assert portable[0] is DataCorrupted


# --- pages, positions ---------------------------------------------------------------------


@given(st.lists(st.integers(-20, 2 * MAX_PAGE_BYTES), max_size=60))
def test_a_pool_gives_the_same_pages_in_the_same_order(steps: list[int]) -> None:
    """Steps below 0 free what was allocated so many before."""
    pools = [twin.page_pool(PAGES * MAX_PAGE_BYTES) for twin in TWINS]
    held: list[Any] = []
    for step in steps:
        if step < 0 and held:
            pages = held.pop(step % len(held))
            for pool in pools:
                pool.free(pages)
        else:
            portable, native = (outcome(pool.allocate, max(0, step)) for pool in pools)
            assert portable == native
            if isinstance(portable, list):
                held.append(portable)
        assert pools[0].free_bytes == pools[1].free_bytes


def test_a_pool_of_no_whole_pages_is_refused_alike() -> None:
    for capacity in (0, -MAX_PAGE_BYTES, MAX_PAGE_BYTES - 1):
        portable, native = (outcome(twin.page_pool, capacity) for twin in TWINS)
        assert portable == native
        assert portable[0] is ValueError


#: Few, so that what is claimed often touches what was.
ATTEMPTS = st.sampled_from([ATTEMPT, ATTEMPT, ATTEMPT, MapperAttempt(1, 0), MapperAttempt(0, 7)])
POSITIONS = st.integers(0, 9) | st.integers((1 << 64) - 9, (1 << 64) - 1)
CLAIMS = st.tuples(
    st.just("claim"), ATTEMPTS, st.sampled_from([0, 0, 0, 1]), POSITIONS, st.integers(1, 4)
)
FORGETS = st.tuples(st.sampled_from(["forget", "knows"]), ATTEMPTS)


@given(
    st.lists(CLAIMS | CLAIMS | CLAIMS | CLAIMS | FORGETS, max_size=60),
    st.lists(CLAIMS | st.just(("clear",)), max_size=10),
)
def test_the_same_blocks_are_held(
    steps: list[tuple[Any, ...]], last: list[tuple[Any, ...]]
) -> None:
    indexes = [twin.dedupe_index() for twin in TWINS]

    def take(index: Any, step: tuple[Any, ...]) -> Any:
        name, *arguments = step
        if name == "claim":
            *arguments, start, length = arguments
            arguments += [start, min(start + length, 1 << 64)]
        return outcome(getattr(index, name), *arguments)

    for step in [*steps, *last]:
        portable, native = (take(index, step) for index in indexes)
        assert portable == native
        assert indexes[0].entries == indexes[1].entries
        assert indexes[0].oldest() == indexes[1].oldest()


def test_no_block_is_empty() -> None:
    indexes = [twin.dedupe_index() for twin in TWINS]
    portable, native = (outcome(index.claim, ATTEMPT, 0, 5, 5) for index in indexes)
    assert portable == native == (ValueError, "empty interval [5, 5)")


# --- frames to pages to segments ----------------------------------------------------------


class World:
    """The buffers of one assignment by one implementation, and its arena."""

    def __init__(self, mechanics: Mechanics, *, has_copies: bool) -> None:
        self.mechanics = mechanics
        self.arena = memoryview(bytearray(b"\xee" * (PAGES * MAX_PAGE_BYTES)))
        self.pool = mechanics.page_pool(len(self.arena))
        self.shares = PoolShares(self.pool)
        self.shares.has_copies = has_copies
        self.dedupe = mechanics.dedupe_index()
        self.buffers: dict[int, Any] = {}
        self.flushing: list[Any] = []
        self.serial = 0

    def append(self, data: bytes | bytearray, first_run: int, segment_bytes: int) -> Any:
        checked = self.mechanics.check_frame(memoryview(data))
        room = self.shares.room
        free = self.pool.free_bytes
        came = self.mechanics.append_frame(
            self.arena,
            self.pool,
            self.dedupe,
            self.buffers,
            KEY,
            checked,
            first_run,
            room,
            segment_bytes,
        )
        taken = free - self.pool.free_bytes
        assert self.shares.room == Room(room.bytes - taken, room.ahead - taken)
        told = [[one.partition for one in found] for found in (came.opened, came.filled)]
        return *came[:4], *told

    def flush(self) -> Any:
        ready = [one for one in self.buffers.values() if one.open and not one.flushing]
        ready.sort(key=lambda buffer: buffer.partition)
        self.serial += 1
        if not ready:
            return None
        laid = self.mechanics.lay_out(ready, self.arena, INCARNATION, f"path-{self.serial}")
        self.flushing.append(laid.chunks)
        return list(map(bytes, laid.parts)), laid.index, laid.end, laid.capacity

    def end(self) -> Any:
        if not self.flushing:
            return None
        chunks = self.flushing.pop(0)
        chunks[0].state = ChunkState.DROPPED
        going_on = self.mechanics.end_flush(chunks, self.pool)
        states = [chunk.state for chunk in chunks]
        return [buffer.partition for buffer in going_on], states

    def look(self) -> Any:
        """All that there is to see."""
        chunks = [chunk for buffer in self.buffers.values() for chunk in buffer.chunks()]
        seen = [
            (
                *(chunk.buffer.partition, chunk.pages, chunk.capacity, chunk.length, chunk.blocks),
                *(chunk.state, chunk.path, chunk.offset, chunk.body_bytes, chunk.is_dropped()),
            )
            for chunk in chunks
        ]
        memory = [b"".join(c.memory(self.arena, 64, c.length)) for c in chunks]
        views = [list(map(len, chunk.memory(self.arena, 70, chunk.length))) for chunk in chunks]
        return list(self.buffers), seen, memory, views, self.pool.free_bytes, self.dedupe.entries


#: A frame's blocks: partition, first row, length of the content.
ROWS = st.tuples(
    st.integers(0, 4), st.integers(0, 40), st.sampled_from([1, 900, 5000, 40_000, 300_000])
)
STEPS = st.lists(
    st.tuples(st.just("append"), st.lists(ROWS, min_size=1, max_size=8), st.integers(0, 2))
    | st.tuples(st.sampled_from(["flush", "end"])),
    max_size=12,
)


#: So little is left to take ahead that the first who does leaves less to the second.
LITTLE_AHEAD = [
    ("append", [(0, 0, 40_000), (1, 0, 40_000), (2, 0, 250_000)], 0),
    ("append", [(0, 1, 5000), (1, 1, 5000)], 0),
]
#: All pages that are left are just enough.
JUST_ENOUGH = [
    ("append", [(0, 0, 300_000), (1, 0, 300_000)], 0),
    ("append", [(2, 0, 180_224 - 128), (2, 1, 1)], 0),
]


@given(STEPS, st.booleans(), st.sampled_from([4096, 100_000, 1 << 30]))
@example(LITTLE_AHEAD, False, 1 << 30)
@example(JUST_ENOUGH, False, 1 << 30)
def test_frames_become_the_same_segments(
    steps: list[tuple[Any, ...]], has_copies: bool, segment_bytes: int
) -> None:
    worlds = [World(twin, has_copies=has_copies) for twin in TWINS]
    for step in steps:
        if step[0] == "append":
            _, rows, first_run = step
            made = [block(partition, row, bytes([row]) * n) for partition, row, n in rows]
            data = frame(made)
            if len(data) > 1 << 20:
                continue
            came = [world.append(data, first_run, segment_bytes) for world in worlds]
        else:
            came = [getattr(world, step[0])() for world in worlds]
        assert came[0] == came[1]
        assert worlds[0].look() == worlds[1].look()
    assert worlds[0].arena == worlds[1].arena


@pytest.mark.parametrize("twin", TWINS, ids=["portable", "native"])
def test_nothing_holds_the_arena_or_a_frame_beyond_a_call(twin: Mechanics) -> None:
    """So the memory is given back when a daemon stops."""
    world = World(twin, has_copies=False)
    data = bytearray(frame([block(partition, 0, b"x" * 20_000) for partition in range(4)]))
    world.append(data, 0, 4096)
    world.flush()
    world.append(data, 0, 4096)
    world.end()
    world.arena.release()
    data.clear()  # a buffer that is exported cannot be resized


@pytest.mark.parametrize("twin", TWINS, ids=["portable", "native"])
def test_a_buffer_and_its_chunks_go_though_they_name_each_other(twin: Mechanics) -> None:
    buffer = twin.partition_buffer(KEY, 0)
    buffer.open, buffer.flushing = twin.chunk(buffer), twin.chunk(buffer)
    buffer.waiting.append(twin.chunk(buffer))
    there = weakref.ref(buffer.waiting)
    del buffer
    assert there() is not None
    gc.collect()
    assert there() is None


def test_others_may_look_at_a_pool_while_bytes_are_copied() -> None:
    """Numbers may be read by any thread; all else is for one."""
    world = World(TWINS[1], has_copies=False)
    begun, done = threading.Event(), threading.Event()

    def look() -> None:
        while not done.is_set():
            assert world.pool.free_bytes >= 0
            assert world.dedupe.entries >= 0
            begun.set()

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(look)
            assert begun.wait(10)
            for row in range(300):
                world.append(frame([block(0, row, b"x" * 400_000)]), 0, 4096)
                world.flush()
                world.end()
            done.set()
            looking.result()
    finally:
        done.set()
        sys.setswitchinterval(interval_s)


@given(st.integers(0, 16), st.integers(0, 40), st.integers(0, 40), st.booleans())
def test_each_page_lessens_the_room_by_its_size(
    copies: int, used: int, more: int, has_copies: bool
) -> None:
    """So those who append need not ask how much there is for each page."""
    pool = PagePool(2 * MAX_PAGE_BYTES)
    shares = PoolShares(pool)
    shares.has_copies, shares.copies = has_copies, copies * MIN_PAGE_BYTES
    pool.allocate((copies + used) * MIN_PAGE_BYTES)
    before = shares.room
    pool.allocate(more * MIN_PAGE_BYTES)
    taken = more * MIN_PAGE_BYTES
    assert shares.room == Room(before.bytes - taken, before.ahead - taken)
