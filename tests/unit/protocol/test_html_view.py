"""What notebooks show: every text is escaped, and pictures show what is large."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from cosco.protocol.html_view import facts, rows, size, sizes_picture
from cosco.protocol.records import Commit

EVIL = '</td><script>alert("&")</script>'


def parsed(html: str) -> ET.Element:
    """HTML that is whole, and has nothing that runs."""
    found = ET.fromstring(html)
    assert not [one for one in found.iter() if one.tag == "script"]
    return found


@pytest.mark.parametrize(
    "html", [facts(EVIL, {EVIL: EVIL}), rows(EVIL, [EVIL, "b"], [(EVIL, EVIL)])]
)
def test_every_text_is_escaped(html: str) -> None:
    texts = [one.text for one in parsed(html).iter() if one.tag in ("strong", "th", "td")]
    assert texts.count(EVIL) == len(texts) - (1 if "b" in texts else 0)
    assert len(texts) > 2


@pytest.mark.parametrize("partitions", [1, 3, 128, 129, 5000])
def test_bars_show_a_large_partition(partitions: int) -> None:
    sizes = np.ones(partitions, dtype=np.uint64)
    sizes[-1] = 1 << 20
    picture = parsed(f"<div>{sizes_picture(sizes)}</div>")
    heights = [float(one.attrib["height"]) for one in picture.iter("rect")]
    assert len(heights) <= 128
    assert max(heights) == heights[-1] == 48
    assert sum(height > 1 for height in heights) == 1
    label = picture.find("svg").attrib["aria-label"]  # type: ignore[union-attr]
    assert label.startswith(f"{partitions} partitions; the largest has 1.00 MiB, ")


def test_without_bytes_there_is_no_picture() -> None:
    assert sizes_picture(np.zeros(4, dtype=np.uint64)) == ""
    assert sizes_picture(np.zeros(0, dtype=np.uint64)) == ""


def test_a_commit_says_whether_it_counts() -> None:
    by_partition = np.array([3, 1], dtype=np.uint64)
    for won, said in ((True, "which counts"), (False, "another attempt has committed before")):
        commit = Commit(5, 7, won, 1, 4000, 4, by_partition, by_partition)
        text = re.sub(r"<[^>]*>", " ", commit._repr_html_())
        assert said in text
        assert "4,000" in text
        parsed(commit._repr_html_())


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "0.98 KiB"), (4 << 20, "4.00 MiB"), (10_430, "10.2 KiB"),
     (1023 * 1024, "1.00 MiB"), (5 << 60, "5120 PiB")],
)  # fmt: skip
def test_sizes_have_three_digits(count: float, text: str) -> None:
    assert size(count) == text
