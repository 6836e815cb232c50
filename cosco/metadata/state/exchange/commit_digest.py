"""What a commit says, in 128 bits: enough to see that a repeated one says the same.

A commit has a number for each partition, so the commits themselves cannot be kept: there would be
one number for each pair of a mapper and a partition.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import xxhash

from cosco.protocol.records import CommitRequest

_HEAD: Final = struct.Struct("<?III")


def commit_digest(commit: CommitRequest) -> bytes:
    """Return a digest of all rows that a commit speaks of.

    That is whether it is partial and for which ranges, the ranges that acknowledged something, and
    rows, bytes and digests of each partition. Left out are the epochs: where rows went says nothing
    of which rows they are, and a reader asks every epoch of the build.
    """
    sums = commit.sums
    acknowledged = commit.acknowledged[:, 0]
    if (acknowledged[1:] == acknowledged[:-1]).any():  # seldom: they ascend
        acknowledged = np.unique(acknowledged)
    ranges = np.array(commit.ranges, dtype="<u4")
    head = _HEAD.pack(commit.partial, len(ranges), len(acknowledged), len(sums.partitions))
    hasher = xxhash.xxh3_128(head)
    for numbers in (ranges, acknowledged, sums.partitions):
        hasher.update(np.ascontiguousarray(numbers, dtype="<u4").data)
    for sum_of in (sums.rows, sums.raw_bytes, sums.stored_bytes, sums.digests):
        hasher.update(np.ascontiguousarray(sum_of, dtype="<u8").data)
    return hasher.digest()
