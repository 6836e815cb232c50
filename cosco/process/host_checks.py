"""What a service's host is short of, or reachable under: for warnings when it starts."""

from __future__ import annotations

import ipaddress
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cosco.config import parse_address

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")
#: A daemon has a descriptor for each connection, and each call of its store under way.
_MIN_OPEN_FILES: Final = 1024
#: What a connection of the native server takes of them: one is Python's, and one the transport's.
_FILES_PER_CONNECTION: Final = 2
#: What stays for all else: files of the store, connections to others, the database.
_OTHER_FILES: Final = 1024


def memory_warnings(memory_bytes: int) -> Iterator[str]:
    """Yield what is wrong with reserving this much memory."""
    for limit_bytes, whose in ((_ram_bytes(), "the machine has"), (_cgroup_bytes(), "its cgroup")):
        if limit_bytes is not None and memory_bytes > limit_bytes:
            allows = whose if whose.endswith("has") else f"{whose} allows"
            yield (
                f"--memory is {memory_bytes} bytes, more than {allows} ({limit_bytes}): the kernel "
                "will kill the daemon when they are used; give it less"
            )


def open_files_warnings() -> Iterator[str]:
    """Yield what is wrong with the number of files that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _MIN_OPEN_FILES:
        yield (
            f"only {soft} files may be open at a time: connections beyond that fail; raise it, "
            "with ulimit -n or LimitNOFILE="
        )


def open_files_for(connections: int) -> int:
    """Let this process open the files that connections need, as far as it may.

    Returns: how many connections there may be, which are no more than was asked for. A share of the
    files, a quarter at most, stays for all else.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections * _FILES_PER_CONNECTION + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    if hard == resource.RLIM_INFINITY or soft < hard:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        except (OSError, ValueError):  # something else forbids it
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = soft - min(_OTHER_FILES, soft // 4)
    return max(1, min(connections, free // _FILES_PER_CONNECTION))


def address_warnings(address: str, metadata: str) -> Iterator[str]:
    """Yield what is wrong with being registered at `address` with the service at `metadata`."""
    if _is_loopback(address) and not _is_loopback(metadata):
        yield (
            f"this daemon is registered at {address}, which only this host can reach, and the "
            f"metadata service at {metadata} may be another: give an address of the network with "
            "--listen or --advertise"
        )


def name_warnings(address: str) -> Iterator[str]:
    """Yield why others may not find `address`; looks it up, which may take a while."""
    host, _ = parse_address(address)
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        yield (
            f"this daemon is registered at {address}, which cannot be looked up here "
            f"({error.strerror}): see that others can, or correct --advertise"
        )


def is_name(address: str) -> bool:
    """Whether the host of an address is a name, rather than numbers."""
    try:
        ipaddress.ip_address(parse_address(address)[0])
    except ValueError:
        return True
    return False


def _is_loopback(address: str) -> bool:
    host, _ = parse_address(address)
    if is_name(address):
        return host.lower().rstrip(".") == "localhost"
    return ipaddress.ip_address(host).is_loopback


def _ram_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup_bytes() -> int | None:
    """Return the least limit of the cgroups that this process is in, if there is one."""
    limits = []
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, kinds, path = line.split(":", 2)
        name = "memory.max" if not kinds else "memory/memory.limit_in_bytes"
        if kinds and "memory" not in kinds.split(","):
            continue
        root, file = (_CGROUPS / name).parent, Path(name).name
        folder = root / path.lstrip("/")
        # In a container the path may be that of the host, and the limit lies at the root.
        for one in (folder, *folder.parents):
            try:
                text = (one / file).read_text().strip()
            except OSError:
                text = ""
            if text.isdigit():
                limits.append(int(text))
            if one == root:
                break
    return min(limits, default=None)
