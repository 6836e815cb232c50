"""What must hold of what readers make of blocks: counts, byte rows and batches of Arrow."""

from __future__ import annotations

import struct
from typing import Any, Final

import pyarrow as pa

from cosco.client.content import Decoded
from cosco.client.content.arrow import ContentDecoder, ContentEncoder
from cosco.client.content.arrow_restore import Restorer
from cosco.client.content.byte_rows import join_rows, split_rows
from cosco.client.read.state import block_count
from cosco.client.read.state.block_splitter import BlockSplitter, HeaderSplitter
from cosco.errors import CapacityExceeded, DataCorrupted
from cosco.mechanics import NATIVE

from .outcomes import must, must_agree, outcome
from .repair import repair_blocks

#: Of the inputs of tools/fuzz_corpus.py.
EXCHANGE: Final = 9
PARTITION: Final = 5
_LENGTH_BYTES: Final = 4

SCHEMAS: Final = (
    pa.schema([("a", pa.int64()), ("b", pa.string())]),
    pa.schema([("a", pa.dictionary(pa.int8(), pa.string())), ("b", pa.list_(pa.int16()))]),
    pa.schema([("a", pa.null()), ("b", pa.struct([("x", pa.bool_()), ("y", pa.binary())]))]),
)


def reading_check(data: bytes) -> None:
    """Count what comes in two pieces, by both implementations."""
    control, rest = (data[0] if data else 0), bytearray(data[1:])
    if control & 1:
        repair_blocks(rest)
    whole = memoryview(bytes(rest))
    cut = min(len(whole), control * 4)
    numbers = (struct.pack("<3I", 0, 1, 2), struct.pack("<3Q", 1, 1, 1), struct.pack("<2I", 0, 2))
    ways: list[Any] = [block_count] if NATIVE is None else [block_count, NATIVE]
    told = []
    for way in ways:
        count = way.BlockCount(EXCHANGE, PARTITION, way.Attempts(*numbers))
        told.append(outcome(DataCorrupted, _counted, count, whole, cut, control))
    if NATIVE is not None:
        must_agree(told[0], told[1], "a count of blocks")


def _counted(count: Any, whole: memoryview, cut: int, control: int) -> list[object]:
    """Return all that a count tells of blocks that come in two pieces, and of headers alone."""
    told: list[object] = []
    blocks, headers = BlockSplitter(), HeaderSplitter()
    for piece in (whole[:cut], whole[cut:]):
        for run in blocks.feed(piece):
            offset = 0
            while offset < len(run):
                end, found, bad = count.feed(run, offset, 1 + control)
                must(offset < end <= len(run), "a step goes on")
                told.append((end, [tuple(one) for one in found], bad))
                offset = end
        told.append([count.feed_headers(bare.data) for bare in headers.feed(piece)])
        told.append((count.rows, count.row_bytes, count.digest, count.intervals))
    count.forget_headers()
    return [*told, count.rows, count.row_bytes, count.digest]


def rows_check(data: bytes) -> None:
    """Take the content of a block apart, of as many rows as the first four bytes say."""
    if len(data) < _LENGTH_BYTES + 1:
        return
    rows, has_lengths = int.from_bytes(data[:_LENGTH_BYTES], "little"), bool(data[4] & 1)
    content = memoryview(data)[_LENGTH_BYTES + 1 :]
    if has_lengths and _LENGTH_BYTES * rows > len(content):  # no header says that
        rows = len(content) // _LENGTH_BYTES
    if not rows:
        return
    decoded = Decoded(3, rows, content, has_lengths)
    found = outcome(DataCorrupted, split_rows, decoded)
    joined = outcome(DataCorrupted, join_rows, [decoded, decoded])
    must_agree(bool(found.refusal), bool(joined.refusal), "two ways to refuse rows")
    if NATIVE is not None:
        must_agree(found, outcome(DataCorrupted, NATIVE.split_rows, decoded), "rows")
        other = outcome(DataCorrupted, NATIVE.join_rows, [decoded, decoded])
        must_agree(joined, other, "rows that are joined")
    if not found.refusal:
        must_agree(len(found.value), rows, "the number of rows")
        values = b"".join(found.value)
        table = b"".join(len(row).to_bytes(4, "little") for row in found.value)
        must_agree((table if has_lengths else b"") + values, bytes(content), "rows made again")
        must_agree(joined.value[1], values * 2, "the values of joined rows")


def arrow_check(data: bytes) -> None:
    """Read a block of Arrow: behind the schema's index and the number of rows comes its content."""
    if len(data) < 3:
        return
    schema = SCHEMAS[data[0] % len(SCHEMAS)]
    rows, content = int.from_bytes(data[1:3], "little"), data[3:]
    decoder = ContentDecoder(schema)
    pools = decoder.way.new_pools()
    try:
        plain = decoder.plain(Decoded(1, rows, content, False), pools)
    except (DataCorrupted, CapacityExceeded):
        return
    must_agree(plain.num_rows, rows, "the number of rows")
    restored = _restored(decoder, plain, pools)
    restored.validate()  # not in full: text comes back as it was given, be it UTF-8 or not
    must_agree(restored.num_rows, rows, "restored rows")
    again = bytes(ContentEncoder(decoder.way).encode(plain, pools))
    other_pools = decoder.way.new_pools()
    other = decoder.plain(Decoded(1, rows, again, False), other_pools)
    must(_restored(decoder, other, other_pools).equals(restored), "a batch that is made again")


def _restored(decoder: ContentDecoder, plain: Any, pools: Any) -> Any:
    """Return rows as a reader gets them, with what dictionaries name in the place of numbers."""
    table = pa.Table.from_batches(list(Restorer(decoder.way, pools).batches(plain)))
    for index, one in enumerate(table.schema):
        if pa.types.is_dictionary(one.type):
            parts = [chunk.dictionary_decode() for chunk in table.column(index).chunks]
            table = table.set_column(index, one.name, pa.chunked_array(parts, one.type.value_type))
    return table
