"""What a daemon warns of, by the limits of its host."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from cosco.process import host_checks
from cosco.process.host_checks import (
    address_warnings,
    is_name,
    memory_warnings,
    name_warnings,
    open_files_warnings,
)


def test_memory_that_the_machine_does_not_have() -> None:
    [warning] = [one for one in memory_warnings(1 << 60) if "machine" in one]
    assert warning.startswith(f"--memory is {1 << 60} bytes, more than the machine has (")
    assert not list(memory_warnings(1 << 20))


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/pod/daemon", "pod/daemon/memory.max"),
        ("0::/pod/daemon", "pod/memory.max"),
        ("0::/of/the/host", "memory.max"),
        ("4:cpu,memory:/pod", "memory/pod/memory.limit_in_bytes"),
        ("4:memory:/of/the/host", "memory/memory.limit_in_bytes"),
    ],
)
def test_memory_that_its_cgroup_does_not_have(
    line: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = tmp_path / "groups"
    limit = groups / file
    limit.parent.mkdir(parents=True)
    limit.write_text("67108864\n")
    own = tmp_path / "own"
    own.write_text(f"1:cpuset:/x\n{line}\n")
    monkeypatch.setattr(host_checks, "_CGROUPS", groups)
    monkeypatch.setattr(host_checks, "_OWN_CGROUPS", own)
    [warning] = memory_warnings((64 << 20) + 1)
    assert "more than its cgroup allows (67108864)" in warning
    assert not list(memory_warnings(64 << 20))
    limit.write_text("max\n")
    assert not list(memory_warnings(65 << 20))
    own.unlink()
    assert not list(memory_warnings(65 << 20))


def test_few_files_that_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    [warning] = open_files_warnings()
    assert "only 256 files" in warning
    assert "ulimit -n" in warning
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert not list(open_files_warnings())


@pytest.mark.parametrize("address", ["127.0.0.1:7071", "[::1]:7071", "localhost:7071"])
@pytest.mark.parametrize("metadata", ["10.0.0.1:7070", "metadata.cluster:7070"])
def test_a_loopback_address_for_a_service_elsewhere(address: str, metadata: str) -> None:
    [warning] = address_warnings(address, metadata)
    assert f"registered at {address}, which only this host can reach" in warning
    assert not list(address_warnings(address, "127.0.0.1:7070"))
    assert not list(address_warnings("10.0.0.2:7071", metadata))


def test_a_name_that_cannot_be_looked_up() -> None:
    [warning] = name_warnings("no-such-host.invalid:7071")
    assert "which cannot be looked up here" in warning
    assert not list(name_warnings("127.0.0.1:7071"))
    assert [is_name(one) for one in ("host:1", "127.0.0.1:1", "[::1]:1")] == [True, False, False]
