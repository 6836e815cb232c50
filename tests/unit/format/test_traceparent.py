"""What is a traceparent, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.format.traceparent import SpanPlace, format_traceparent, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_the_example_of_the_specification() -> None:
    place = parse_traceparent(GOOD)
    assert place == SpanPlace(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, 1)
    assert place.is_sampled
    assert format_traceparent(place) == GOOD
    assert len(GOOD) == 55


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("fe", False)])
def test_bit_0_says_whether_the_span_is_kept(flags: str, sampled: bool) -> None:
    place = parse_traceparent(f"00-{TRACE}-{SPAN}-{flags}")
    assert place is not None
    assert place.is_sampled is sampled
    assert format_traceparent(place) == f"00-{TRACE}-{SPAN}-0{int(sampled)}"


@given(
    st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.sampled_from([0, 1])
)  # fmt: skip
def test_what_is_written_is_read(trace_id: int, span_id: int, flags: int) -> None:
    place = SpanPlace(trace_id, span_id, flags)
    assert parse_traceparent(format_traceparent(place)) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        GOOD + "-00",
        GOOD + "\n",
        " " + GOOD,
        GOOD[:-1],
        GOOD.upper(),
        GOOD.replace("-", "_"),
        f"ff-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE[:-2]}+1-{SPAN}-01",
        f"00-{TRACE[:-2]}_1-{SPAN}-01",
        f"00-{TRACE[:-1]}\N{ARABIC-INDIC DIGIT ONE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0\N{FULLWIDTH DIGIT ONE}",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE}-{SPAN}-0F",
        f"00-{TRACE}-{SPAN.upper()}-01",
        "00-" + "a" * 1_000_000,
    ],
)
def test_what_is_not_exactly_like_it_is_none(text: str) -> None:
    assert parse_traceparent(text) is None


@given(st.text(max_size=60))
def test_no_text_raises(text: str) -> None:
    assert parse_traceparent(text) is None
