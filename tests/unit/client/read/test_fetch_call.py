"""The replies of a fetch are taken apart; what is broken in them is told."""

from __future__ import annotations

import pytest

from cosco.client.read.fetch_call import runs_of
from cosco.errors import InvalidArgument
from cosco.format.block import CODEC_NONE, encode_block
from cosco.protocol.wire import spb

pytestmark = pytest.mark.usefixtures("read_mechanics")


def block(row: int, content: bytes = b"content") -> bytes:
    header, stored, _ = encode_block(
        exchange=1, partition=0, mapper=0, attempt=1, first_row=row, rows=1, content=content,
        codec=CODEC_NONE,
    )  # fmt: skip
    return header + stored


ONE, TWO = block(0), block(1)
BROKEN = b"X" * len(ONE)


def section(length: int) -> spb.Section:
    return spb.Section(body_bytes=length)


def take(*replies: spb.Section | bytes) -> tuple[bytes, list[str]]:
    """All runs joined, and what was bad."""
    bad: list[str] = []
    given = (memoryview(r) if isinstance(r, bytes) else r for r in replies)
    return b"".join(runs_of(given, bad.append)), bad


@pytest.mark.parametrize("cut", [1, 63, 64, 70, len(ONE), len(ONE) + 1])
def test_blocks_may_be_cut_anywhere(cut: int) -> None:
    both = ONE + TWO
    assert take(section(len(both)), both[:cut], both[cut:]) == (both, [])


def test_sections_follow_each_other_and_may_be_empty() -> None:
    replies = (section(len(ONE)), ONE, section(0), section(len(TWO)), TWO)
    assert take(*replies) == (ONE + TWO, [])


def test_a_bad_chunk_is_passed_over() -> None:
    found, bad = take(spb.Section(body_bytes=99, error="disk\ngone"), section(len(TWO)), TWO)
    assert (found, bad) == (TWO, ["disk gone"])
    found, bad = take(
        section(len(ONE) + len(BROKEN) + len(TWO)), ONE + BROKEN + TWO, section(len(TWO)), TWO
    )
    assert found.endswith(TWO)
    assert len(bad) == 1
    found, bad = take(section(len(ONE) - 1), ONE[:-1], section(len(TWO)), TWO)
    assert found == TWO
    assert "cut short" in bad[0]


@pytest.mark.parametrize(
    "replies",
    [
        (ONE,),
        (section(len(ONE)), ONE + b"x"),
        (section(len(ONE) + 1), ONE, section(0)),
        (section(len(ONE) + 1), ONE),
        (spb.Section(body_bytes=len(ONE), error="gone"), ONE),
    ],
    ids=["no section", "too long", "next too early", "ends too early", "data of a bad chunk"],
)
def test_replies_that_do_not_fit_are_refused(replies: tuple[spb.Section | bytes, ...]) -> None:
    with pytest.raises(InvalidArgument):
        take(*replies)
