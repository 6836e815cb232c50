"""What the daemon's options come to."""

from __future__ import annotations

from typing import Any

import pytest

from cosco.config import DaemonConfig
from cosco.errors import InvalidArgument

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("memory", "limit"),
    [(16 * MIB, MIB), (256 * MIB, 16 * MIB), (GIB, 64 * MIB), (64 * GIB, 64 * MIB)],
)
def test_chunks_follow_the_memory(memory: int, limit: int) -> None:
    config = DaemonConfig(memory=memory)
    config.validate()
    assert config.chunk_limit_bytes == limit


def test_a_given_size_of_chunks_is_kept() -> None:
    config = DaemonConfig(memory=256 * MIB, chunk_bytes=64 * KIB)
    config.validate()
    assert config.chunk_limit_bytes == 64 * KIB


@pytest.mark.parametrize(
    ("name", "value"),
    [("chunk_bytes", 63 * KIB), ("chunk_bytes", 65 * MIB), ("store_idle_s", -1.0)],
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
    ("options", "said"),
    [
        ({"processes": 0}, "--processes is 0"),
        ({"processes": 5, "memory": 64 * MIB}, "--memory .* for each of --processes 5"),
        ({"memory": 15 * MIB}, "--memory is 15728640, it must be at least 16777216$"),
        ({"processes": 2, "listen": "a:65535"}, "--listen a:65535: ports of 2 processes"),
        ({"processes": 2, "metrics": "a:65535"}, "--metrics"),
        ({"processes": 2, "advertise": "a:65535"}, "--advertise"),
        ({"processes": 4, "chunk_bytes": 20 * MIB, "memory": 256 * MIB}, "of a process"),
    ],
)
def test_what_does_not_suit_all_processes_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        DaemonConfig(**options).validate()
