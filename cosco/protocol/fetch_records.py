"""What a reader asks a daemon for."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyroaring import BitMap


@dataclass(frozen=True, slots=True)
class FetchPart:
    """Some partitions of one epoch of a range; `files`: also of files that others wrote for it."""

    range_index: int
    epoch: int
    partitions: BitMap
    files: bool = False


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """What there is of some partitions of one exchange at one daemon.

    mappers: whose rows are wanted, empty for everybody's; of others' blocks the headers may come
    alone.
    several: the parts end one by one, and small replies come packed; else there is one partition.
    direct: the reader can read from the store itself, so chunks may come as references.
    capability: lets its reader read; empty where nobody needs one.
    """

    number: int
    parts: tuple[FetchPart, ...]
    mappers: BitMap = field(default_factory=BitMap)
    several: bool = True
    direct: bool = False
    capability: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Reference:
    """A segment in a store, and the URL by which a reader gets at this one file, for a while.

    index_crc: the checksum of its index.
    """

    url: str
    path: str
    file_bytes: int
    index_crc: int
