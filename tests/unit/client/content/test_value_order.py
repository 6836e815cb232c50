from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from cosco.client.content.value_order import NoOrder, value_order


def parts(*dictionaries: str, pick: str | None = None) -> Any:
    """Parts of ordered dictionaries of letters: those in `pick`, or all."""
    rows = [
        {"value": letter, "position": position, "origin": origin}
        for origin, letters in enumerate(dictionaries)
        for position, letter in enumerate(letters)
        if pick is None or letter in pick
    ]
    kind = pa.struct([("value", pa.string()), ("position", pa.int32()), ("origin", pa.int64())])
    return pa.array(rows, kind)


def order(rows: Any, *, force: bool = False) -> str:
    chosen, ranks = value_order(rows, force=force)
    values = rows.field(0).to_pylist()
    found = "".join(values[i] for i in chosen.tolist())
    assert [found[rank] for rank in ranks.tolist()] == values
    return found


def test_parts_of_one_dictionary_keep_its_order() -> None:
    assert order(parts("bca")) == "bca"
    assert order(parts("fedcba", pick="bdf").take([2, 0, 1])) == "fdb"
    assert order(parts("aba")) == "aba"  # nobody forbids it


def test_the_same_place_in_different_dictionaries_is_enough() -> None:
    assert order(parts("abc", "abcd", pick="ad")) == "ad"


@pytest.mark.parametrize(
    "dictionaries", [("ac", "bc"), ("abd", "acd"), ("ab", "bc", "cd"), ("xbz", "abc")]
)
def test_dictionaries_that_agree_have_one_order(dictionaries: tuple[str, ...]) -> None:
    found = order(parts(*dictionaries))
    assert sorted(found) == sorted(set("".join(dictionaries)))
    for letters in dictionaries:
        assert sorted(letters, key=found.index) == list(letters)


@pytest.mark.parametrize("dictionaries", [("ab", "ba"), ("ab", "bc", "ca"), ("aba", "xy")])
def test_dictionaries_that_contradict_each_other_have_none(dictionaries: tuple[str, ...]) -> None:
    with pytest.raises(NoOrder, match="contradict"):
        order(parts(*dictionaries))
    assert sorted(order(parts(*dictionaries), force=True)) == sorted(set("".join(dictionaries)))
