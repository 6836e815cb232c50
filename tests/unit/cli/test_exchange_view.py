"""Exchanges as text and JSON: every key is documented, and nothing steers a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyroaring import BitMap

from cosco.cli.exchange_view import (
    detail_to_json,
    detail_to_text,
    list_to_json,
    list_to_text,
    picture,
)
from cosco.cli.status import to_json, to_text
from cosco.cli.text_table import printable
from cosco.observe import ClusterStatus
from cosco.protocol.admin_records import (
    DaemonShare,
    ExchangeDetail,
    LossState,
    LossStatus,
    PartitionSize,
    RangeFailure,
    RangeStatus,
)
from cosco.protocol.records import (
    DaemonRef,
    DaemonState,
    DaemonStatus,
    ExchangeStatus,
    PartitionRange,
)

DOCS = Path(__file__).resolve().parents[3] / "docs" / "operating.md"
EVIL = "a\x1b[2J\r\n\x9bb"
STATUS = ExchangeStatus(EVIL, 7, 4, 2, 30, False)
REF = DaemonRef(5, EVIL)
DETAIL = ExchangeDetail(
    status=STATUS,
    group_id=EVIL,
    group_mappers=2,
    application_id=EVIL,
    replicas=2,
    deterministic=False,
    direct_reads=True,
    generation=3,
    largest=(PartitionSize(1, 20, 200), PartitionSize(0, 10, 100)),
    daemons=(DaemonShare(REF, EVIL, DaemonState.DEAD, 1, 2, 3),),
    unusual=(RangeStatus(PartitionRange(0, 0, 2), 4, 2, True, 1, EVIL),),
    losses=(
        LossStatus(1, (), 0, LossState.FAILED, 9, EVIL, EVIL),
        LossStatus(2, (0,), 1, LossState.OPEN, 1, "gone", ""),
    ),
    losses_count=2,
    failures=(RangeFailure(1, "DataCorrupted", EVIL),),
    contradicted=BitMap([4, 5]),
)
CLOSING = ExchangeDetail(
    status=ExchangeStatus(EVIL, 7, 4, 2, 30, True), waiting_for=(f"store {EVIL}",)
)
FINISHED = ExchangeDetail(
    status=ExchangeStatus(EVIL, 7, 4, 2, 30, False, True),
    tenant=EVIL,
    cause=EVIL,
    created_s=1_764_576_000.4,
    closed_s=1_764_576_090.0,
    bytes_raw=300,
    losses_count=2,
    rebuilds=1,
    sizes=(0, 100, 200, 0),
    largest=(PartitionSize(2, 20, 200),),
)
CLUSTER = ClusterStatus(
    "c",
    (DaemonStatus(REF, EVIL, EVIL, DaemonState.SERVING, 8, 4, EVIL, 1, mechanics=EVIL),),
    (STATUS,),
    3,
    2,
)


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        for one in value.values():
            yield from keys(one)
    elif isinstance(value, list):
        for one in value:
            yield from keys(one)


@pytest.mark.parametrize(
    "text",
    [
        detail_to_json(DETAIL),
        detail_to_json(CLOSING),
        detail_to_json(FINISHED),
        list_to_json([STATUS], 9),
        to_json(CLUSTER),
    ],
    ids=["open", "closing", "finished", "list", "status"],
)
def test_every_key_is_documented(text: str) -> None:
    documented = set(re.findall(r"`(\w+)`", DOCS.read_text()))
    assert set(keys(json.loads(text))) <= documented


@pytest.mark.parametrize(
    "text",
    [
        detail_to_text(DETAIL),
        detail_to_text(CLOSING),
        detail_to_text(FINISHED),
        "\n".join(list_to_text([STATUS])),
        to_text(CLUSTER),
        detail_to_json(DETAIL),
    ],
    ids=["open", "closing", "finished", "list", "status", "json"],
)
def test_nothing_steers_a_terminal(text: str) -> None:
    assert all(character.isprintable() for character in text.replace("\n", ""))
    assert "\n[2J" not in text


def test_an_open_exchange_is_told_in_full() -> None:
    text = detail_to_text(DETAIL)
    assert "mappers that committed two different things: 4, 5" in text
    assert re.search(r"^1 +20 +200$", text, re.MULTILINE)
    assert re.search(r"^1 +all +failed +9 ", text, re.MULTILINE)
    found = json.loads(detail_to_json(DETAIL))
    assert [(loss["ranges"], loss["ranges_count"]) for loss in found["losses"]] == [
        ([], 0),
        ([0], 1),
    ]
    assert found["mappers_contradicted"] == [4, 5]
    assert found["direct_reads"] is True
    assert re.search("^readers +read from the store themselves$", text, re.MULTILINE)


def test_status_says_how_many_there_are_beside_the_newest() -> None:
    head = to_text(CLUSTER).splitlines()[0]
    assert head == "cluster c: 1 daemons, 5 exchanges (3 open, 2 closing); the newest 1 of them:"


@pytest.mark.parametrize(("text", "shown"), [("a b", "a b"), ("é", "é"), ("a\tb", "'a\\tb'")])
def test_what_prints_is_left_as_it_is(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_what_has_ended_is_told_as_it_was() -> None:
    text = detail_to_text(FINISHED)
    assert ": finished\n" in text
    assert re.search(r"^created +2025-12-01 08:00:00\+00:00$", text, re.MULTILINE)
    assert re.search(r"^closed +2025-12-01 08:01:30\+00:00 after 90 s, cause: ", text, re.MULTILINE)
    assert re.search(r"^losses +2, 1 ranges written anew$", text, re.MULTILINE)
    assert re.search(r"^2 +20 +200$", text, re.MULTILINE)
    told = json.loads(detail_to_json(FINISHED))
    assert (told["state"], told["closed"]) == ("finished", "2025-12-01 08:01:30+00:00")
    assert told["partition_sizes"] == [0, 100, 200, 0]
    assert "copies" not in told


@pytest.mark.parametrize(
    ("sizes", "bars"),
    [
        ((0, 100, 200, 0), " ▄█   the largest is 2.7 times the mean"),
        ((1, 1000), "▁█  the largest is 2.0 times the mean"),
        ((0, 0), "no rows"),
        ((), "no rows"),
        ((1,) * 255 + (9,), "▁" * 63 + "█  the largest is 8.7 times the mean"),
    ],
)
def test_a_picture_of_sizes_shows_what_is_large(sizes: tuple[int, ...], bars: str) -> None:
    status = replace(STATUS, partitions=len(sizes) or 4)
    detail = replace(DETAIL, status=status, sizes=sizes, bytes_raw=sum(sizes))
    assert picture(detail) == bars
