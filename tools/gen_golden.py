"""Generate tests/golden of cosco/format and cosco/protocol; with --check only say if it is current.

What others have made, `by-java.txt` and `by-rust.txt`, is made by their tests: see docs/testing.md.
Versions of lz4 compress differently, so bytes that are there and come out right are kept.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
import xxhash
from pyroaring import BitMap

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.golden import FOLDER, Case, data, golden, listed, shown
from support.golden_messages import MESSAGES

from cosco.errors import DataCorrupted
from cosco.format.block import (
    CODEC_LZ4,
    CODEC_NONE,
    CODECS,
    FLAG_FRAGMENT,
    FLAG_LAST,
    FLAG_LENGTHS,
    FLAG_MARK,
    HEADER_BYTES,
    MAX_CONTENT_BYTES,
    content_digest,
    decode_content,
    encode_block,
    parse_header,
)
from cosco.format.checksum import crc32
from cosco.format.chunk import ChunkHeader, encode_chunk_header, padded
from cosco.format.frame import FrameHeader, encode_frame_header
from cosco.format.segment import (
    FOOTER_BYTES,
    SegmentId,
    SegmentIndex,
    SegmentName,
    encode_index,
    segment_name,
)
from cosco.protocol.wire.arrays import bitmap_bytes, gaps_bytes, narrow_bytes

EXCHANGE: Final = 4711
MAPPER: Final = 3
ATTEMPT: Final = (1 << 63) + 9
INCARNATION: Final = 0xFEDC_BA98_7654_3210
PARTITIONS: Final = 4
RANGE: Final = 2
EPOCH: Final = 5
# Contents are so that every lz4 makes less of them, or none does; in general that differs too.
_NOISE: Final = shown(sha256(b"golden").digest() + sha256(b"files").digest())

Named = tuple[str, str, Case]
#: Where the digest is in the header of a block.
_DIGEST_AT: Final = 56
#: The blocks of one attempt, in the order in which it made them: a name, what it is, and what it is
#: made of beside what all have.
_ATTEMPT: Final[tuple[Named, ...]] = (
    ("lengths", "Two rows of bytes, an empty one and `abc`, behind the table of their lengths.",
     {"partition": "0", "row": "0", "rows": "2", "flags": str(FLAG_LENGTHS),
      "content": "00000000+03000000+616263"}),
    ("opaque", "A run of an engine: 5 rows, and only the engine knows where each ends.",
     {"partition": "1", "row": "0", "rows": "5", "flags": "0",
      "content": "0102030405060708090a0b0c0d0e0f"}),
    ("shrinks", "lz4 makes less of it. It follows the block before: its first row is 5.",
     {"partition": "1", "row": "5", "rows": "2", "flags": "0", "content": "6162*300"}),
    ("longest", "As much content as a block may have.",
     {"partition": "2", "row": "0", "rows": "1000", "flags": "0",
      "content": bytes(range(256)).hex() + f"*{MAX_CONTENT_BYTES // 256}"}),
    ("stays", "lz4 makes more of it, so it is stored as it is, with codec 0.",
     {"partition": "1", "row": "7", "rows": "1", "flags": "0", "content": _NOISE}),
    ("fragment", "The first piece of one long row.",
     {"partition": "3", "row": "0", "fragment": "0", "rows": "0", "flags": str(FLAG_FRAGMENT),
      "content": "66697273742c20"}),
    ("last-fragment", "Its second piece, and the last one.",
     {"partition": "3", "row": "0", "fragment": "1", "rows": "1",
      "flags": str(FLAG_FRAGMENT | FLAG_LAST), "content": "6c617374"}),
    ("counts", "Rows that the fragments before had the bytes of: it only counts them.",
     {"partition": "3", "row": "1", "rows": "41", "flags": "0", "content": "-"}),
)  # fmt: skip
#: Blocks of others, all that they are made of.
_APART: Final[tuple[Named, ...]] = (
    ("plain", "Of an exchange without compression.",
     {"exchange": "1", "mapper": "0", "attempt": "1", "codec": "none", "partition": "0", "row": "0",
      "fragment": "0", "rows": "1", "flags": "0", "content": "61*100"}),
    ("largest", "The largest numbers that all implementations take.",
     {"exchange": str((1 << 63) - 1), "mapper": str((1 << 31) - 1), "attempt": str((1 << 64) - 1),
      "codec": "none", "partition": str((1 << 20) - 1), "row": str((1 << 47) - 8),
      "fragment": "0", "rows": "7", "flags": "0", "content": "ff"}),
    ("far-fragment", "The last fragment that a row may have.",
     {"exchange": "1", "mapper": "0", "attempt": "1", "codec": "none", "partition": "7",
      "row": "12", "fragment": "65535", "rows": "1", "flags": "3", "content": "00"}),
)  # fmt: skip


# --- blocks -----------------------------------------------------------------------------------


def block_of(case: Case) -> bytes:
    """Make the block that a case describes."""
    flags = int(case["flags"])
    header, stored, _ = encode_block(
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
    return header + stored


def _blocks(before: dict[str, Case]) -> tuple[dict[str, Case], dict[str, str]]:
    """Return the cases of blocks, and what each is. before: those that were there."""
    cases: dict[str, Case] = {}
    abouts: dict[str, str] = {}
    common = {"exchange": EXCHANGE, "mapper": MAPPER, "attempt": ATTEMPT, "codec": "lz4"}
    shared = {name: str(value) for name, value in common.items()} | {"fragment": "0"}
    for name, about, given in _ATTEMPT:
        cases[name], abouts[name] = _made(shared | given, before.get(name)), about
    sums = _sums_of(cases.values())
    content = b"".join(np.array(sums[of], "<u8").tobytes() for of in ("rows", "bytes", "digests"))
    mark = {"codec": "none", "partition": "0", "row": "0", "rows": "0", "flags": str(FLAG_MARK)}
    cases["mark"] = _made(shared | mark | {"content": shown(content)}, None)
    abouts["mark"] = (
        f"The mark of the blocks above, for a range of partitions 0 to {PARTITIONS - 1}."
    )
    for name, about, given in _APART:
        cases[name], abouts[name] = _made(given, None), about
    return cases, abouts


def _made(case: Case, before: Case | None) -> Case:
    block = block_of(case)
    header = parse_header(block)
    if before is not None and header.codec == CODEC_LZ4 and is_same(data(before["block"]), block):
        block = data(before["block"])
    end = {"end": str(header.end), "digest": str(header.digest), "block": shown(block)}
    return case | end


def is_same(one: bytes, other: bytes) -> bool:
    """Whether two blocks differ in nothing but in how they are compressed."""
    try:
        headers = parse_header(one), parse_header(other)
        contents = [
            decode_content(header, block[HEADER_BYTES:])
            for header, block in zip(headers, (one, other), strict=True)
        ]
    except DataCorrupted:
        return False
    first, last = (header._replace(crc=0, stored_bytes=0) for header in headers)
    is_whole = all(
        crc32(block[8:]) == h.crc for h, block in zip(headers, (one, other), strict=True)
    )
    return is_whole and first == last and contents[0] == contents[1]


def _sums_of(cases: Iterable[Case]) -> dict[str, list[int]]:
    """Return what blocks add up to, with an entry for each partition."""
    sums = {name: [0] * PARTITIONS for name in ("rows", "bytes", "stored", "digests")}
    for case in cases:
        header = parse_header(data(case["block"]))
        at = header.partition
        sums["rows"][at] += header.rows
        sums["bytes"][at] += header.row_bytes
        sums["stored"][at] += header.block_bytes
        sums["digests"][at] = (sums["digests"][at] + header.digest) % (1 << 64)
    return sums


# --- what is refused --------------------------------------------------------------------------


def _sealed(block: bytes, offset: int, value: int, length: int) -> bytes:
    """Return a block with another number in its header, and the sums of that: so only who looks at
    the number itself has a reason to refuse it."""
    changed = bytearray(block)
    changed[offset : offset + length] = value.to_bytes(length, "little")
    if changed[52] == CODEC_NONE and offset != _DIGEST_AT:
        identity = changed[8:48] + changed[53:54]
        digest: int = xxhash.xxh3_64(bytes(identity + changed[HEADER_BYTES:])).intdigest()
        changed[_DIGEST_AT:HEADER_BYTES] = digest.to_bytes(8, "little")
    changed[4:8] = crc32(bytes(changed[8:])).to_bytes(4, "little")
    return bytes(changed)


def _lz4_block(blocks: dict[str, Case], stored: bytes, content: bytes) -> bytes:
    """Return a block of these stored bytes, with all that it says of them, lawful or not."""
    base = parse_header(data(blocks["opaque"]["block"]))
    raw_bytes, stored_bytes = len(content), len(stored)
    made = base._replace(
        raw_bytes=raw_bytes, stored_bytes=stored_bytes, codec=CODEC_LZ4, flags=0, crc=0
    )
    digest = content_digest(made, content)
    block = bytearray(data(blocks["opaque"]["block"])[:HEADER_BYTES] + stored)
    block[44:53] = struct.pack("<IIB", raw_bytes, stored_bytes, CODEC_LZ4)
    block[_DIGEST_AT:HEADER_BYTES] = digest.to_bytes(8, "little")
    return _sealed(bytes(block), 54, 0, 2)


def _refused(blocks: dict[str, Case]) -> list[Named]:
    opaque, shrinks, fragment, mark = (
        data(blocks[name]["block"]) for name in ("opaque", "shrinks", "fragment", "mark")
    )
    lengths = data(blocks["lengths"]["block"])
    noise, most = data(_NOISE), MAX_CONTENT_BYTES + 1
    # Two sequences of lz4 by hand: a literal, and a long match of what is one byte before; the end.
    zeros = bytes.fromhex("1f000100") + b"\xff" * 4111 + bytes.fromhex("f7500000000000")
    longer = bytes((0xF0, len(noise) - 15)) + noise
    named = (
        ("magic", "Another magic number.", b"CBK2" + opaque[4:]),
        ("cut-header", "Less than a header.", opaque[:63]),
        ("cut-block", "A byte is missing at its end.", opaque[:-1]),
        ("crc", "A bit of what is stored has changed.", opaque[:-1] + bytes((opaque[-1] ^ 1,))),
        ("position", "A position inside a row, without a fragment.", _sealed(opaque, 24, 1, 8)),
        ("no-rows", "No rows, and it is no fragment.", _sealed(opaque, 40, 0, 4)),
        ("row-ids", "Row ids beyond 2^48.", _sealed(opaque, 24, ((1 << 48) - 1) << 16, 8)),
        ("raw-bytes", "A byte more than may be.", _lz4_block(blocks, zeros, bytes(most))),
        ("stored-bytes", "More stored than content.", _lz4_block(blocks, longer, noise)),
        ("codec", "A codec that is not known.", _sealed(opaque, 52, 2, 1)),
        ("last-alone", "The last fragment, and no fragment.", _sealed(opaque, 53, FLAG_LAST, 1)),
        ("flags", "A flag that is not known.", _sealed(opaque, 53, 16, 1)),
        ("zero", "What is zero is not.", _sealed(opaque, 54, 1, 2)),
        ("table", "A table of more lengths than there is content.", _sealed(lengths, 40, 5, 4)),
        ("fragment-rows", "A row ends in a fragment that is not the last.",
         _sealed(fragment, 40, 1, 4)),
        ("mark-rows", "A mark with a row.", _sealed(mark, 40, 1, 4)),
        ("mark-position", "A mark that is not at the beginning.", _sealed(mark, 24, 1 << 16, 8)),
        ("digest", "Another digest than the content's; the checksum is right.",
         _sealed(opaque, _DIGEST_AT, 1, 8)),
        ("raw-length", "It decompresses to more than it says.", _sealed(shrinks, 44, 599, 4)),
        ("lz4", "What is stored is nothing that lz4 has made.",
         _sealed(shrinks[:64] + b"\xff" * (len(shrinks) - 64), 40, 2, 4)),
    )  # fmt: skip
    return [(name, about, {"block": shown(block)}) for name, about, block in named]


# --- frames and segments ----------------------------------------------------------------------


def _frame(blocks: dict[str, Case], names: list[str], sequence: int) -> Case:
    body = b"".join(data(blocks[name]["block"]) for name in names)
    header = FrameHeader(EXCHANGE, INCARNATION, sequence, RANGE, EPOCH, len(body), len(names))
    fields = {name: str(value) for name, value in header._asdict().items()}
    return fields | {"of": listed(names), "header": encode_frame_header(header).hex()}


def _frames(blocks: dict[str, Case]) -> list[Named]:
    every = [name for name, _, _ in _ATTEMPT]
    return [
        ("one", "A frame of one block.", _frame(blocks, ["opaque"], 1)),
        ("several", "All blocks of the attempt.", _frame(blocks, every, 2)),
        ("marked", "A mark comes last.", _frame(blocks, ["lengths", "shrinks", "mark"], 3)),
        ("mark-alone", "A range that got no rows.", _frame(blocks, ["mark"], (1 << 64) - 1)),
    ]


def segment_of(blocks: dict[str, Case], bodies: dict[int, list[str]], id: SegmentId) -> bytes:
    """Make the segment that has chunks of these blocks, by partition."""
    content, index = b"", SegmentIndex()
    for partition, names in bodies.items():
        body = b"".join(data(blocks[name]["block"]) for name in names)
        index.add(partition, len(names), len(content), len(body))
        header = ChunkHeader(
            id.exchange, id.incarnation, len(content), id.range_index, id.epoch,
            partition, len(names), len(body),
        )  # fmt: skip
        chunk = encode_chunk_header(header) + body
        content += chunk.ljust(padded(len(chunk)), b"\0")
    return content + encode_index(id, index, len(content))


def _segments(blocks: dict[str, Case]) -> list[Named]:
    whose = SegmentId(EXCHANGE, RANGE, EPOCH, INCARNATION, 17)
    cases: list[Named] = []
    for name, about, bodies in (
        ("one", "One chunk of one block.", {1: ["opaque"]}),
        ("several", "Chunks of several partitions; one of them is longer than 4,096 bytes.",
         {0: ["lengths"], 1: ["opaque", "shrinks", "stays"], 2: ["longest"],
          3: ["fragment", "last-fragment", "counts"]}),
    ):  # fmt: skip
        segment = segment_of(blocks, bodies, whose)
        file = segment_name(SegmentName(min(bodies), max(bodies), whose.incarnation, whose.serial))
        case = {
            "exchange": str(whose.exchange),
            "range_index": str(whose.range_index),
            "epoch": str(whose.epoch),
            "incarnation": str(whose.incarnation),
            "serial": str(whose.serial),
            "name": file,
            "partitions": listed(bodies),
        }
        case |= {f"of-{partition}": listed(names) for partition, names in bodies.items()}
        case["index-crc"] = str(int.from_bytes(segment[-FOOTER_BYTES:][4:8], "little"))
        cases.append((name, about, case | {"segment": shown(segment)}))
    return cases


# --- sums, arrays and sets --------------------------------------------------------------------


def _arrays() -> list[Named]:
    cases: list[Named] = []
    for name, numbers in {
        "zeros": [0, 0, 0], "width-1": [0, 1, 255], "width-2": [256, 0], "width-2-most": [65535],
        "width-4": [1, 65536], "width-4-most": [(1 << 32) - 1, 0], "width-8": [1 << 32, 7],
        "width-8-most": [(1 << 64) - 1, 1 << 63], "none": [],
    }.items():  # fmt: skip
        array = narrow_bytes(np.array(numbers, np.uint64))
        cases.append((name, "", {"numbers": listed(numbers), "narrow": shown(array)}))
    for name, ascending in {
        "gaps-none": [0, 1, 2, 3], "gaps-first": [7], "gaps-1": [0, 2, 5, 261],
        "gaps-2": [0, 257, 65793], "gaps-4": [3, 1 << 20],
    }.items():  # fmt: skip
        array = gaps_bytes(np.array(ascending, np.uint32))
        cases.append((name, "", {"ascending": listed(ascending), "gaps": shown(array)}))
    return cases


def _bitmaps() -> list[Named]:
    named: tuple[tuple[str, str, Iterable[int]], ...] = (
        ("empty", "No bytes at all.", ()),
        ("one", "", (0,)),
        ("few", "", (1, 7, 65535, 65536)),
        ("run", "0 to 99,999: as runs.", range(100_000)),
        ("dense", "Every third number below 30,000: as bits.", range(0, 30_000, 3)),
        ("far", "The last mapper that there may be.", (5, (1 << 31) - 1)),
    )
    cases: list[Named] = []
    for name, about, numbers in named:
        bitmap = BitMap(numbers)
        given = numbers if isinstance(numbers, range) else None
        what = f"{given.start} {given.stop} {given.step}" if given else ""
        given_as = {"range": what} if given else {"numbers": listed(numbers)}
        cases.append((name, about, given_as | {"bitmap": shown(bitmap_bytes(bitmap))}))
    return cases


def _sums(blocks: dict[str, Case]) -> list[Named]:
    names = [name for name, _, _ in _ATTEMPT]
    sums = _sums_of(blocks[name] for name in names)
    case = {"of": listed(names)} | {name: listed(values) for name, values in sums.items()}
    about = f"By partition, 0 to {PARTITIONS - 1}; `bytes` without the tables of lengths."
    return [("attempt", about, case)]


# --- the files --------------------------------------------------------------------------------


def render(before: dict[str, Case]) -> dict[str, str]:
    """Return the texts of the files. before: the cases of blocks that were there."""
    blocks, abouts = _blocks(before)
    named: dict[str, tuple[str, list[Named]]] = {
        "blocks": (
            "Blocks: cosco/format/block.py. Those up to the mark are of one attempt, in order.",
            [(name, abouts[name], case) for name, case in blocks.items()],
        ),
        "refused": ("What is no block, or not the one that it says.", _refused(blocks)),
        "frames": ("Frames, of blocks in blocks.txt: cosco/format/frame.py.", _frames(blocks)),
        "segments": (
            "Segments, of blocks in blocks.txt: cosco/format/segment.py, cosco/format/chunk.py.",
            _segments(blocks),
        ),
        "sums": ("What blocks add up to, as in a commit.", _sums(blocks)),
        "arrays": ("Arrays of numbers in messages: cosco/protocol/wire/arrays.py.", _arrays()),
        "bitmaps": (
            "Sets in messages. Others may write the same set in other bytes; all are read.",
            _bitmaps(),
        ),
        "messages": (
            "Messages of protos/cosco/v1, and the same as protobuf's text format has them.",
            [(m.case, m.about, m.told()) for m in MESSAGES],
        ),
    }
    return {name: _file(head, cases) for name, (head, cases) in named.items()}


def _file(head: str, cases: list[Named]) -> str:
    parts = [f"# {head}\n# Made by tools/gen_golden.py; how it is read: tests/support/golden.py.\n"]
    for name, about, case in cases:
        told = f"# {about}\n" if about else ""
        lines = "".join(f"{key} {value}\n" for key, value in case.items())
        parts.append(f"{told}case {name}\n{lines}")
    return "\n".join(parts)


def main() -> int:
    """Write the files, or with --check compare them."""
    is_there = (FOLDER / "blocks.txt").exists()
    texts = render(golden("blocks") if is_there else {})
    if "--check" not in sys.argv[1:]:
        for name, text in texts.items():
            (FOLDER / f"{name}.txt").write_text(text)
        return 0
    stale = [name for name, text in texts.items() if (FOLDER / f"{name}.txt").read_text() != text]
    for name in stale:
        print(f"tests/golden/{name}.txt is not current: run `make golden`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
