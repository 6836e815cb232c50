"""The mechanics of a daemon that a test runs on: its `conftest.py` says which."""

from __future__ import annotations

from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.shuffle_service.state.buffers import mechanics_choice
from cosco.shuffle_service.state.buffers.dedupe import DedupeIndex
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame
from cosco.shuffle_service.state.buffers.partition_buffer import (
    Chunk,
    ChunkState,
    PartitionBuffer,
)
from cosco.shuffle_service.state.buffers.pool import PagePool


def check_frame(
    data: memoryview, exchange: int | None = None, mapper_attempt: MapperAttempt | None = None
) -> CheckedFrame:
    return mechanics_choice.CHOSEN.check_frame(data, exchange, mapper_attempt)


def page_pool(capacity_bytes: int) -> PagePool:
    return mechanics_choice.CHOSEN.page_pool(capacity_bytes)


def dedupe_index() -> DedupeIndex:
    return mechanics_choice.CHOSEN.dedupe_index()


def partition_buffer(key: AssignmentKey, partition: int) -> PartitionBuffer:
    return mechanics_choice.CHOSEN.partition_buffer(key, partition)


def chunk(
    buffer: PartitionBuffer,
    *,
    state: ChunkState = ChunkState.OPEN,
    length: int = 64,
    path: str = "",
    offset: int = 0,
) -> Chunk:
    made = mechanics_choice.CHOSEN.chunk(buffer)
    made.state, made.length, made.path, made.offset = state, length, path, offset
    return made
