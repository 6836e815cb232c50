"""A writer and a reader that know nothing but docs/protocol.md and the messages of protos/cosco/v1.

As little as there can be: neither loan nor renewals nor second pass. What it shows is that the
document says enough, and that the services ask for nothing else.
"""

from __future__ import annotations

import itertools
import queue
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import grpc
import lz4.block
import xxhash
from pyroaring import BitMap

from cosco.protocol.pb import metadata_pb2 as metadata_messages
from cosco.protocol.pb import shuffle_pb2 as daemon_messages

PROTOCOL: Final = 2
LONGEST: Final = 1_048_576
_IDENTITY: Final = struct.Struct("<QQQIIIIB")
_BLOCK: Final = struct.Struct("<4sIQQQIIIIIBBHQ")
_FRAME: Final = struct.Struct("<QQQIIII")


class Read(NamedTuple):
    """A block that was read."""

    mapper: int
    position: int
    flags: int
    rows: int
    content: bytes


class Sums:
    """What the blocks of a partition add up to."""

    def __init__(self) -> None:
        self.rows = self.raw_bytes = self.stored_bytes = self.digest = 0

    def add(self, rows: int, raw_bytes: int, stored_bytes: int, digest: int) -> None:
        self.rows += rows
        self.raw_bytes += raw_bytes
        self.stored_bytes += stored_bytes
        self.digest = (self.digest + digest) % (1 << 64)


class ThirdClient:
    """One metadata service."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)

    def call(self, method: str, request: Any, reply: Any) -> Any:
        make: Any = self._channel.unary_unary(
            f"/cosco.v1.Metadata/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        return make(request, timeout=40)

    def write(self, shuffle_id: str, mapper: int, runs: dict[int, list[tuple[int, bytes]]]) -> bool:
        """Write runs of opaque rows, each with how many it has, and commit them twice.

        Returns: whether they count.
        """
        request = metadata_messages.OpenAttemptRequest(
            shuffle_id=shuffle_id, mapper=mapper, protocol=PROTOCOL
        )
        opened = self.call("OpenAttempt", request, metadata_messages.OpenAttemptReply)
        sums: dict[int, Sums] = defaultdict(Sums)
        blocks: dict[int, list[bytes]] = defaultdict(list)
        for partition in sorted(runs):
            whole = next(
                one for one in opened.info.ranges if one.first <= partition < one.first + one.count
            )
            for count, run in runs[partition]:
                for block in _blocks(opened, partition, count, run, sums[partition]):
                    blocks[whole.index].append(block)
        acknowledged: set[tuple[int, int]] = set()
        for one in opened.info.assignments:
            if blocks[one.range_index]:
                _push(opened, one, blocks[one.range_index])
                acknowledged.add((one.range_index, one.epoch))
        commit = _commit(opened, {p: of for p, of in sums.items() if of.stored_bytes}, acknowledged)
        answers = [self.call("Commit", commit, metadata_messages.CommitReply) for _ in range(2)]
        assert answers[0] == answers[1], "to repeat it does no harm"
        return bool(answers[0].won)

    def read(self, shuffle_id: str, mappers: Iterable[int], partition: int) -> list[Read]:
        """Read one partition of mappers that are all there are, by mapper and position."""
        named = BitMap(mappers).serialize()
        request = metadata_messages.DescribeExchangeRequest(
            shuffle_id=shuffle_id, protocol=PROTOCOL
        )
        info = self.call("DescribeExchange", request, metadata_messages.ExchangeInfoReply)
        waits = metadata_messages.AwaitCommitsRequest(
            number=info.number, mappers=named, partition=partition,
            generation=info.generation, wait_s=20,
        )  # fmt: skip
        answer = self.call("AwaitCommits", waits, metadata_messages.AwaitCommitsReply)
        assert answer.HasField("snapshot"), answer
        return _gathered(info, partition, answer.snapshot)


# --- writing ------------------------------------------------------------------------------


def _blocks(opened: Any, partition: int, count: int, run: bytes, sums: Sums) -> Iterator[bytes]:
    """Yield the blocks of one run, fragments if it is long, and add them up."""
    pieces = [(0, count, run, 0)]
    if len(run) > LONGEST:
        cuts = [run[at : at + LONGEST] for at in range(0, len(run), LONGEST)]
        pieces = [(i, 0, cut, 1) for i, cut in enumerate(cuts[:-1])]
        pieces.append((len(cuts) - 1, 1, cuts[-1], 3))
        if count > 1:
            pieces.append((0, count - 1, b"", 0))
    for fragment, rows, content, flags in pieces:
        position = sums.rows << 16 | fragment
        number, attempt, mapper = opened.info.number, opened.attempt, opened.mapper
        length = len(content)
        identity = _IDENTITY.pack(number, attempt, position, partition, mapper, rows, length, flags)
        digest = xxhash.xxh3_64_intdigest(identity + content)
        stored, codec = content, 0
        packed = lz4.block.compress(content, mode="high_compression", store_size=False)
        if len(packed) < length:
            stored, codec = packed, 1
        header = bytearray(
            _BLOCK.pack(
                b"CBK1", 0, number, attempt, position, partition, mapper, rows, length,
                len(stored), codec, flags, 0, digest,
            )
        )  # fmt: skip
        header[4:8] = zlib.crc32(header[8:] + stored).to_bytes(4, "little")
        sums.add(rows, length, len(header) + len(stored), digest)
        yield bytes(header) + stored


def _frame(opened: Any, one: Any, sequence: int, block: bytes) -> bytes:
    tail = _FRAME.pack(
        opened.info.number, one.primary.incarnation, sequence, one.range_index, one.epoch,
        len(block), 1,
    )  # fmt: skip
    return b"CFR1" + zlib.crc32(tail).to_bytes(4, "little") + tail + block


def _push(opened: Any, one: Any, blocks: list[bytes]) -> None:
    """Push a frame for each block to the primary of an assignment: announce all, send when granted,
    until all are acknowledged."""
    frames = [_frame(opened, one, i, block) for i, block in enumerate(blocks, 1)]
    outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with grpc.insecure_channel(one.primary.address) as channel:
        replies = channel.stream_stream(
            "/cosco.v1.Shuffle/Push",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=daemon_messages.PushReply.FromString,
        )(iter(outbox.get, None))
        hello = daemon_messages.Hello(
            protocol=PROTOCOL, number=opened.info.number, mapper=opened.mapper,
            attempt=opened.attempt, incarnation=one.primary.incarnation,
            capability=opened.info.capability,
        )  # fmt: skip
        outbox.put(daemon_messages.PushRequest(hello=hello))
        outbox.put(daemon_messages.PushRequest(announce=map(len, frames)))
        kept, waiting = set(range(1, len(frames) + 1)), iter(frames)
        for reply in replies:
            assert not reply.refused, reply
            kept.difference_update(reply.acknowledged)
            for frame in itertools.islice(waiting, reply.granted):
                outbox.put(daemon_messages.PushRequest(frame=frame))
            if not kept:
                outbox.put(None)
        assert not kept


def _commit(opened: Any, sums: dict[int, Sums], acknowledged: set[tuple[int, int]]) -> Any:
    partitions = sorted(sums)
    of = [sums[partition] for partition in partitions]
    before = [-1, *partitions[:-1]]
    return metadata_messages.CommitRequest(
        number=opened.info.number,
        mapper=opened.mapper,
        attempt=opened.attempt,
        generation=opened.info.generation,
        acknowledged=b"".join(struct.pack("<II", e, r) for r, e in sorted(acknowledged)),
        gaps=_narrow([p - last - 1 for p, last in zip(partitions, before, strict=False)]),
        rows=_narrow([one.rows for one in of]),
        raw_bytes=_narrow([one.raw_bytes for one in of]),
        stored_bytes=_narrow([one.stored_bytes for one in of]),
        digests=b"".join(struct.pack("<Q", one.digest) for one in of),
    )


def _narrow(numbers: list[int]) -> bytes:
    width = next(w for w in (0, 1, 2, 4, 8) if max(numbers, default=0) < 1 << 8 * w)
    return b"".join(number.to_bytes(width, "little") for number in numbers)


# --- reading ------------------------------------------------------------------------------


def _wide(array: bytes, count: int) -> list[int]:
    width = len(array) // count if count else 0
    return [int.from_bytes(array[i * width : (i + 1) * width], "little") for i in range(count)]


def _gathered(info: Any, partition: int, snapshot: Any) -> list[Read]:
    """Fetch a partition from the first daemon of each source, and check that all is there."""
    gaps = _wide(snapshot.gaps, snapshot.count)
    mappers = [sum(gaps[: i + 1]) + i for i in range(snapshot.count)]
    attempts = dict(zip(mappers, _wide(snapshot.attempts, snapshot.count), strict=True))
    sums, found = Sums(), {}
    for source in snapshot.sources:
        request = daemon_messages.FetchRequest(
            number=info.number, range_index=source.range_index, epoch=source.epoch,
            partition=partition, files=source.sealed, capability=info.capability,
        )  # fmt: skip
        for block in _fetched(source.daemons[0].address, request):
            (magic, crc, number, attempt, position, of, mapper, rows, raw_bytes, stored_bytes,
             codec, flags, zero, digest) = _BLOCK.unpack_from(block)  # fmt: skip
            assert (magic, number, of, zero) == (b"CBK1", info.number, partition, 0)
            assert zlib.crc32(block[8:]) == crc
            if attempts.get(mapper) != attempt or (mapper, position) in found:
                continue
            content = block[64:]
            if codec:
                content = lz4.block.decompress(content, uncompressed_size=raw_bytes)
            identity = _IDENTITY.pack(number, attempt, position, of, mapper, rows, raw_bytes, flags)
            assert xxhash.xxh3_64_intdigest(identity + content) == digest
            sums.add(rows, raw_bytes - (4 * rows if flags == 4 else 0), stored_bytes, digest)
            found[mapper, position] = Read(mapper, position, flags, rows, content)
    expected = snapshot.rows, snapshot.raw_bytes, snapshot.digest
    assert (sums.rows, sums.raw_bytes, sums.digest) == expected
    return sorted(found.values())


def _fetched(address: str, request: Any) -> Iterator[bytes]:
    """Yield the blocks that a daemon has."""
    with grpc.insecure_channel(address) as channel:
        messages = channel.unary_stream(
            "/cosco.v1.Shuffle/Fetch",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=daemon_messages.FetchReply.FromString,
        )(request)
        left, body = 0, b""
        for reply in (one for message in messages for one in message.packed or (message,)):
            if reply.HasField("section"):
                assert not (left or reply.section.error or reply.section.headers), reply
                left = reply.section.body_bytes
                continue
            body, left = body + reply.data, left - len(reply.data)
            while not left and body:
                end = 64 + int.from_bytes(body[48:52], "little")
                yield body[:end]
                body = body[end:]
        assert not left
