"""What notebooks show of results and objects: plain HTML, in which every text is escaped.

It has no colours of its own but greys that are read on light and on dark, and nothing that runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

import numpy as np
import numpy.typing as npt

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_BARS_MAX: Final = 128
_WIDTH: Final = 384
_HEIGHT: Final = 48
_CELL: Final = "text-align:left;padding:0 1em 0 0"


def facts(title: str, about: Mapping[str, str], picture: str = "") -> str:
    """Return a title, a table of names and what they are, and a picture, which is HTML."""
    rows = "".join(
        f'<tr><th scope="row" style="{_CELL}">{escape(name)}</th>'
        f'<td style="{_CELL}">{escape(value)}</td></tr>'
        for name, value in about.items()
    )
    return f"<div><strong>{escape(title)}</strong><table>{rows}</table>{picture}</div>"


def rows(title: str, head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return a title and a table with a head."""
    top = "".join(f'<th scope="col" style="{_CELL}">{escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(cell)}</td>' for cell in row) + "</tr>"
        for row in cells
    )
    return (
        f"<div><strong>{escape(title)}</strong><table><thead><tr>{top}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def sizes_picture(partition_bytes: npt.NDArray[np.uint64]) -> str:
    """Return bars that show how partitions differ, with the same in words; none without bytes.

    Each is the largest of some that follow each other, where they are many.
    """
    if not partition_bytes.any():
        return ""
    largest = largest_of_runs(partition_bytes, _BARS_MAX)
    top = int(largest.max())
    width = _WIDTH / len(largest)
    bars = "".join(
        f'<rect x="{at * width:.2f}" y="{_HEIGHT - high:.1f}" width="{width * 0.8:.2f}" '
        f'height="{high:.1f}"/>'
        for at, high in enumerate(_HEIGHT * int(one) / top for one in largest)
    )
    words = (
        f"{len(partition_bytes)} partitions; the largest has {size(top)}, "
        f"{top / float(partition_bytes.mean()):.1f} times the mean"
    )
    return (
        f'<svg role="img" aria-label="{escape(words)}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" fill="#808080">{bars}</svg><div>{escape(words)}</div>'
    )


def largest_of_runs(partition_bytes: npt.NDArray[np.uint64], most: int) -> npt.NDArray[np.uint64]:
    """Return at most `most` figures: the largest of some that follow each other, as many each but
    for the last ones, so that skew is not averaged away; each one, where they are few.

    partition_bytes: one at least.
    """
    each = -(-len(partition_bytes) // most)
    return np.maximum.reduceat(partition_bytes, np.arange(0, len(partition_bytes), each))


def size(count: float) -> str:
    """Return bytes as people read them, with three digits: 4.19 MiB."""
    unit = 0
    while count >= 999.5 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    digits = 0 if not unit or count >= 99.95 else 1 if count >= 9.995 else 2
    return f"{count:.{digits}f} {_UNITS[unit]}"
