"""Which implementation reads in a test: Python's, or the native part's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from cosco.client.content import byte_rows
from cosco.client.read.state import block_count, block_splitter, merge
from cosco.mechanics import NATIVE

#: Those there are here.
IMPLEMENTATIONS: Final = ("portable",) if NATIVE is None else ("portable", "native")


@contextmanager
def reading_by(implementation: str) -> Iterator[None]:
    """Have readers that begin within use it, and what tests of their parts call."""
    with pytest.MonkeyPatch.context() as patch:
        if implementation == "portable":
            patch.setattr(merge, "COUNTING", block_count)
            patch.setattr(block_splitter, "WHOLE_BLOCKS", block_splitter.whole_blocks)
            patch.setattr(byte_rows, "JOIN_ROWS", byte_rows.join_rows)
            patch.setattr(byte_rows, "SPLIT_ROWS", byte_rows.split_rows)
        else:
            assert NATIVE is not None
            patch.setattr(merge, "COUNTING", NATIVE)
            patch.setattr(block_splitter, "WHOLE_BLOCKS", NATIVE.whole_blocks)
            patch.setattr(byte_rows, "JOIN_ROWS", NATIVE.join_rows)
            patch.setattr(byte_rows, "SPLIT_ROWS", NATIVE.split_rows)
        yield
