"""What implementations write, the others read: the golden files of tests/golden.

Each case is made again of what it says, by the code of Python and by the native part where that is
there, and read by both. The tests of the Rust crate and of the Java client do the same with these
files; what those have made is in `by-rust.txt` and `by-java.txt`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from pyroaring import BitMap
from support.golden import Case, data, golden, members, numbers
from support.golden_messages import MESSAGES

from cosco import mechanics
from cosco.client.content import Decoded
from cosco.client.content.byte_rows import join_rows, split_rows
from cosco.client.read.state import block_count
from cosco.client.read.state.block_splitter import BlockSplitter
from cosco.client.write.state.block_writer import Blocks, BlockWriter
from cosco.client.write.state.native_packing import NativeBlockWriter
from cosco.errors import CommitTimeout, DataCorrupted
from cosco.format.block import (
    CODEC_LZ4,
    CODEC_NONE,
    CODECS,
    FLAG_FRAGMENT,
    FLAG_LAST,
    FLAG_LENGTHS,
    FLAG_MARK,
    HEADER_BYTES,
    check_block,
    decode_content,
    encode_block,
    parse_header,
    walk_blocks,
)
from cosco.format.chunk import parse_chunk_header
from cosco.format.frame import FrameHeader, encode_frame_header, parse_frame_header
from cosco.format.segment import SegmentId, encode_index, index_place, parse_index
from cosco.format.segment_check import check_segment
from cosco.protocol import wire
from cosco.protocol.fetch_records import FetchPart, Reference
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.protocol.mark import decode_mark
from cosco.protocol.pb import metadata_pb2, shuffle_pb2
from cosco.protocol.push.messages import RefusalCode
from cosco.protocol.records import CommitRequest, CommitWait, PartitionRange, RangesWait
from cosco.protocol.wire.arrays import (
    ascending_u32,
    bitmap_bytes,
    bitmap_from_bytes,
    gaps_bytes,
    narrow_bytes,
    narrow_u64,
)
from cosco.shuffle_service.state.buffers import mechanics_choice
from cosco.shuffle_service.state.buffers.frame_append import Room
from cosco.shuffle_service.state.buffers.mechanics_choice import PORTABLE, Mechanics

BLOCKS = golden("blocks")
FRAMES = golden("frames")
SEGMENTS = golden("segments")
ATTEMPT = (
    "lengths",
    "opaque",
    "shrinks",
    "longest",
    "stays",
    "fragment",
    "last-fragment",
    "counts",
)
PARTITIONS = 4
EXCHANGE, MAPPER, ATTEMPT_ID = (int(BLOCKS["opaque"][f]) for f in ("exchange", "mapper", "attempt"))

#: Both implementations, where the native part is there.
IN_PYTHON = pytest.param("python", id="python")
IN_RUST = pytest.param(
    "rust",
    id="rust",
    marks=pytest.mark.skipif(mechanics.NATIVE is None, reason=mechanics.DESCRIPTION),
)
BOTH = pytest.mark.parametrize("by", [IN_PYTHON, IN_RUST])


def mechanics_of(by: str) -> Mechanics:
    if by == "python":
        return PORTABLE
    assert mechanics_choice.NATIVE is not None
    return mechanics_choice.NATIVE


def block(name: str) -> bytes:
    return data(BLOCKS[name]["block"])


def body_of(value: str) -> bytes:
    """The blocks that a list names, one behind the other."""
    return b"".join(block(name) for name in members(value))


def said(case: Case, *but: str) -> dict[str, Any]:
    """What a case says of a block's header, and what its content is."""
    content = data(case["content"])
    fragment = int(case["fragment"])
    found = {
        "exchange": int(case["exchange"]),
        "attempt": int(case["attempt"]),
        "position": int(case["row"]) << 16 | fragment,
        "partition": int(case["partition"]),
        "mapper": int(case["mapper"]),
        "rows": int(case["rows"]),
        "raw_bytes": len(content),
        "flags": int(case["flags"]),
        "digest": int(case["digest"]),
        "end": int(case["end"]),
        "content": content,
    }
    return {name: value for name, value in found.items() if name not in but}


def read(one: bytes) -> dict[str, Any]:
    """What a block says, all of which was checked."""
    header = parse_header(one)
    check_block(memoryview(one), 0, header)
    assert len(one) == header.block_bytes
    found = {name: getattr(header, name) for name in (*header._fields, "end")}
    found["content"] = decode_content(header, one[HEADER_BYTES:])
    for name in ("crc", "stored_bytes", "codec"):  # not the same for all who compress
        del found[name]
    return found


def check_made(case: Case, made: bytes) -> None:
    """Check that a block is the one of a case: byte for byte, unless it is compressed."""
    header = parse_header(made)
    assert header.codec == parse_header(data(case["block"])).codec
    if header.codec == CODEC_NONE:
        assert made == data(case["block"])
    else:
        assert header.stored_bytes < header.raw_bytes
    assert read(made) == said(case)


# --- blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_made_and_read(name: str) -> None:
    case = BLOCKS[name]
    flags = int(case["flags"])
    header, stored, digest = encode_block(
        exchange=int(case["exchange"]),
        partition=int(case["partition"]),
        mapper=int(case["mapper"]),
        attempt=int(case["attempt"]),
        first_row=int(case["row"]),
        rows=int(case["rows"]),
        content=data(case["content"]),
        codec=CODECS[case["codec"]],
        lengths=bool(flags & FLAG_LENGTHS),
        fragment=int(case["fragment"]) if flags & FLAG_FRAGMENT else None,
        last=bool(flags & FLAG_LAST),
        mark=bool(flags & FLAG_MARK),
    )
    check_made(case, header + stored)
    assert digest == int(case["digest"])
    assert read(block(name)) == said(case)


def test_there_is_a_block_of_each_kind() -> None:
    headers = {name: parse_header(block(name)) for name in BLOCKS}
    assert {header.flags for header in headers.values()} == {0, 1, 3, 4, 8}
    assert {header.codec for header in headers.values()} == {CODEC_NONE, CODEC_LZ4}
    assert headers["shrinks"].stored_bytes < headers["shrinks"].raw_bytes
    assert (BLOCKS["stays"]["codec"], headers["stays"].codec) == ("lz4", CODEC_NONE)
    assert (headers["counts"].raw_bytes, headers["counts"].rows) == (0, 41)
    assert headers["longest"].raw_bytes == 1 << 20


def block_writer(by: str) -> Blocks:
    identity = EXCHANGE, MAPPER, ATTEMPT_ID, CODECS["lz4"], PARTITIONS
    if by == "python":
        return BlockWriter(*identity)
    return NativeBlockWriter(mechanics.NATIVE, *identity)


@BOTH
def test_the_blocks_of_an_attempt_its_mark_and_its_sums(by: str) -> None:
    """What is written one behind the other gets its row ids, and adds up."""
    writer, stored = block_writer(by), [0] * PARTITIONS
    for name in ATTEMPT:
        case = BLOCKS[name]
        flags, partition = int(case["flags"]), int(case["partition"])
        parts = writer.add(
            partition,
            int(case["rows"]),
            data(case["content"]),
            lengths=bool(flags & FLAG_LENGTHS),
            fragment=int(case["fragment"]) if flags & FLAG_FRAGMENT else None,
            last=bool(flags & FLAG_LAST),
        )
        check_made(case, b"".join(parts))
        stored[partition] += sum(map(len, parts))
    marked = PartitionRange(0, 0, PARTITIONS)
    assert b"".join(writer.mark(marked)) == block("mark")
    expected = golden("sums")["attempt"]
    sums = writer.sums()
    assert sums.partitions.tolist() == list(range(PARTITIONS))
    assert sums.rows.tolist() == numbers(expected["rows"])
    assert sums.raw_bytes.tolist() == numbers(expected["bytes"])
    assert sums.digests.tolist() == numbers(expected["digests"])
    assert sums.stored_bytes.tolist() == stored
    mark = decode_mark(parse_header(block("mark")), block("mark")[HEADER_BYTES:], marked)
    assert mark.sums.tolist() == [numbers(expected[of]) for of in ("rows", "bytes", "digests")]


@BOTH
def test_what_is_stored_adds_up(by: str) -> None:
    """The blocks of the golden file itself, as a reader and a daemon count them."""
    counting: Any = block_count if by == "python" else mechanics.NATIVE
    expected = golden("sums")["attempt"]
    mapper = np.array([MAPPER], np.uint32).tobytes()
    attempts = counting.Attempts(mapper, np.array([ATTEMPT_ID], np.uint64).tobytes(), mapper)
    for partition in range(PARTITIONS):
        names = [name for name in ATTEMPT if int(BLOCKS[name]["partition"]) == partition]
        run = memoryview(b"".join(map(block, names)))
        count = counting.BlockCount(EXCHANGE, partition, attempts)
        end, found, bad = count.feed(run, 0, 1 << 30)
        assert (end, bad) == (len(run), [])
        assert [bytes(one[4]) for one in found] == [data(BLOCKS[n]["content"]) for n in names]
        sums = [numbers(expected[of])[partition] for of in ("rows", "bytes", "digests")]
        assert [count.rows, count.row_bytes, count.digest] == sums
        assert len(run) == numbers(expected["stored"])[partition]
        assert count.feed(run, 0, 1 << 30)[1] == [], "what came twice counts once"


@BOTH
def test_rows_of_bytes_are_found_by_their_lengths(by: str) -> None:
    split: Any = split_rows if by == "python" else mechanics.NATIVE.split_rows  # type: ignore[union-attr]
    join: Any = join_rows if by == "python" else mechanics.NATIVE.join_rows  # type: ignore[union-attr]
    decoded = Decoded(MAPPER, 2, data(BLOCKS["lengths"]["content"]), lengths=True)
    assert list(split(decoded)) == [b"", b"abc"]
    offsets, values = join([decoded])
    assert (np.frombuffer(offsets, "<i4").tolist(), values) == ([0, 0, 3], b"abc")


REFUSED = golden("refused")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_block_is_refused(name: str) -> None:
    with pytest.raises(DataCorrupted):
        read(data(REFUSED[name]["block"]))


@BOTH
@pytest.mark.parametrize("name", REFUSED)
def test_who_merges_blocks_refuses_it_too(by: str, name: str) -> None:
    counting: Any = block_count if by == "python" else mechanics.NATIVE
    one = data(REFUSED[name]["block"])
    partition = int.from_bytes(one[32:36], "little") if len(one) > 36 else 1
    mapper = np.array([MAPPER], np.uint32).tobytes()
    attempts = counting.Attempts(mapper, np.array([ATTEMPT_ID], np.uint64).tobytes(), mapper)
    count = counting.BlockCount(EXCHANGE, partition, attempts)
    _, found, bad = count.feed(memoryview(one), 0, 1 << 20)
    assert (found, len(bad)) == ([], 1)
    assert count.rows == count.row_bytes == count.digest == 0


# --- frames -------------------------------------------------------------------------------


def frame_header(case: Case) -> FrameHeader:
    return FrameHeader(**{name: int(case[name]) for name in FrameHeader._fields})


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_header_is_made_and_read(name: str) -> None:
    case = FRAMES[name]
    header = frame_header(case)
    assert encode_frame_header(header) == data(case["header"])
    assert parse_frame_header(memoryview(data(case["header"]) + body_of(case["of"]))) == header


@BOTH
@pytest.mark.parametrize("name", FRAMES)
def test_a_daemon_takes_a_frame(by: str, name: str) -> None:
    case = FRAMES[name]
    frame = data(case["header"]) + body_of(case["of"])
    checked = mechanics_of(by).check_frame(memoryview(frame))
    assert checked.header == frame_header(case)
    assert checked.mapper_attempt == MapperAttempt(MAPPER, ATTEMPT_ID)
    named = [BLOCKS[one] for one in members(case["of"]) if one != "mark"]
    spans = [(int(one["row"]) << 16 | int(one["fragment"]), int(one["end"])) for one in named]
    found = [span for run in range(checked.run_count) for span in checked.positions(run)]
    assert found == spans
    if "mark" in members(case["of"]):
        assert checked.mark is not None
        assert bytes(checked.mark[1]) == data(BLOCKS["mark"]["content"])
    for damaged in (frame[:-1], frame + b"\0", bytes((frame[0] ^ 1,)) + frame[1:]):
        with pytest.raises(DataCorrupted):
            mechanics_of(by).check_frame(memoryview(damaged))


# --- chunks and segments ------------------------------------------------------------------


def segment_id(case: Case) -> SegmentId:
    fields = ("exchange", "range_index", "epoch", "incarnation", "serial")
    return SegmentId(*(int(case[field]) for field in fields))


def laid_out(by: str, case: Case) -> bytes:
    """The segment that a daemon writes of the blocks of a case."""
    chosen = mechanics_of(by)
    segment_of = segment_id(case)
    arena, pool = memoryview(bytearray(4 << 20)), chosen.page_pool(4 << 20)
    key = AssignmentKey(segment_of.exchange, segment_of.range_index, segment_of.epoch)
    buffers: dict[int, Any] = {}
    dedupe = chosen.dedupe_index()
    for partition in numbers(case["partitions"]):
        names = members(case[f"of-{partition}"])
        body = body_of(case[f"of-{partition}"])
        header = FrameHeader(*key[:1], segment_of.incarnation, 1, *key[1:], len(body), len(names))
        checked = chosen.check_frame(memoryview(encode_frame_header(header) + body))
        room = Room(pool.free_bytes, 0)
        chosen.append_frame(arena, pool, dedupe, buffers, key, checked, 0, room, 8 << 20)
    in_order = [buffers[partition] for partition in sorted(buffers)]
    laid = chosen.lay_out(in_order, arena, segment_of.incarnation, "a path")
    return b"".join(laid.parts) + encode_index(segment_of, laid.index, laid.end)


@BOTH
@pytest.mark.parametrize("name", SEGMENTS)
def test_a_daemon_writes_a_segment(by: str, name: str) -> None:
    case = SEGMENTS[name]
    assert laid_out(by, case) == data(case["segment"])


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_segment_is_read(name: str) -> None:
    case = SEGMENTS[name]
    segment, segment_of = data(case["segment"]), segment_id(case)
    path = (
        f"cluster/{segment_of.exchange}/{segment_of.range_index}-{segment_of.epoch}/{case['name']}"
    )
    check_segment(path, memoryview(segment))
    place = index_place(segment_of, len(segment), segment[-64:])
    index = parse_index(segment[place:], place)
    assert index.crc == int(case["index-crc"])
    assert index.partitions.tolist() == numbers(case["partitions"])
    for partition in index.partitions:
        found = index.find(partition)
        assert found is not None
        header = parse_chunk_header(segment[found.offset :])
        assert header.partition == partition
        assert header.padded_bytes % 4096 == 0
        body = segment[found.offset + 64 : found.offset + 64 + found.body_bytes]
        assert body == body_of(case[f"of-{partition}"])
    for at in (place, len(segment) - 40, len(segment) - 60):
        damaged = bytearray(segment)
        damaged[at] ^= 1
        with pytest.raises(DataCorrupted):
            check_segment(path, memoryview(damaged))


# --- arrays and sets ----------------------------------------------------------------------


@pytest.mark.parametrize("case", golden("arrays").values(), ids=golden("arrays"))
def test_an_array_of_numbers(case: Case) -> None:
    if "narrow" in case:
        array = np.array(numbers(case["numbers"]), np.uint64)
        assert narrow_bytes(array) == data(case["narrow"])
        assert narrow_u64(data(case["narrow"]), len(array), "it").tolist() == array.tolist()
    else:
        ascending = np.array(numbers(case["ascending"]), np.uint32)
        assert gaps_bytes(ascending) == data(case["gaps"])
        found = ascending_u32(data(case["gaps"]), len(ascending), 1 << 21, "it")
        assert found.tolist() == ascending.tolist()


def the_set(case: Case) -> BitMap:
    if "range" in case:
        return BitMap(range(*numbers(case["range"])))
    return BitMap(numbers(case["numbers"]))


@pytest.mark.parametrize("case", golden("bitmaps").values(), ids=golden("bitmaps"))
def test_a_set(case: Case) -> None:
    assert bitmap_from_bytes(data(case["bitmap"]), "it") == the_set(case)
    assert bitmap_from_bytes(bitmap_bytes(the_set(case)), "it") == the_set(case)
    assert bool(bitmap_bytes(the_set(case))) == bool(the_set(case)), "an empty set is no bytes"


# --- messages -----------------------------------------------------------------------------

SAID = golden("messages")


def message(name: str) -> bytes:
    return data(SAID[name]["bytes"])


@pytest.mark.parametrize("name", SAID)
def test_a_message_says_what_its_text_does(name: str) -> None:
    case = SAID[name]
    module = metadata_pb2 if hasattr(metadata_pb2, case["message"]) else shuffle_pb2
    parsed = getattr(module, case["message"]).FromString(data(case["bytes"]))
    text = "" if case["text"] == "-" else case["text"]
    assert text_format.Parse(text, type(parsed)()) == parsed
    if case["exact"] == "yes":
        assert parsed.SerializeToString() == data(case["bytes"])


@pytest.mark.parametrize("made", MESSAGES, ids=lambda made: made.case)
def test_a_message_is_made(made: Any) -> None:
    assert made.content == message(made.case)


def test_commits_are_read() -> None:
    commit, partial, empty = (
        wire.from_pb(CommitRequest, metadata_pb2.CommitRequest.FromString(message(name)))
        for name in ("commit", "commit-partial", "commit-empty")
    )
    assert commit.attempt == ATTEMPT_ID
    assert commit.acknowledged.tolist() == [[0, 1], [0, 2], [5, 1]]
    sums = commit.sums
    assert sums.partitions.tolist() == [0, 1, 70_000]
    assert sums.rows.tolist() == [3, 1 << 33, 7]
    assert sums.raw_bytes.tolist() == [4, 5, 300]
    assert sums.stored_bytes.tolist() == [80, 70, 364]
    assert sums.digests.tolist() == [1, (1 << 64) - 1, 1 << 63]
    assert (partial.partial, partial.ranges, commit.partial) == (True, (0, 5), False)
    assert len(empty.sums.partitions) == len(empty.acknowledged) == 0


def test_snapshots_are_read() -> None:
    parse = metadata_pb2.AwaitCommitsReply.FromString
    snapshot = wire.from_pb(CommitWait, parse(message("snapshot"))).snapshot
    assert snapshot is not None
    assert snapshot.mappers.tolist() == [0, 3, 260]
    assert snapshot.attempts.tolist() == [1, ATTEMPT_ID, 3]
    assert (snapshot.rows, snapshot.raw_bytes, snapshot.digest) == (11, 44, (1 << 64) - 1)
    assert [len(source.daemons) for source in snapshot.sources] == [2, 0]
    wait = wire.from_pb(RangesWait, parse(message("range-snapshots")))
    assert [one.partitions.tolist() for one in wait.ranges] == [[8, 11], [16, 19]]
    assert [one.common.mappers.tolist() for one in wait.ranges] == [[0, 3, 260]] * 2
    assert wait.ranges[0].rows.tolist() == [0, 300]
    assert (list(wait.waiting), list(wait.missing), wait.recompute) == ([40], [9], True)


def test_what_is_said_on_a_push_stream_is_read() -> None:
    opening = wire.push_request_from_bytes(message("hello-eager"))
    assert opening.hello is not None
    assert opening.hello[:3] == (4711, 3, ATTEMPT_ID)
    assert (opening.hello.protocol, opening.hello.capability) == (2, "cosco1.example")
    assert opening.eager
    frame = wire.push_request_from_bytes(message("frame")).frame
    assert opening.frame == frame
    assert frame is not None
    assert parse_frame_header(frame).blocks == 1
    assert wire.push_request_from_bytes(message("announce")).announce == (2_097_152, 130)
    assert wire.push_request_from_bytes(message("withdrawn")).withdrawn
    reply = wire.push_reply_from_bytes(message("push-reply"))
    assert (list(reply.acknowledged), reply.granted, reply.eager_bytes) == ([1, 300], 2, 524_288)
    assert [one[:2] for one in reply.refused] == [(9, RefusalCode.NOT_ASSIGNED)]


def test_what_is_fetched_is_read() -> None:
    one = wire.fetch_request_from_bytes(message("fetch-one"))
    assert (one.several, one.parts) == (False, (FetchPart(2, 5, BitMap((11,)), files=True),))
    several = wire.fetch_request_from_bytes(message("fetch-parts"))
    assert [list(part.partitions) for part in several.parts] == [[8, 11], [16]]
    assert (several.several, list(several.mappers)) == (True, [0, 3])
    section, body, end = wire.fetch_replies(message("packed"))
    assert isinstance(section, shuffle_pb2.Section)
    assert isinstance(body, memoryview)
    assert section.body_bytes == len(body)
    [(_, header)] = walk_blocks(body)
    assert BlockSplitter().feed(body) == [body]
    assert (header.partition, header.stored_bytes) == (8, 3)
    assert isinstance(end, shuffle_pb2.PartEnd)
    [referred] = wire.fetch_replies(message("section-reference"))
    assert isinstance(referred, shuffle_pb2.Section)
    path = "c/4711/2-5/8-11-000000000000002a-1"
    assert wire.reference_of(referred) == Reference("file:///store/1-2", path, 8192, 77)


def test_an_error_and_an_answer_to_a_follower_are_read() -> None:
    error = wire.error_from_bytes(message("error"))
    assert type(error) is CommitTimeout
    assert (error.mappers, error.partition, error.retriable) == ((1, 300), 0, True)
    [answer] = wire.followed_from_bytes(message("follow-reply"))
    assert answer.digest == 1 << 63
    assert np.frombuffer(answer.attempts, "<u8").tolist() == [ATTEMPT_ID, 2]


# --- what others have made ----------------------------------------------------------------


@pytest.mark.parametrize("by", ["java", "rust"])
def test_blocks_of_others_are_read(by: str) -> None:
    found = golden(f"by-{by}")
    blocks = {name: case for name, case in found.items() if "block" in case}
    assert set(blocks) == {name for name in BLOCKS if parse_header(block(name)).codec == CODEC_LZ4}
    for name, case in blocks.items():
        check_made(BLOCKS[name], data(case["block"]))


def test_sets_of_java_are_read() -> None:
    sets = golden("bitmaps")
    found = golden("by-java")
    for name, case in sets.items():
        assert bitmap_from_bytes(data(found[f"set-{name}"]["bitmap"]), name) == the_set(case)
