"""What the options of services come to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cosco.config import (
    DaemonConfig,
    MetadataConfig,
    parse_address,
    parse_reserve,
    parse_size,
    parse_tiers,
)
from cosco.errors import InvalidArgument

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("memory", "limit"),
    [(24 * MIB, 2 * MIB), (240 * MIB, 20 * MIB), (GIB, 64 * MIB), (64 * GIB, 64 * MIB)],
)
def test_segments_follow_the_memory(memory: int, limit: int) -> None:
    config = DaemonConfig(memory=memory)
    config.validate()
    assert config.segment_limit_bytes == limit


def test_a_given_size_of_segments_is_kept() -> None:
    config = DaemonConfig(memory=256 * MIB, segment_bytes=64 * KIB)
    config.validate()
    assert config.segment_limit_bytes == 64 * KIB


@pytest.mark.parametrize(
    ("name", "value"),
    [("segment_bytes", 63 * KIB), ("segment_bytes", 65 * MIB), ("store_idle_s", -1.0)],
)
def test_what_makes_no_sense_is_refused(name: str, value: float) -> None:
    options = {"memory": 256 * MIB, name: value}
    with pytest.raises(InvalidArgument, match="--" + name.replace("_", "-")):
        DaemonConfig(**options).validate()  # type: ignore[arg-type]


def test_processes_share_the_memory_and_count_ports_up() -> None:
    config = DaemonConfig(
        processes=3, memory=100 * MIB, listen="[::1]:7071", advertise="node:7071", metrics=""
    )
    config.validate()
    found = [config.of_process(index) for index in range(3)]
    assert [one.listen for one in found] == ["[::1]:7071", "[::1]:7072", "[::1]:7073"]
    assert [one.advertise for one in found] == ["node:7071", "node:7072", "node:7073"]
    assert {(one.metrics, one.memory, one.processes) for one in found} == {("", 100 * MIB // 3, 1)}
    for one in found:
        one.validate()
    free = DaemonConfig(processes=2, listen="127.0.0.1:0", metrics="127.0.0.1:9000").of_process(1)
    assert (free.listen, free.advertise, free.metrics) == ("127.0.0.1:0", "", "127.0.0.1:9001")


@pytest.mark.parametrize(
    ("listen", "metrics", "found"),
    [
        ("127.0.0.1:7070", "auto", "127.0.0.1:8070"),
        ("[::1]:7070", "auto", "[::1]:8070"),
        ("127.0.0.1:0", "auto", "127.0.0.1:0"),
        ("127.0.0.1:7070", "0.0.0.0:9", "0.0.0.0:9"),
        ("127.0.0.1:7070", "", ""),
    ],
)
def test_where_metrics_are(listen: str, metrics: str, found: str) -> None:
    for config in (
        MetadataConfig(listen=listen, metrics=metrics),
        DaemonConfig(listen=listen, metrics=metrics),
    ):
        config.validate()
        assert config.metrics_listen == found


def test_metrics_of_processes_count_up_with_their_ports() -> None:
    config = DaemonConfig(processes=2, memory=64 * MIB, listen="127.0.0.1:7071")
    found = [config.of_process(index) for index in range(2)]
    assert [one.metrics for one in found] == ["127.0.0.1:8071", "127.0.0.1:8072"]
    # A port that was picked for the daemon, over its restarts, picks none for metrics.
    free = DaemonConfig(processes=2, listen="127.0.0.1:0").of_process(1)
    assert replace(free, listen="127.0.0.1:65000").metrics_listen == "127.0.0.1:0"


@pytest.mark.parametrize("listen", ["127.0.0.1:64536", "[::1]:65535"])
def test_metrics_beyond_the_last_port_are_refused(listen: str) -> None:
    for config in (MetadataConfig(listen=listen), DaemonConfig(listen=listen)):
        with pytest.raises(InvalidArgument, match="--metrics auto"):
            config.validate()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"processes": 0}, "--processes is 0"),
        ({"processes": 5, "memory": 64 * MIB}, "--memory .* for each of --processes 5"),
        ({"memory": 15 * MIB}, "--memory is 15728640, it must be at least 16777216$"),
        ({"processes": 2, "listen": "a:65535"}, "--listen a:65535: ports of 2 processes"),
        ({"processes": 2, "metrics": "a:65535"}, "--metrics"),
        ({"processes": 2, "advertise": "a:65535"}, "--advertise"),
        ({"processes": 4, "segment_bytes": 20 * MIB, "memory": 256 * MIB}, "of a process"),
    ],
)
def test_what_does_not_suit_all_processes_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        DaemonConfig(**options).validate()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("host:7070", ("host", 7070)),
        ("[::1]:0", ("::1", 0)),
        ("ü.example:65535", ("ü.example", 65535)),
    ],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert parse_address(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", ":1", "host:65536", "host:" + "9" * 5000, "host:²", "host:٣", "host:-1",
     "ho st:1", "ho\nst:1", "ho\0st:1", "\ud800:1", "host: 1", "x" * 5000],
    ids=range(15),
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"is no address: .*write host:port") as caught:
        parse_address(text)
    assert len(str(caught.value)) < 800
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), (" 1.5 KiB ", 1536), ("9" * 20, 10**20), ("2GB", 2 * 10**9)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1e9", "1 EiB", "9" * 21, "9" * 5000 + "GB", "٣x"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no size: write for example") as caught:
        parse_size(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("store", "found"),
    [
        ("memory://", ("memory://",)),
        ("file:///a file:///b", ("file:///a", "file:///b")),
        ("file:///a,file:///b\n\tfile:///c", ("file:///a", "file:///b", "file:///c")),
        ("file:///a b,c ,d", ("file:///a b,c ,d",)),  # one, whose name is odd
        ("x:1", ("x:1",)),
    ],
)
def test_stores_have_blanks_or_commas_between(store: str, found: tuple[str, ...]) -> None:
    assert DaemonConfig(store=store).stores == found


@pytest.mark.parametrize(
    ("reserve", "found"),
    [("0", (0, 0.0)), ("10GiB", (10 * GIB, 0.0)), ("5%", (0, 0.05)), (" 2.5 % ", (0, 0.025))],
)
def test_a_reserve_is_a_size_or_a_share(reserve: str, found: tuple[int, float]) -> None:
    size_bytes, share = parse_reserve(reserve)
    assert (size_bytes, share) == (found[0], pytest.approx(found[1]))
    DaemonConfig(store="file:///a", store_reserve=reserve).validate()


@pytest.mark.parametrize("reserve", ["", "x", "-1", "100%", "999%", "5 % of it", "%"])
def test_a_reserve_that_makes_no_sense_is_refused(reserve: str) -> None:
    with pytest.raises(InvalidArgument):
        DaemonConfig(store="file:///a", store_reserve=reserve).validate()


def test_directories_share_the_memory_of_writes() -> None:
    one = DaemonConfig(store="file:///a", memory=240 * MIB)
    two = DaemonConfig(store="file:///a file:///b", memory=240 * MIB)
    assert (one.writers, two.writers) == (3, 6)
    assert two.segment_limit_bytes * two.writers == one.segment_limit_bytes * one.writers
    assert (one.has_directories, two.has_directories) == (False, True)


@pytest.mark.parametrize(
    ("store", "flash", "then"),
    [
        ("flash=file:///nvme,then=s3://b/p?region=x", "file:///nvme", "s3://b/p?region=x"),
        (
            " flash=file:///nvme?fsync=false, then=file:///d ",
            "file:///nvme?fsync=false",
            "file:///d",
        ),
    ],
)
def test_two_tiers(store: str, flash: str, then: str) -> None:
    config = DaemonConfig(store=store, store_reserve="5%")
    config.validate()
    assert config.tiers is not None
    assert (config.tiers.flash, config.tiers.then) == (flash, then)
    assert (config.has_directories, config.writers) == (False, 3)


@pytest.mark.parametrize("store", ["file:///a", "file:///then=x", "s3://b/flash=1", "memory://"])
def test_other_stores_are_no_tiers(store: str) -> None:
    assert parse_tiers(store) is None


def test_processes_have_a_folder_each_on_flash() -> None:
    store = "flash=file:///nvme/?fsync=false,then=file:///d"
    config = DaemonConfig(store=store, processes=2, memory=64 * MIB)
    config.validate()
    folders = [config.of_process(index).store for index in range(2)]
    assert folders == [
        f"flash=file:///nvme/daemon-{n}?fsync=false,then=file:///d" for n in range(2)
    ]
    assert DaemonConfig(store=store).of_process(0).store == store


def test_a_secret_in_the_url_of_a_tier_is_not_repeated() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_tiers("flash=s3://user:hidden@b/p,then=file:///d")
    assert "hidden" not in str(caught.value)
