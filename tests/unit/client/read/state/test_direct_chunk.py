"""A reference is believed only where a daemon could not have named anything else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.segments import chunk, path_of

from cosco.client.read.state.direct_chunk import ChunkPlace, DirectFailed, direct_chunk
from cosco.format.chunk import ALIGNMENT
from cosco.format.segment import SegmentId
from cosco.protocol.fetch_records import Reference

PLACE = ChunkPlace(7, 3, 2, 5)
ID = SegmentId(7, 3, 2, 11, 1)
GOOD = Reference("file:///s/" + path_of(ID, 4, 6), path_of(ID, 4, 6), 4 * ALIGNMENT, 1)
BODY = b"x" * 5000


def test_what_a_good_one_means() -> None:
    found = direct_chunk(GOOD, ALIGNMENT, len(BODY), PLACE)
    assert found.file.segment == ID
    assert (found.offset, found.length) == (ALIGNMENT, 64 + len(BODY))
    assert found.padded_bytes == 2 * ALIGNMENT
    found.check_header(memoryview(chunk(ID, 5, ALIGNMENT, BODY)))


def of(**fields: int) -> str:
    return path_of(replace(ID, **fields), 4, 6)


@pytest.mark.parametrize(
    "path",
    [
        of(exchange=8),
        of(range_index=4),
        of(epoch=3),
        path_of(ID, 6, 9),
        path_of(ID, 0, 4),
        path_of(ID, 4, 6).rpartition("/")[2],
        "",
        "c/7/3-2/",
        "c/7/3-2/readme",
        path_of(ID, 4, 6, ".."),
        path_of(ID, 4, 6, ""),
        path_of(ID, 4, 6, "a/b"),
        path_of(ID, 4, 6, "."),
        path_of(ID, 4, 6, "a\0b"),
        path_of(ID, 4, 6, "x" * 65),
        "../" + path_of(ID, 4, 6),
        path_of(ID, 4, 6) + "/x",
        "etc/passwd",
    ],
)
def test_a_file_of_something_else(path: str) -> None:
    with pytest.raises(DirectFailed, match="no segment of what was asked for"):
        direct_chunk(replace(GOOD, path=path), ALIGNMENT, len(BODY), PLACE)


@pytest.mark.parametrize(
    ("offset", "body_bytes", "file_bytes"),
    [
        (1, 10, 4 * ALIGNMENT),
        (0, 0, 4 * ALIGNMENT),
        (0, 10, 4 * ALIGNMENT + 1),
        (0, 3 * ALIGNMENT, 4 * ALIGNMENT),  # no room for an index
        (3 * ALIGNMENT, 10, 4 * ALIGNMENT),
        (1 << 63, 10, 4 * ALIGNMENT),
        (0, 1 << 63, 4 * ALIGNMENT),
        (0, 10, 0),
    ],
)
def test_a_place_where_no_chunk_can_be(offset: int, body_bytes: int, file_bytes: int) -> None:
    with pytest.raises(DirectFailed, match="a chunk was named"):
        direct_chunk(replace(GOOD, file_bytes=file_bytes), offset, body_bytes, PLACE)


@pytest.mark.parametrize("url", ["", "x" * 8193])
def test_a_url_that_is_too_long_or_none(url: str) -> None:
    with pytest.raises(DirectFailed, match="a URL of"):
        direct_chunk(replace(GOOD, url=url), ALIGNMENT, len(BODY), PLACE)


@pytest.mark.parametrize(
    "changed",
    [
        {"exchange": 8},
        {"range_index": 0},
        {"epoch": 1},
        {"incarnation": 12},
        {"partition": 4},
        {"offset": 0},
        {"body": BODY + b"y"},
    ],
)
def test_a_chunk_of_something_else(changed: dict[str, Any]) -> None:
    partition = changed.pop("partition", 5)
    offset = changed.pop("offset", ALIGNMENT)
    body = changed.pop("body", BODY)
    data = memoryview(chunk(replace(ID, **changed), partition, offset, body))
    with pytest.raises(DirectFailed, match="has another chunk at 4096"):
        direct_chunk(GOOD, ALIGNMENT, len(BODY), PLACE).check_header(data)


@pytest.mark.parametrize("bit", range(0, 64 * 8, 7))
def test_a_header_with_a_flipped_bit(bit: int) -> None:
    data = bytearray(chunk(ID, 5, ALIGNMENT, BODY))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DirectFailed):
        direct_chunk(GOOD, ALIGNMENT, len(BODY), PLACE).check_header(memoryview(data))


def test_reasons_name_no_url() -> None:
    with pytest.raises(DirectFailed) as failed:
        direct_chunk(replace(GOOD, url="https://s/?X-Amz-Signature=secret"), 1, 10, PLACE)
    assert "secret" not in str(failed.value)
