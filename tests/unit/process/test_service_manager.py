"""What systemd is told, at a real socket."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosco.process.service_manager import VARIABLES, ServiceManager, service_manager

PID = 4711


@pytest.fixture(params=["path", "abstract"])
def manager_socket(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[socket.socket, str]]:
    """A manager's socket, and what NOTIFY_SOCKET says of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(5)
        if request.param == "path":
            name = address = str(tmp_path / "notify")
        else:
            name, address = (f"{first}cosco-{uuid.uuid4()}" for first in "@\0")
            name = "@" + address[1:]
        listening.bind(address)
        yield listening, name


def test_states_arrive(manager_socket: tuple[socket.socket, str]) -> None:
    listening, name = manager_socket
    manager = ServiceManager({"NOTIFY_SOCKET": name}, PID)
    for say, state in (
        (manager.ready, b"READY=1"),
        (manager.alive, b"WATCHDOG=1"),
        (manager.stopping, b"STOPPING=1"),
    ):
        say()
        assert listening.recv(100) == state


@pytest.mark.parametrize("name", ["", "relative", "/no/such/socket", "@nobody-listens"])
def test_nobody_there_harms_nothing(name: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": name}, PID)
    manager.ready()
    manager.stopping()


def test_a_manager_that_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")}, PID)
        for _ in range(10_000):
            manager.alive()


@pytest.mark.parametrize(
    ("more", "every_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(PID)}, 1.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_signs_of_life(more: dict[str, str], every_s: float | None) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": "/x", **more}, PID).watchdog_s == every_s
    assert ServiceManager(more, PID).watchdog_s is None


def test_what_is_started_in_turn_is_not_known_to_the_manager() -> None:
    environment = dict.fromkeys(VARIABLES, "1") | {"PATH": os.defpath}
    service_manager(environment)
    assert environment == {"PATH": os.defpath}
