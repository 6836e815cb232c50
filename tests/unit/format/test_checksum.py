"""The fast checksum is zlib's, whose values are in every stored file."""

from __future__ import annotations

import random
import zlib

import pytest

from cosco.format.checksum import crc32


@pytest.mark.parametrize("length", [0, 1, 7, 56, 64, 255, 4096, 5121, 1 << 20])
def test_it_is_the_checksum_of_zlib_in_one_go_and_in_parts(length: int) -> None:
    data = random.Random(length).randbytes(length)
    cut = length // 3
    assert crc32(data) == zlib.crc32(data)
    assert crc32(memoryview(data)[cut:], crc32(bytearray(data[:cut]))) == zlib.crc32(data)
