"""What becomes of files in a store: each is done to one of them."""

from __future__ import annotations

import os
from pathlib import Path

from cosco.format.chunk import CHUNK_HEADER_BYTES


def delete(file: Path) -> None:
    file.unlink()


def cut_short(file: Path) -> None:
    """Amid its first block, however little the file has."""
    os.truncate(file, CHUNK_HEADER_BYTES + 200)


def flip(file: Path) -> None:
    """One bit, in the content of a block."""
    with file.open("r+b") as opened:
        opened.seek(CHUNK_HEADER_BYTES + 200)
        [byte] = opened.read(1)
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 4]))
