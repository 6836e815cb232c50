"""Cursors come back as they were given, and others are refused."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.errors import InvalidArgument
from cosco.metadata.http.paging import MAX_CURSOR, cursor_after, number_after, text_after
from cosco.protocol.api_limits import MAX_SHUFFLE_ID_BYTES


@given(st.integers(0, (1 << 64) - 1))
def test_numbers_come_back(number: int) -> None:
    assert number_after("daemons", cursor_after("daemons", number)) == number


@given(st.text(max_size=50))
def test_texts_come_back(text: str) -> None:
    assert text_after("groups", cursor_after("groups", text)) == text


def test_the_longest_fits() -> None:
    assert len(cursor_after("groups", "x" * MAX_SHUFFLE_ID_BYTES)) <= MAX_CURSOR


def coded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "zz", "daemons:1", "ä", "=", "a", coded("exchanges:1"), coded("daemons"), coded("daemons:"),
        coded("daemons:-1"), coded("daemons:1.5"), coded("daemons:٣"), coded("daemons:" + "9" * 20),
        coded("daemons:" + "9" * 5000), "\x00", base64.urlsafe_b64encode(b"daemons:\xff").decode(),
    ],
)  # fmt: skip
def test_what_is_no_cursor_of_the_list_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidArgument, match="none of this list of daemons"):
        number_after("daemons", cursor)


@given(st.text(max_size=60))
def test_nothing_else_is_raised(cursor: str) -> None:
    for parse in (number_after, text_after):
        with contextlib.suppress(InvalidArgument):
            parse("daemons", cursor)
