"""What must hold of blocks, frames, chunks, segments and marks, whatever bytes they are of.

The first byte of an input says in its bits how the rest is to be taken; bit 0 has its checksums
made right. What an accepted input says is the same after it is written and read again, and the
native part, where it is, says the same.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from cosco.client.read.state.block_splitter import whole_blocks
from cosco.errors import DataCorrupted
from cosco.format import chunk, segment
from cosco.format.block import (
    FLAG_FRAGMENT,
    FLAG_LAST,
    FLAG_LENGTHS,
    HEADER_BYTES,
    MAX_FRAGMENTS,
    BlockHeader,
    decode_content,
    encode_block,
    parse_header,
    walk_blocks,
)
from cosco.format.checksum import crc32
from cosco.format.chunk import (
    ALIGNMENT,
    CHUNK_HEADER_BYTES,
    encode_chunk_header,
    padded,
    parse_chunk_header,
)
from cosco.format.frame import encode_frame_header, parse_frame_header, sequence_of
from cosco.format.segment import (
    ENTRY_BYTES,
    FOOTER_BYTES,
    SegmentId,
    SegmentName,
    check_footer,
    encode_index,
    index_bytes,
    index_place,
    parse_index,
    parse_segment_name,
    segment_name,
)
from cosco.format.segment_check import check_segment, parse_segment_path
from cosco.mechanics import NATIVE
from cosco.protocol.mark import MARK_FIELDS, decode_mark, encode_mark
from cosco.protocol.records import PartitionRange
from cosco.shuffle_service.state.buffers.frame_check import CheckedFrame, check_frame
from cosco.shuffle_service.state.buffers.section_rows import SectionRows

from .outcomes import Outcome, must, must_agree, outcome
from .repair import repair_blocks, repair_frame, seal

REPAIRED: Final = 1
#: Of a segment: its footer gets the place and the number of the entries that it has.
PLACED: Final = 2
#: Of a segment: its name says the partitions that its index does.
NAMED: Final = 4
_NUMBER_AT: Final = 40
_PLACE_AT: Final = 48


def block_check(data: bytes) -> None:
    """Walk blocks, and take each apart."""
    control, rest = _control(data)
    if control & REPAIRED:
        repair_blocks(rest)
    whole = memoryview(bytes(rest))
    cut = outcome(DataCorrupted, whole_blocks, whole, 0)
    if NATIVE is not None:
        must_agree(cut, outcome(DataCorrupted, NATIVE.whole_blocks, whole, 0), "whole blocks")
    _same_rows(whole, control)
    end = 0
    with suppress(DataCorrupted):
        for offset, header in walk_blocks(whole):
            must_agree(offset, end, "where a block begins")
            end += header.block_bytes
            stored = whole[offset + HEADER_BYTES : end]
            with suppress(DataCorrupted):
                _same_block(header, decode_content(header, stored))


def _same_rows(whole: memoryview, at: int) -> None:
    """Count rows by headers, in one piece and in two."""
    found = SectionRows().feed([whole])
    must_agree(SectionRows().feed([whole[:at], whole[at:]]), found, "rows of pieces")
    if NATIVE is not None:
        must_agree(NATIVE.SectionRows().feed([whole[:at], whole[at:]]), found, "rows of headers")


def _same_block(header: BlockHeader, content: bytes) -> None:
    must_agree(len(content), header.raw_bytes, "the length of a content")
    fragment = header.position % MAX_FRAGMENTS if header.is_fragment else None
    again, stored, digest = encode_block(
        exchange=header.exchange, partition=header.partition, mapper=header.mapper,
        attempt=header.attempt, first_row=header.first_row, rows=header.rows, content=content,
        codec=header.codec, lengths=bool(header.flags & FLAG_LENGTHS), fragment=fragment,
        last=bool(header.flags & FLAG_FRAGMENT and header.flags & FLAG_LAST),
        mark=header.is_mark,
    )  # fmt: skip
    found = parse_header(again)
    # Another maker may have compressed it otherwise.
    kept = {"crc": 0, "codec": 0, "stored_bytes": 0}
    must_agree(found._replace(**kept), header._replace(**kept), "a block that is made again")
    must_agree(digest, header.digest, "its digest")
    must_agree(decode_content(found, stored), content, "its content")
    must(found.end > found.position or found.is_mark, "a block covers something")


def frame_check(data: bytes) -> None:
    """Check a frame, by both implementations."""
    control, rest = _control(data)
    if control & REPAIRED:
        repair_frame(rest)
    whole = memoryview(bytes(rest))
    sequence = sequence_of(whole)
    with suppress(DataCorrupted):
        header = parse_frame_header(whole)
        again = encode_frame_header(header)
        must_agree(again, bytes(whole[: len(again)]), "the header of a frame")
        must_agree(sequence, header.sequence, "a sequence")
    found = outcome(DataCorrupted, check_frame, whole)
    if NATIVE is not None:
        other = outcome(DataCorrupted, NATIVE.check_frame, whole)
        must_agree(_told(found), _told(other), "a frame")
    if found.value is not None:
        checked: CheckedFrame = found.value
        blocks = b"".join(run.data for run in checked.runs)
        if checked.mark is not None:
            blocks += whole[len(whole) - checked.mark[0].block_bytes :]
        must(whole[len(encode_frame_header(checked.header)) :] == blocks, "runs are all there is")
        must(all(start < end for run in range(checked.run_count)
                 for start, end in checked.positions(run)), "blocks have rows")  # fmt: skip


def _told(found: Outcome) -> object:
    """Return all that a checked frame tells, of either implementation."""
    frame = found.value
    if frame is None:
        return found
    mark = None if frame.mark is None else (tuple(frame.mark[0]), bytes(frame.mark[1]))
    positions = [frame.positions(run) for run in range(frame.run_count)]
    of_range = frame.outside(0, 6)
    who = tuple(frame.mapper_attempt)
    return tuple(frame.header), who, frame.key, mark, frame.partitions(), positions, of_range


def mark_check(data: bytes) -> None:
    """Read a block as the mark of a range: behind the control its first partition and count."""
    control, rest = _control(data)
    if len(rest) < 6:
        return
    first, count = int.from_bytes(rest[:4], "little"), int.from_bytes(rest[4:6], "little")
    part = PartitionRange(index=3, first=first, count=count)
    del rest[:6]
    if control & REPAIRED:
        repair_blocks(rest)
    with suppress(DataCorrupted):
        for offset, header in walk_blocks(memoryview(bytes(rest))):
            stored = rest[offset + HEADER_BYTES : offset + header.block_bytes]
            mark = decode_mark(header, stored, part)
            must_agree(mark.sums.shape, (MARK_FIELDS, count), "the sums of a mark")
            again, content = encode_mark(mark, header.exchange, part)
            must_agree(decode_content(header, stored), content, "the content of a mark")
            must_agree(parse_header(again).digest, header.digest, "the digest of a mark")


def chunk_check(data: bytes) -> None:
    """Read the header of a chunk."""
    control, rest = _control(data)
    if control & REPAIRED:
        rest[: len(chunk.MAGIC)] = chunk.MAGIC
        seal(rest, 0, CHUNK_HEADER_BYTES)
    with suppress(DataCorrupted):
        header = parse_chunk_header(rest)
        must_agree(encode_chunk_header(header), bytes(rest[:CHUNK_HEADER_BYTES]), "a chunk")
        must(header.padded_bytes % ALIGNMENT == 0, "chunks are aligned")
        must(header.padded_bytes >= CHUNK_HEADER_BYTES + header.body_bytes, "a chunk has its body")


def segment_check(data: bytes) -> None:
    """Check a whole segment, of pieces: chunks, the entries of the index, and the footer.

    A piece is bytes behind their length of 16 bits; each chunk, and the end, is filled up.
    """
    control, rest = _control(data)
    *chunks, entries, footer = [b""] * 2 + _pieces(rest)
    file = bytearray()
    for piece in chunks:
        start = len(file)
        file += piece.ljust(padded(len(piece)), b"\0")
        if control & REPAIRED:
            file[start : start + len(chunk.MAGIC)] = chunk.MAGIC
            seal(file, start, start + CHUNK_HEADER_BYTES)
            repair_blocks(file, start + CHUNK_HEADER_BYTES)
            del file[start + padded(len(piece)) :]
    place = len(file)
    end = bytearray(entries + footer[:FOOTER_BYTES].rjust(FOOTER_BYTES, b"\0"))
    if control & PLACED:
        _place(end, len(entries), place)
    if control & REPAIRED:
        _seal_index(end)
    filling = bytes(index_bytes(len(entries) // ENTRY_BYTES) - len(end))
    file += end[:-FOOTER_BYTES] + filling + end[-FOOTER_BYTES:]
    _whole_segment(bytes(file), control)


def _place(end: bytearray, entries_bytes: int, place: int) -> None:
    footer = len(end) - FOOTER_BYTES
    end[footer : footer + len(segment.MAGIC)] = segment.MAGIC
    number = (entries_bytes // ENTRY_BYTES).to_bytes(4, "little")
    end[footer + _NUMBER_AT : footer + _NUMBER_AT + 4] = number
    end[footer + _PLACE_AT : footer + _PLACE_AT + 8] = place.to_bytes(8, "little")


def _seal_index(end: bytearray) -> None:
    footer = len(end) - FOOTER_BYTES
    number = int.from_bytes(end[footer + _NUMBER_AT : footer + _NUMBER_AT + 4], "little")
    covered = bytes(end[: min(ENTRY_BYTES * number, footer)]), bytes(end[footer + 8 :])
    crc = crc32(covered[1], crc32(covered[0]))
    end[footer + 4 : footer + 8] = crc.to_bytes(4, "little")


def _whole_segment(file: bytes, control: int) -> None:
    footer = file[-FOOTER_BYTES:]
    _, _, exchange, incarnation, serial, range_index, epoch, *_ = segment._FOOTER.unpack(footer)
    whose = SegmentId(exchange, range_index, epoch, incarnation, serial)
    name = SegmentName(1, 2, incarnation, serial)
    with suppress(DataCorrupted):
        place = index_place(whose, len(file), footer)
        index = parse_index(file[place:], place)
        assert index.crc is not None
        check_footer(whose, len(file), footer, index.crc)
        must(index.cost_bytes <= len(file) + ALIGNMENT, "an index is as large as its entries")
        for at, partition in enumerate(index.partitions):
            found = index.find(partition)
            must_agree(found, (index.offsets[at], index.body_bytes[at]), "a chunk that is found")
            end = index.offsets[at] + CHUNK_HEADER_BYTES + index.body_bytes[at]
            must(end <= place, "a chunk ends before the index")
        if len(index) and control & NAMED:
            name = name._replace(first=index.partitions[0], last=index.partitions[-1])
        path = f"c/{exchange}/{range_index}-{epoch}/{segment_name(name)}"
        check_segment(path, memoryview(file))
        must_agree(encode_index(whose, index, place), file[place:], "an index that is made again")


def segment_name_check(data: bytes) -> None:
    """Read the name of a segment, and its path."""
    text = data.decode(errors="replace")
    name = parse_segment_name(text)
    if name is not None:
        must_agree(parse_segment_name(segment_name(name)), name, "a name that is made again")
        must_agree(segment_name(name), text, "a name")
    found = parse_segment_path(text)
    if found is not None:
        whose, name = found
        *_, folder, file = text.split("/")
        must_agree(
            (segment_name(name), f"{whose.range_index}-{whose.epoch}"), (file, folder), "a path"
        )


def _control(data: bytes) -> tuple[int, bytearray]:
    return (data[0] if data else 0), bytearray(data[1:])


def _pieces(data: bytearray) -> list[bytes]:
    """Return pieces, each behind its length of 16 bits; the last one may be cut short."""
    found: list[bytes] = []
    offset = 0
    while offset + 2 <= len(data):
        length = int.from_bytes(data[offset : offset + 2], "little")
        found.append(bytes(data[offset + 2 : offset + 2 + length]))
        offset += 2 + length
    return found
