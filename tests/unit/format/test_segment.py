"""The index and the name of a segment: what is written is found, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.errors import DataCorrupted
from cosco.format.checksum import crc32
from cosco.format.chunk import ALIGNMENT, CHUNK_HEADER_BYTES, padded
from cosco.format.segment import (
    ENTRY_BYTES,
    FOOTER_BYTES,
    MAGIC,
    FoundChunk,
    SegmentId,
    SegmentIndex,
    SegmentName,
    encode_index,
    index_bytes,
    index_place,
    parse_index,
    parse_segment_name,
    segment_name,
)

U32, U64 = (1 << 32) - 1, (1 << 64) - 1
ID = SegmentId(exchange=7, range_index=3, epoch=2, incarnation=11, serial=5)

Chunks = list[tuple[int, int, int, int]]


def index_of(chunks: Chunks) -> SegmentIndex:
    index = SegmentIndex()
    for one in chunks:
        index.add(*one)
    return index


def chunks_of(index: SegmentIndex) -> Chunks:
    return list(zip(index.partitions, index.blocks, index.offsets, index.body_bytes, strict=True))


def end_of(chunks: Chunks) -> int:
    """Where the last chunk ends, padding included."""
    return max(
        (padded(offset + CHUNK_HEADER_BYTES + body) for *_, offset, body in chunks), default=0
    )


def find(id: SegmentId, file: bytes) -> SegmentIndex:
    """The index of a file, as a reader finds it. Raises DataCorrupted."""
    place = index_place(id, len(file), file[-FOOTER_BYTES:])
    return parse_index(file[place:], place)


@st.composite
def laid_out(draw: st.DrawFn, count_max: int = 200) -> Chunks:
    """Chunks one behind the other, ascending by partition."""
    partitions = sorted(draw(st.sets(st.integers(0, U32), max_size=count_max)))
    chunks: Chunks = []
    for partition in partitions:
        body = draw(st.sampled_from([1, 4032, 4033, 100_000]) | st.integers(1, 1 << 40))
        chunks.append((partition, draw(st.integers(0, U32)), end_of(chunks[-1:]), body))
    return chunks


IDS = st.builds(
    SegmentId,
    st.integers(0, U64),
    st.integers(0, U32),
    st.integers(0, U32),
    st.integers(0, U64),
    st.integers(0, U64),
)

#: Of one page, as most are, and of two.
SMALL: Chunks = [(3, 2, 0, 1000), (4, 1, 4096, 9000), (6, 9, 16384, 100), (U32, 1, 20480, 4032)]
LARGE: Chunks = [(2 * n, 1, 4096 * n, n + 1) for n in range(300)]


def file_of(chunks: Chunks) -> bytes:
    """A whole segment; what is in its chunks does not matter here."""
    place = end_of(chunks)
    return bytes(place) + encode_index(ID, index_of(chunks), place)


@given(laid_out(), IDS)
def test_what_was_written_is_found(chunks: Chunks, id: SegmentId) -> None:
    place = end_of(chunks)
    data = encode_index(id, index_of(chunks), place)
    size_bytes = place + len(data)
    assert size_bytes % ALIGNMENT == 0
    assert len(data) == index_bytes(len(chunks))
    assert index_place(id, size_bytes, data[-FOOTER_BYTES:]) == place
    index = parse_index(data, place)
    assert not index.damage
    assert chunks_of(index) == chunks
    for partition, _, offset, body in chunks:
        assert index.find(partition) == FoundChunk(offset, body)
    known = {partition for partition, *_ in chunks}
    for partition in {0, U32, *(p + 1 for p in known), *(p - 1 for p in known)} - known:
        assert index.find(partition) is None


def test_the_bytes_are_those_of_the_format() -> None:
    """Independently of the code that packs them: another version must read them."""
    data = encode_index(ID, index_of(SMALL[:2]), 16384)
    entries = b"".join(
        partition.to_bytes(4, "little")
        + blocks.to_bytes(4, "little")
        + offset.to_bytes(8, "little")
        + body.to_bytes(8, "little")
        for partition, blocks, offset, body in SMALL[:2]
    )
    assert len(entries) == 2 * ENTRY_BYTES == 48
    numbers = ((7, 8), (11, 8), (5, 8), (3, 4), (2, 4), (2, 4), (0, 4), (16384, 8), (0, 8))
    after_crc = b"".join(number.to_bytes(length, "little") for number, length in numbers)
    crc = crc32(entries + after_crc).to_bytes(4, "little")
    assert MAGIC == b"CSG1"
    assert data == entries + bytes(4096 - 48 - 64) + MAGIC + crc + after_crc


@pytest.mark.parametrize("chunks", [[], SMALL], ids=["none", "four"])
def test_no_flipped_bit_is_believed(chunks: Chunks) -> None:
    """Each is noticed, or in the zeros between the entries and the footer, which nobody reads."""
    file = file_of(chunks)
    place, harmless = end_of(chunks), 0
    for at in range(place, len(file)):
        for bit in range(8):
            damaged = bytearray(file)
            damaged[at] ^= 1 << bit
            try:
                found = find(ID, bytes(damaged))
            except DataCorrupted:
                continue
            assert chunks_of(found) == chunks
            harmless += 1
    assert harmless == 8 * (len(file) - place - ENTRY_BYTES * len(chunks) - FOOTER_BYTES)


@pytest.mark.parametrize("chunks", [SMALL, LARGE], ids=["one page", "two pages"])
def test_a_segment_that_is_cut_has_no_index(chunks: Chunks) -> None:
    file = file_of(chunks)
    for size_bytes in range(0, len(file), 512):
        with pytest.raises(DataCorrupted):
            find(ID, file[:size_bytes])


@pytest.mark.parametrize("more", [1, 64, 512, 4096])
def test_an_index_is_at_the_end_or_it_is_none(more: int) -> None:
    file = file_of(SMALL)
    for longer in (file + bytes(more), bytes(more) + file, file + file[-more:]):
        with pytest.raises(DataCorrupted):
            find(ID, longer)


@given(IDS)
def test_the_index_of_another_segment_is_not_believed(other: SegmentId) -> None:
    file = file_of(SMALL)
    if other != ID:
        with pytest.raises(DataCorrupted, match="another segment"):
            find(other, file)


@pytest.mark.parametrize("field", ["exchange", "range_index", "epoch", "incarnation", "serial"])
def test_each_part_of_its_identity_counts(field: str) -> None:
    fields = {name: getattr(ID, name) for name in SegmentId.__slots__}
    with pytest.raises(DataCorrupted, match="another segment"):
        find(SegmentId(**fields | {field: fields[field] + 1}), file_of(SMALL))


def unchecked(chunks: Chunks) -> SegmentIndex:
    """An index of chunks that may lie anywhere: one whose writer is broken."""
    index = SegmentIndex()
    for partition, blocks, offset, body in chunks:
        index.partitions.append(partition)
        index.blocks.append(blocks)
        index.offsets.append(offset)
        index.body_bytes.append(body)
    return index


@pytest.mark.parametrize(
    "chunks",
    [
        [(4, 1, 0, 10), (3, 1, 4096, 10)],
        [(3, 1, 0, 10), (3, 1, 4096, 10)],
        [(3, 1, 4096, 10), (4, 1, 0, 10)],
        [(3, 1, 0, 5000), (4, 1, 4096, 10)],
        [(3, 1, 100, 10)],
        [(3, 1, 8192, 10)],
        [(3, 1, 4096, 4033)],
        [(3, 1, 0, U64)],
    ],
    ids=[
        "descending",
        "a partition twice",
        "places descending",
        "one within another",
        "unaligned",
        "in the index",
        "into the index",
        "longer than any file",
    ],
)
def test_an_index_whose_checksum_is_right_may_be_wrong_all_the_same(chunks: Chunks) -> None:
    data = encode_index(ID, unchecked(chunks), 8192)
    assert index_place(ID, 8192 + len(data), data[-FOOTER_BYTES:]) == 8192
    with pytest.raises(DataCorrupted):
        parse_index(data, 8192)


def test_chunks_are_added_in_order_alone() -> None:
    index = index_of(SMALL[:2])
    for wrong in ((4, 1, 16384, 10), (3, 1, 16384, 10), (5, 1, 4096, 10), (5, 1, 13_000, 10)):
        with pytest.raises(DataCorrupted, match="out of order"):
            index.add(*wrong)
    assert chunks_of(index) == SMALL[:2]


def test_an_index_is_not_longer_than_it_need_be() -> None:
    in_a_page = (ALIGNMENT - FOOTER_BYTES) // ENTRY_BYTES
    assert [index_bytes(n) for n in (0, 1, in_a_page, in_a_page + 1)] == [4096, 4096, 4096, 8192]


# --- names --------------------------------------------------------------------------------


@given(st.integers(0, U32), st.integers(0, U32), st.integers(0, U64), st.integers(0, U64))
def test_a_name_says_what_it_was_made_of(
    one: int, other: int, incarnation: int, serial: int
) -> None:
    name = SegmentName(min(one, other), max(one, other), incarnation, serial)
    assert parse_segment_name(segment_name(name)) == name


NAME = "3-6-000000000000000b-1f"


def test_a_name_as_it_is_written() -> None:
    assert segment_name(SegmentName(3, 6, 11, 31)) == NAME


@pytest.mark.parametrize(
    "name",
    [
        "",
        "readme",
        "3-000000000000000b",
        "3-6-000000000000000b",
        NAME + "\n",
        NAME + ".tmp",
        NAME + "/x",
        NAME + "-1",
        " " + NAME,
        "x/" + NAME,
        "03-6-000000000000000b-1f",
        "3-06-000000000000000b-1f",
        "3-6-00000000000000b-1f",
        "3-6-0000000000000000b-1f",
        "3-6-000000000000000B-1f",
        "3-6-000000000000000b-01f",
        "3-6-000000000000000b-1F",
        "3-6-000000000000000b-",
        "3-6-000000000000000b-10000000000000000",
        "3--6-000000000000000b-1f",
        "-3-6-000000000000000b-1f",
        "+3-6-000000000000000b-1f",
        "6-3-000000000000000b-1f",
        "3-4294967296-000000000000000b-1f",
        "3-9999999999-000000000000000b-1f",
        "3-1\u0662-000000000000000b-1f",
    ],
)
def test_what_no_daemon_would_write_is_nobodys(name: str) -> None:
    assert parse_segment_name(name) is None


@given(st.text("0123456789abcdefx-", max_size=45))
def test_there_is_one_name_for_each_segment(text: str) -> None:
    name = parse_segment_name(text)
    assert name is None or segment_name(name) == text
