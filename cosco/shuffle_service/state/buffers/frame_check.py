"""Checks a frame whole before anything of it is taken.

Nothing that came over the network is believed: lengths, ranges, identities and checksums
are compared first. What comes out are runs: neighbouring blocks of one partition, which are
copied to pages in one piece; and the mark that a frame may end with, which is only counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cosco.errors import DataCorrupted
from cosco.format.block import FLAG_MARK, HEADER_BYTES, BlockHeader, parse_header, walk_blocks
from cosco.format.frame import FRAME_HEADER_BYTES, FrameHeader, parse_frame_header
from cosco.protocol.keys import AssignmentKey, MapperAttempt


class Run(NamedTuple):
    """Neighbouring blocks of one partition: `data` holds them back to back.

    A named tuple, as one is made per block where partitions are many.
    """

    partition: int
    data: memoryview
    blocks: list[BlockHeader]


@dataclass(frozen=True, slots=True)
class CheckedFrame:
    """A frame every byte of which has been checked.

    mark: header and stored bytes of the mark that is its last block; it is in no run.
    """

    header: FrameHeader
    mapper_attempt: MapperAttempt
    runs: list[Run]
    mark: tuple[BlockHeader, memoryview] | None = None

    @property
    def key(self) -> AssignmentKey:
        """Return what it is stamped for."""
        return AssignmentKey(self.header.exchange, self.header.range_index, self.header.epoch)

    @property
    def run_count(self) -> int:
        """Return how many runs it has."""
        return len(self.runs)

    def partitions(self) -> list[int]:
        """Return the partition of each run."""
        return [run.partition for run in self.runs]

    def positions(self, run: int) -> list[tuple[int, int]]:
        """Return the positions [start, end) of each block of a run."""
        return [(block.position, block.end) for block in self.runs[run].blocks]

    def outside(self, first: int, end: int) -> int | None:
        """Return the first partition that is not in [first, end), if there is one."""
        return next((run.partition for run in self.runs if not first <= run.partition < end), None)


def check_frame(
    data: memoryview, exchange: int | None = None, mapper_attempt: MapperAttempt | None = None
) -> CheckedFrame:
    """Check a frame that `mapper_attempt` sent for `exchange`; raises DataCorrupted.

    None: the exchange that the frame names, the attempt that its first block does. Whether its
    partitions lie in its range is checked with the assignment, which is not known here.
    """
    header = parse_frame_header(data)
    exchange = header.exchange if exchange is None else exchange
    if header.exchange != exchange:
        raise DataCorrupted(
            f"a frame of exchange {header.exchange} on a stream of exchange {exchange}"
        )
    body = data[FRAME_HEADER_BYTES:]
    if mapper_attempt is None:
        first = parse_header(body)
        mapper_attempt = MapperAttempt(first.mapper, first.attempt)
    runs: list[Run] = []
    blocks: list[BlockHeader] = []
    mark: tuple[BlockHeader, memoryview] | None = None
    partition = -1
    start = end = count = 0
    for offset, block in walk_blocks(body):
        if block.exchange != exchange or (block.mapper, block.attempt) != mapper_attempt:
            raise DataCorrupted(
                f"a block of exchange {block.exchange}, mapper {block.mapper}, attempt "
                f"{block.attempt} on a stream of mapper {mapper_attempt.mapper}, attempt "
                f"{mapper_attempt.attempt}"
            )
        if mark is not None:
            raise DataCorrupted("a mark that is not the last block of its frame")
        count += 1
        if block.flags == FLAG_MARK:
            begin = offset + HEADER_BYTES
            mark = (block, body[begin : begin + block.stored_bytes])
            continue
        if block.partition != partition:
            if blocks:
                runs.append(Run(partition, body[start:end], blocks))
            partition, start, blocks = block.partition, offset, []
        blocks.append(block)
        end = offset + HEADER_BYTES + block.stored_bytes
    if blocks:
        runs.append(Run(partition, body[start:end], blocks))
    if count != header.blocks:
        raise DataCorrupted(f"a frame names {header.blocks} blocks and has {count}")
    return CheckedFrame(header, mapper_attempt, runs, mark)
