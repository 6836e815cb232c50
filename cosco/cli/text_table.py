"""Text for a terminal: what others chose may be any text, and is shown without what steers it."""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: str) -> str:
    """Return a text as it is, or quoted and escaped if it has characters that do not print."""
    return text if text.isprintable() else repr(text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, an empty one before it; none if it has no rows."""
    if not rows:
        return []
    shown = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in shown) for i in range(len(head))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    )
    return ["", *lines]
