"""Whether the processes of a cluster are as they should be: alive, quiet, within their bounds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cosco import LocalCluster
from cosco.local.workers import peak_rss_bytes

from .names import HONEST

MIB: Final = 1 << 20
#: A daemon's page pool.
MEMORY: Final = 64 * MIB
#: What a daemon takes beside its pages, as for tests/integration/test_bounds.py; and the service,
#: which has no pages: its code, what is open, and the longest messages.
DAEMON_BOUND: Final = MEMORY + 150 * MIB
METADATA_BOUND: Final = 300 * MIB
#: What a log may not say.
_BAD_LEVELS: Final = frozenset({"error", "critical"})
_BEGIN, _END = 300, 1700


@dataclass(slots=True)
class _Watched:
    name: str
    pid: int
    log: Path
    bound: int
    read: int = 0


class ClusterWatch:
    """Looks at the processes of a cluster. Its services log JSON."""

    def __init__(self, cluster: LocalCluster) -> None:
        folder = cluster.directory
        self._cluster = cluster
        pid = cluster.metadata_service.pid
        self._all = [_Watched("metadata", pid, folder / "metadata.log", METADATA_BOUND)]
        self._all += [
            _Watched(f"daemon-{at}", daemon.pid, folder / f"daemon-{at}.log", DAEMON_BOUND)
            for at, daemon in enumerate(cluster.daemons)
        ]

    def problems(self) -> list[str]:
        """Return what is wrong, and was not told before."""
        found = []
        for one in self._all:
            found += [f"{one.name} has logged: {shortened(text)}" for text in self._bad_lines(one)]
            if not is_alive(one.pid):
                found.append(f"{one.name} has ended")
            elif (used := peak_rss_bytes(one.pid)) > one.bound:
                found.append(
                    f"{one.name} has taken {used // MIB} MiB, its bound is {one.bound // MIB}"
                )
        return found

    def memory(self) -> str:
        """Return the highest memory of each process so far, for people."""
        return ", ".join(
            f"{one.name} {peak_rss_bytes(one.pid) // MIB} MiB"
            for one in self._all
            if is_alive(one.pid)
        )

    def _bad_lines(self, one: _Watched) -> list[str]:
        with one.log.open("rb") as log:
            log.seek(one.read)
            whole, _, _ = log.read().rpartition(b"\n")  # the last one may be half
        if not whole:
            return []
        one.read += len(whole) + 1
        lines = whole.decode(errors="replace").split("\n")
        return [bad for line in lines if (bad := bad_line(line))]


def bad_line(line: str) -> str:
    """Return what is wrong with a line of a log, for people; empty if nothing is.

    A line that is no object was written past the log, as a traceback, or a panic, is.
    """
    if not line.strip():
        return ""
    try:
        said: Any = json.loads(line)
    except ValueError:
        return line
    if not isinstance(said, dict):
        return line
    if "traceback" in said:
        return f"{said.get('message')}\n{said['traceback']}"
    # Of its exchanges people are told what the fuzzer does to them.
    is_of_fuzzer = "event" in said and not str(said.get("exchange", HONEST)).startswith(HONEST)
    is_bad = said.get("level") in _BAD_LEVELS and not is_of_fuzzer
    return line if is_bad or "failed inside" in line else ""


def shortened(text: str) -> str:
    """Return the beginning and the end of a text: of a traceback, that is what says most."""
    if len(text) <= _BEGIN + _END:
        return text
    return f"{text[:_BEGIN]} … {text[-_END:]}"


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}
