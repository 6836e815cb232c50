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
    open_files_for,
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


INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "fit"),
    [
        (INFINITE, INFINITE, None, 8192),
        (20_000, 20_000, None, 8192),
        (1024, INFINITE, 17_408, 8192),
        (1024, 524_288, 17_408, 8192),
        (1024, 4096, 4096, 1536),
        (1024, 1024, None, 384),
        (64, 64, None, 24),
        (2, 2, None, 1),
    ],
)
def test_connections_have_the_files_that_they_need_or_are_fewer(
    soft: int, hard: int, raised: int | None, fit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, to: limits.append(to))
    assert open_files_for(8192) == fit
    assert limits[1:] == ([] if raised is None else [(raised, hard)])


def test_files_that_may_not_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert open_files_for(8192) == 384


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
