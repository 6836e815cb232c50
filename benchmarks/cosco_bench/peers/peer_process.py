"""A peer as a program of its own: whether it is there, how it is run, and what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from cosco.errors import CoscoError
from cosco_bench.harness.bench_report import ROOT
from cosco_bench.peers.scratch import Scratch
from cosco_bench.settings import PeerProgram

#: The programs of the peers, in a checkout.
SCRIPTS: Final = ROOT / "benchmarks" / "peers"
#: Where `make peers` puts one environment for each.
ENVIRONMENTS: Final = ROOT / ".peers"
_TAIL_BYTES: Final = 4096


class PeerMissing(CoscoError):
    """A peer is not installed."""


class PeerFailed(CoscoError):
    """A peer ended without a result, or with a wrong one."""


@dataclass(frozen=True, slots=True)
class PeerResult:
    """Seconds of every run on the clock, of the scan alone too, CPU seconds of all processes
    in each, and what came out."""

    seconds: list[float] = field(default_factory=list)
    scan_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    scan_cpu_seconds: list[float] = field(default_factory=list)
    tally: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def find_peer(program: PeerProgram, environments: str | None) -> list[str]:
    """Return the command that runs a peer's program; raises PeerMissing, which says what to do.

    environments: the directory with the environments of peers, None for that of make peers.
    """
    script = SCRIPTS / program.script
    if not script.exists():
        raise PeerMissing("missing: peers are run from a source checkout, where make peers is")
    python = Path(environments or ENVIRONMENTS) / program.environment / "bin" / "python"
    if not python.exists():
        raise PeerMissing(
            f"missing: run make peers, which installs {program.environment} in {python.parents[1]}"
        )
    return [str(python), str(script)]


def run_peer(
    command: list[str],
    options: Mapping[str, int],
    files: Sequence[str],
    scratch: Scratch,
    timeout_s: float,
    on_done: Callable[[int], None],
) -> PeerResult:
    """Run a peer to its end; `on_done` is told 1 for each scan and each shuffle.

    Raises PeerFailed with the peer's own error. Its processes and files are gone then.
    """
    home = scratch.directory / "peer"
    home.mkdir()
    log = home / "log"
    given = [str(part) for option in options.items() for part in option]
    try:
        with (
            _started([*command, *given, *files], scratch, home, log) as (process, events),
            _watched(process, scratch, timeout_s) as late,
        ):
            try:
                return _result(events, scratch.cpu_s, on_done)
            except EOFError:
                if late.is_set():
                    reason = f"it had not ended after {timeout_s:g} s: give it more --timeout-s"
                else:
                    reason = f"it ended with code {process.wait()}: {_last_line(log)}"
                raise PeerFailed(reason) from None
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _started(
    command: list[str], scratch: Scratch, home: Path, log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], IO[str]]]:
    """Start a peer: its process and its events. It alone holds the other end of their pipe."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as events, log.open("wb") as output:
        arguments = [*command, "--events", str(writing), "--scratch", str(home)]
        try:
            process = scratch.spawn(arguments, output, (writing,))
        except OSError as error:
            raise PeerFailed(f"{command[0]} does not start: {error.strerror}") from error
        finally:
            os.close(writing)
        yield process, events


@contextmanager
def _watched(
    process: subprocess.Popen[bytes], scratch: Scratch, timeout_s: float
) -> Iterator[threading.Event]:
    """End what a peer leaves behind, or itself when it is late; yield the event that tells so.

    Its children may hold its end of the pipe: without this nobody would see that it is gone.
    """
    late = threading.Event()

    def watch() -> None:
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            late.set()
        scratch.stop(process)

    watcher = threading.Thread(target=watch, name="cosco-bench-peer", daemon=True)
    watcher.start()
    try:
        yield late
    finally:
        scratch.stop(process)
        watcher.join()


def _result(
    events: IO[str], cpu_s: Callable[[], float], on_done: Callable[[int], None]
) -> PeerResult:
    """Read what the peer says until it has ended. Its processor time is looked up at each event.

    Returns: its result, which it gives last.
    Raises: PeerFailed for its error, EOFError if it ended with neither.
    """
    result = None
    spent: dict[str, list[float]] = {"start": [], "scan": [], "shuffle": []}
    before = 0.0
    for line in events:
        event = json.loads(line)
        if "error" in event:
            raise PeerFailed(event["error"])
        if "result" in event:
            runs = -len(event["result"]["seconds"])
            result = PeerResult(
                **event["result"],
                cpu_seconds=spent["shuffle"][runs:],
                scan_cpu_seconds=spent["scan"][runs:],
            )
        else:
            now = cpu_s()
            spent[event["done"]].append(now - before)
            before = now
            if event["done"] != "start":
                on_done(1)
    if result is None:
        raise EOFError
    return result


def _last_line(log: Path) -> str:
    with log.open("rb") as opened:
        opened.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = opened.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it gave no reason")
