"""What the fuzz targets of Python's parsers hold: of real inputs, of damaged ones, and of breaks.

`make fuzz-parsers` looks for more, guided by coverage; here the targets themselves are tested.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
from fuzz.parsers import access_checks, content_checks, format_checks, message_checks
from fuzz.parsers.seeds import SEEDS
from fuzz.parsers.targets import TARGETS
from google.protobuf.message import DecodeError

from cosco.mechanics import NATIVE
from cosco.protocol.wire import arrays
from cosco.protocol.wire import fields as wire_fields

MODULES = (access_checks, content_checks, format_checks, message_checks)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Change, cut or lengthen some of the bytes."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(4):
            case 0:
                out[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                out[at : at + 4] = struct.pack("<I", chance.choice((0, 1, 65_536, 2**32 - 1)))
            case 2:
                del out[at : at + chance.randint(1, 9)]
            case _:
                out[at:at] = chance.randbytes(chance.randint(1, 9))
    return bytes(out)


def test_every_target_has_inputs_to_begin_with() -> None:
    assert list(SEEDS) == list(TARGETS) == sorted(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_what_it_begins_with_comes_through_and_is_compared(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input that is refused at once would leave the fuzzer before the first check."""
    compared: list[str] = []

    def must_agree(one: object, other: object, what: str) -> None:
        compared.append(what)
        assert one == other, what

    for module in MODULES:
        monkeypatch.setattr(module, "must_agree", must_agree, raising=False)
    for data in SEEDS[name]():
        TARGETS[name](data)
    # An answer of HTTP has nothing to be compared with, nor has a count where it has no twin.
    assert compared or name == "http" or (name == "reading" and NATIVE is None)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_taken_or_refused(name: str) -> None:
    chance = random.Random(f"damage of {name}")
    inputs = SEEDS[name]()
    for _ in range(200):
        TARGETS[name](damaged(chance.choice(inputs), chance))
    TARGETS[name](b"")


def unchecked_length(data: bytes, offset: int) -> memoryview:
    """Return what `last_body` does, and look at no length."""
    return memoryview(data)[wire_fields.varint(data, offset)[1] :]


def unbounded_set(data: bytes, what: str) -> Any:
    """Return what `partitions_from_bytes` does, and look at no bound."""
    return arrays._bitmap(data, what)


def other_error(*_: object) -> Any:
    raise IndexError("an error that no caller expects")


@pytest.mark.parametrize(
    ("name", "place", "attribute", "broken", "data"),
    [
        (
            "push_request", "cosco.protocol.wire.bulk", "last_body", unchecked_length,
            lambda: SEEDS["push_request"]()[1] + b"x",
        ),
        (
            "bitmap", "cosco.protocol.wire.arrays", "partitions_from_bytes", unbounded_set,
            lambda: SEEDS["bitmap"]()[3],
        ),
        (
            "block", "fuzz.parsers.format_checks", "decode_content", other_error,
            lambda: SEEDS["block"]()[0],
        ),
    ],
    ids=["a length that is not checked", "a bound that is missing", "another error"],
)  # fmt: skip
def test_a_broken_parser_is_noticed(
    name: str,
    place: str,
    attribute: str,
    broken: Callable[..., Any],
    data: Callable[[], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = data()
    TARGETS[name](given)
    monkeypatch.setattr(f"{place}.{attribute}", broken)
    with pytest.raises((AssertionError, IndexError, DecodeError)):
        TARGETS[name](given)
