"""The golden files of tests/golden, which all implementations of the formats read.

A file has cases, with blank lines between them. A line that begins with `#` is a comment; any other
one is a name, a blank and a value. The first one of a case has the name `case`. Numbers are decimal
and have no sign. Bytes are hexadecimal, in pieces with `+` between them; a piece may be followed by
`*` and how many times it is there; `-` stands for no bytes. Lists have blanks between members, and
`-` stands for an empty one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parents[1] / "golden"

Case = dict[str, str]
#: Of one byte that is there often.
_RUN: Final = re.compile(rb"(.)\1{63,}", re.DOTALL)


def golden(name: str) -> dict[str, Case]:
    """Return the cases of a file, by their names."""
    return parsed((FOLDER / f"{name}.txt").read_text())


def parsed(text: str) -> dict[str, Case]:
    """Return the cases of a text, by their names."""
    cases: dict[str, Case] = {}
    case: Case = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, value = line.partition(" ")
        if name == "case":
            assert value not in cases, value
            case = cases[value] = {}
        assert name not in case, line
        case[name] = value
    return cases


def data(value: str) -> bytes:
    """Return the bytes that a value stands for."""
    if value == "-":
        return b""
    found = b""
    for piece in value.split("+"):
        once, _, times = piece.partition("*")
        found += bytes.fromhex(once) * int(times or "1")
    return found


def shown(content: bytes) -> str:
    """Return the value that stands for these bytes."""
    pieces, end = [], 0
    for run in _RUN.finditer(content):
        if run.start() > end:
            pieces.append(content[end : run.start()].hex())
        pieces.append(f"{run[1].hex()}*{len(run[0])}")
        end = run.end()
    if content[end:]:
        pieces.append(content[end:].hex())
    return "+".join(pieces) or "-"


def members(value: str) -> list[str]:
    """Return the members of a list."""
    return [] if value == "-" else value.split(" ")


def numbers(value: str) -> list[int]:
    """Return the members of a list of numbers."""
    return [int(one) for one in members(value)]


def listed(values: object) -> str:
    """Return the value that stands for a list."""
    assert hasattr(values, "__iter__")
    return " ".join(str(one) for one in values) or "-"
