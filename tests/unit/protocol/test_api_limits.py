from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import (
    MAX_GROUP_EXCHANGES,
    MAX_GROUP_ID_BYTES,
    MAX_SCHEMA_BYTES,
    check_group_spec,
    check_mapper,
    check_owner,
    check_part,
    check_shuffle_id,
    check_spec,
    shown,
    shown_value,
)
from cosco.protocol.group_records import member_name
from cosco.protocol.records import ExchangeSpec


def spec(**changes: Any) -> ExchangeSpec:
    return replace(ExchangeSpec("s", 4), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"shuffle_id": "é" * 512},
        {"partitions": 1 << 20},
        {"replicas": 1, "min_replicas": 1},
        {"replicas": 2, "min_replicas": 2},
        {"codec": "none"},
        {"lease_s": 1.0},
        {"lease_s": 7 * 86400.0},
    ],
)
def test_good_specs_pass(changes: dict[str, Any]) -> None:
    check_spec(spec(**changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"shuffle_id": ""}, "shuffle_id is 0 bytes long"),
        ({"shuffle_id": "é" * 513}, "shuffle_id is 1026 bytes long"),
        ({"shuffle_id": "\ud800"}, "shuffle_id is no text"),
        ({"partitions": 0}, "partitions is 0, it must be 1 to 1048576"),
        ({"partitions": (1 << 20) + 1}, "partitions is 1048577"),
        ({"replicas": 0}, "replicas is 0, it must be 1 to 2"),
        ({"replicas": 3}, "replicas is 3"),
        ({"min_replicas": 0}, "min_replicas is 0"),
        ({"replicas": 1, "min_replicas": 2}, "min_replicas is 2, it must be 1 to 1"),
        ({"codec": "zip"}, "codec is 'zip', it must be one of none, lz4"),
        ({"lease_s": 0.5}, "lease_s is 0.5, it must be 1 to 604800"),
        ({"lease_s": math.inf}, "lease_s is inf"),
        ({"lease_s": math.nan}, "lease_s is nan"),
        ({"mappers": -1}, "mappers is -1, it must be 0 to 2147483648"),
        ({"mappers": (1 << 31) + 1}, "mappers is 2147483649"),
        ({"trace": "00-ab"}, "trace is '00-ab', it must be a traceparent of version 00"),
        ({"schema": bytes(MAX_SCHEMA_BYTES + 1)}, "schema is 8388609 bytes long"),
    ],
)
def test_bad_specs_name_the_option(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgument, match=named):
        check_spec(spec(**changes))


def test_owner_and_mapper() -> None:
    check_owner(bytes(16))
    check_mapper(0)
    check_mapper((1 << 31) - 1)
    with pytest.raises(InvalidArgument, match="owner is 3 bytes long"):
        check_owner(b"abc")
    for mapper in (-1, 1 << 31):
        with pytest.raises(InvalidArgument, match=f"mapper is {mapper}"):
            check_mapper(mapper)


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ((0, 0, 1), "a group of 0 exchanges; give 1 to 1000"),
        ((0, 1001, 1), "a group of 1001 exchanges"),
        (((1 << 31) - 1, 2, 1), "a group of 2147483649 exchanges; it has 2147483648 at most"),
        ((0, 1, 0), "a group of 0 mappers; give 1 to 65536"),
        ((0, 1, 65537), "a group of 65537 mappers"),
    ],
)
def test_bad_parts_of_groups(part: tuple[int, int, int], named: str) -> None:
    check_part(0, 1000, 65536)
    check_part((1 << 31) - 1, 1, 1)
    with pytest.raises(InvalidArgument, match=named):
        check_part(*part)


def test_the_ids_of_a_groups_exchanges_fit() -> None:
    longest = "x" * MAX_GROUP_ID_BYTES
    check_group_spec(spec(shuffle_id=longest))
    check_shuffle_id(member_name(longest, MAX_GROUP_EXCHANGES - 1))
    with pytest.raises(InvalidArgument, match="group_id is 1014 bytes long"):
        check_group_spec(spec(shuffle_id=longest + "x"))
    with pytest.raises(InvalidArgument, match="deterministic=False"):
        check_group_spec(spec(deterministic=False))
    with pytest.raises(InvalidArgument, match="direct_reads=True"):
        check_group_spec(spec(direct_reads=True))


def test_ids_are_shown_short_and_on_one_line() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert len(shown("x" * 1000)) < 110


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_any_value_is_shown_short_and_on_one_line() -> None:
    assert shown_value("a\nb") == r"'a\nb'"
    assert shown_value(["x" * 200]) == "['" + "x" * 98 + "…"
    assert shown_value(Unshowable()) == "a Unshowable"
    assert shown_value(10**5000) == "a int"  # which Python does not write out
