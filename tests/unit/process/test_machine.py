"""The machine a daemon says that it is on."""

from __future__ import annotations

import socket
from pathlib import Path

from cosco.process.machine import BOOT_ID, this_machine

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def test_the_name_that_was_given() -> None:
    assert this_machine("node-7", POD) == ("node-7", "")


def test_a_host_is_known_by_its_name() -> None:
    assert this_machine("", {}) == (socket.gethostname(), "")


def test_two_pods_of_one_machine_are_one_machine(tmp_path: Path) -> None:
    kernel = tmp_path / "boot_id"
    kernel.write_text("d6b5e9a4-1c2d-4e5f-8a9b-000000000000\n")
    first, second = (this_machine("", POD, kernel) for _ in range(2))
    assert first == second
    assert first.host_id == "boot-d6b5e9a41c2d"
    assert "spec.nodeName" in first.doubt


def test_a_pod_whose_machine_is_not_known(tmp_path: Path) -> None:
    found = this_machine("", POD, tmp_path / "none")
    assert found.host_id == socket.gethostname()
    assert "not known" in found.doubt


def test_the_kernel_here_names_its_start() -> None:
    assert BOOT_ID.read_text().strip() == BOOT_ID.read_text().strip() != ""
