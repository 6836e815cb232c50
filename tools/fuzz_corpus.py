"""What fuzz targets begin with: inputs made of real formats, by the code that writes them.

What an input of a target is stands in its file, `native/fuzz/src/bin`. Numbers are little-endian,
and a piece is bytes behind their length of 16 bits (`native/fuzz/src/input.rs`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa

from cosco.format.block import CODEC_LZ4, CODEC_NONE, encode_block
from cosco.format.frame import FrameHeader, encode_frame_header
from cosco.protocol.mark import Mark, encode_mark
from cosco.protocol.records import PartitionRange

_ROWS: Final = (b"abc" * 20, b"", b"a longer row, " * 9)
_TABLE: Final = struct.pack("<3I", *map(len, _ROWS)) + b"".join(_ROWS)
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Heads as HPACK has them without its tables.
_REQUEST: Final = b"\x83\x86\x04\x04/a/b\x01\x01h\x0f\x10\x10application/grpc"
_ANSWER: Final = b"\x88\x0f\x10\x10application/grpc"
_TRAILERS: Final = b"\x00\x0bgrpc-status\x010"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8


def seeds(target: str) -> list[bytes]:
    """Return inputs for a target to begin with; none for one that is not known here."""
    return _SEEDS[target]() if target in _SEEDS else []


def _piece(data: bytes) -> bytes:
    return len(data).to_bytes(2, "little") + data


# --- blocks and frames ------------------------------------------------------------------------


def _block(mapper: int, partition: int, first_row: int, *, codec: int = CODEC_LZ4) -> bytes:
    header, stored, _ = encode_block(
        exchange=9, partition=partition, mapper=mapper, attempt=1, first_row=first_row,
        rows=len(_ROWS), content=_TABLE, codec=codec, lengths=True,
    )  # fmt: skip
    return header + stored


def _fragment() -> bytes:
    header, stored, _ = encode_block(
        exchange=9, partition=5, mapper=0, attempt=1, first_row=7, rows=0, content=b"part" * 40,
        codec=CODEC_NONE, fragment=1,
    )  # fmt: skip
    return header + stored


def _mark() -> bytes:
    mark = Mark(mapper=0, attempt=1, sums=np.arange(6, dtype="<u8").reshape(3, 2))
    header, stored = encode_mark(mark, 9, PartitionRange(0, 5, 2))
    return header + stored


def _frame(*blocks: bytes) -> bytes:
    body = b"".join(blocks)
    header = FrameHeader(
        exchange=9, incarnation=11, sequence=1, range_index=0, epoch=1,
        body_bytes=len(body), blocks=len(blocks),
    )  # fmt: skip
    return encode_frame_header(header) + body


def _blocks() -> list[bytes]:
    return [_block(0, 5, 0), _block(2, 5, 0, codec=CODEC_NONE), _block(0, 5, 3), _fragment()]


def _frames() -> list[bytes]:
    few = [_block(0, 5, 0), _block(0, 5, 3), _block(0, 6, 0)]
    marked = [few[0], few[2], _mark()]
    return [_frame(*few), _frame(*marked), _frame(*reversed(marked)), _frame(_fragment())]


def _long_frames() -> bytes:
    blocks = [bytes([row % 2, row, 0]) + struct.pack("<H", 5000) for row in range(4)]
    frame = b"\xfe\3" + b"".join(blocks)
    return frame + b"\xfe\3" + b"".join(reversed(blocks)) + b"\1\0" + frame


def _compressed() -> list[bytes]:
    stored = [one[64:] for one in _blocks()]
    return [len(_TABLE).to_bytes(2, "little") + one for one in stored]


def _contents() -> list[bytes]:
    rows = bytes([len(_ROWS) << 2 | 1]) + _piece(_TABLE)
    return [rows, rows + bytes([1 << 2]) + _piece(b"a row of its own")]


# --- rows of a caller -------------------------------------------------------------------------


def _row_batches() -> list[bytes]:
    offsets, data = pa.array(_ROWS, pa.binary()).buffers()[1:]
    run = _piece(offsets.to_pybytes()[:16]) + _piece(data.to_pybytes())
    begin = bytes([4]) + struct.pack("<H", 1000)
    added = bytes([2 << 3]) + run + _piece(bytes([1, 0, 1]))  # offsets of 4 bytes, partitions of 1
    of_one = bytes([3 | 2 << 3]) + run + bytes([2])
    return [begin + added, begin + added + of_one + added]


def _column_batches() -> list[bytes]:
    numbers = pa.array([1, None, 3], pa.int64()).buffers()
    texts = pa.array(["a", "bcd", None]).buffers()
    fixed = bytes([1]) + _piece(numbers[0].to_pybytes()) + _piece(numbers[1].to_pybytes()[:24])
    text = bytes([1]) + _piece(texts[0].to_pybytes()) + _piece(texts[1].to_pybytes()[:16])
    text += _piece(texts[2].to_pybytes())
    begin = bytes([3, 1, 6, 1]) + bytes(9)  # four partitions; two columns, of 8 bytes and of text
    batch = bytes([2]) + fixed + text + _piece(bytes([3, 0, 3]))
    return [begin + batch, begin + batch + bytes([4 | 1]) + fixed + text + b"\1" + _piece(bytes(6))]


# --- HTTP/2 and gRPC --------------------------------------------------------------------------


def _http2(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def _message(content: bytes) -> bytes:
    return b"\0" + len(content).to_bytes(4, "big") + content


def _said(data: bytes) -> bytes:
    """A step of the other end of a server: bytes as they are."""
    return b"\x03" + _piece(data)


def _requests() -> list[bytes]:
    begin = _PREFACE + _http2(_SETTINGS, 0, 0, b"\0\4\0\0\xff\xff")
    call = _http2(_HEADERS, 4, 1, _REQUEST) + _http2(_DATA, 1, 1, _message(b"a question"))
    others = _http2(_WINDOW, 0, 0, b"\0\1\0\0") + _http2(_PING, 0, 0, bytes(8))
    ends = _http2(_RESET, 0, 1, b"\0\0\0\x08") + _http2(_GO_AWAY, 0, 0, bytes(8))
    ask, answer, finish = bytes([10, 0, 0]), bytes([12, 0, 4]), bytes([13, 0, 0])
    large = bytes([4, 1, 0, 6, 1, 2, 3])  # a byte more than is small
    allow = bytes([11, 0, 64])
    return [
        b"\0" + _said(begin + call) + ask + answer + finish,
        b"\0" + _said(begin + call + others) + ask + _said(ends),
        b"\1" + large + ask + allow + ask + finish,
        b"\1" + bytes([4, 1, 1]) + bytes([14, 0, 0]) + bytes([9, 8, 7]),
    ]


def _answers() -> list[bytes]:
    begin = _http2(_SETTINGS, 0, 0) + _http2(_SETTINGS, 1, 0)
    head, tail = _http2(_HEADERS, 4, 1, _ANSWER), _http2(_HEADERS, 5, 1, _TRAILERS)
    reply = head + _http2(_DATA, 0, 1, _message(b"an answer")) + tail
    reply_that_fails = head + _http2(_DATA, 0, 1, _message(b"an answer"))
    flood = bytes([9, 1]), b"\2"  # between them: 1 for what is allowed, 2 for a byte more
    says, ask, take = b"\x04", bytes([14, 0, 0]), bytes([15, 0, 0])
    begun = says + _piece(begin) + says
    gone = _http2(_GO_AWAY, 0, 0, bytes(8))
    return [
        b"\1" + begun + _piece(reply) + ask + take,
        b"\0" + begun[:-1] + ask + says + _piece(reply) + take + bytes([17, 0, 0]),
        b"\0" + begun + _piece(head) + ask + b"\1".join(flood) + take,
        b"\0" + begun + _piece(head) + ask + b"\2".join(flood) + take,
        b"\1" + begun + _piece(reply_that_fails) + bytes([8, 129]) + take,
        b"\1" + begun + _piece(gone) + b"\x0b\x0b",
    ]


def _headers() -> list[bytes]:
    ok = struct.pack("<H", 200)
    error = b"\0" + _piece(b"13") + b"\1" + _piece(b"two%0Alines") + b"\3" + _piece(b"Zm8=")
    return [
        ok + b"\2" + _piece(b"application/grpc"),
        ok + error + b"\4" + _piece(b"x") + _piece(b"y"),
    ]


def _records() -> list[bytes]:
    """Steps of a stranger, who has made the handshake or has not."""
    call = b"\6\0\2" + b"\5" + _piece(_http2(_DATA, 1, 1, _message(b"a question"))) + b"\2\x09"
    new_keys, goodbye, changed = b"\7\x28\2", b"\x08\2", b"\6\2\3\x30\0\1"
    record = b"\1\3\x20\0" + _piece(bytes(32))
    hello = b"\2\x09\2\x09\2"
    steps = [call + new_keys + goodbye, call * 3 + record, changed, call + b"\x0a\x09\x0b"]
    return [b"\1" + one for one in steps] + [b"\0" + hello + call, b"\0" + record]


_SEEDS: Final[dict[str, Callable[[], list[bytes]]]] = {
    "block": lambda: [control + one for one in [*_blocks(), _mark()] for control in (b"\0", b"\1")],
    "caller": _answers,
    "client": _answers,
    "column_sorter": _column_batches,
    "frame": lambda: [control + one for one in _frames() for control in (b"\0", b"\1")],
    "intake": lambda: [b"\0" + b"\0".join(map(_piece, _frames())) + b"\1\0", _long_frames()],
    "intervals": lambda: [bytes(range(40)), bytes(range(80, 0, -1))],
    "lz4": _compressed,
    "merge": lambda: [control + b"".join(_blocks()) for control in (b"\0", b"\1", b"\xff")],
    "messages": lambda: [b"\2" + _message(b"abc") + _message(b"") + _message(b"0123456789")],
    "row_sorter": _row_batches,
    "rows": _contents,
    "server": _requests,
    "tls_records": _records,
    "trailers": _headers,
}
