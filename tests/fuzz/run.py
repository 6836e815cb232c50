"""One run: a cluster, an honest job, strange calls beside it, and a look at all of it at times."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

from cosco import LocalCluster

from .honest import ROUND_S, HonestJob
from .own import OwnExchanges
from .plan import Case, case
from .sending import ANSWER_S, Sender
from .watch import MEMORY, ClusterWatch

#: Calls under way at a time.
CALLS: Final = 16
#: All is looked at this often, and what was closed is opened again.
LOOK_S: Final = 1.0
#: What fails stays here.
KEPT: Final = Path(__file__).resolve().parents[2] / ".fuzz"
_SHOWN_BYTES: Final = 100
_OPTIONS: Final = ("--log-format", "json")


@dataclass(slots=True)
class Found:
    """Something that is wrong. calls: those that may have caused it."""

    what: str
    calls: list[Case]


@dataclass(slots=True)
class Report:
    """What a run tells at its end."""

    found: list[Found] = field(default_factory=list)
    calls: int = 0
    left_out: int = 0
    rounds: int = 0
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    memory: str = ""


class Run:
    """The calls of one seed from index `first` on, `count` of them or for `seconds`."""

    def __init__(self, seed: int, seconds: float, first: int, count: int) -> None:
        self._seed = seed
        self._seconds = seconds
        self._indexes: Iterator[int] = (
            iter(range(first, first + count)) if count else itertools.count(first)
        )
        self._recent: deque[Case] = deque(maxlen=2000)
        self._lock = threading.Lock()
        self._working = CALLS
        self._stopping = False
        self._is_done = threading.Event()
        self.report = Report()

    def run(self) -> Report:
        """Return what was found. Ends by itself, with all processes."""
        with LocalCluster(
            2, memory=MEMORY, daemon_options=_OPTIONS, metadata_options=_OPTIONS
        ) as cluster:
            watch = ClusterWatch(cluster)
            honest = HonestJob(cluster.metadata)
            honest.start()
            honest.has_begun.wait(ROUND_S)
            own = OwnExchanges(cluster.metadata)
            try:
                if not honest.problem:
                    self._drive(cluster, watch, honest, own)
            finally:
                own.close()
                honest.stop()
            self._look(watch, honest)
            self.report.rounds = honest.rounds
            self.report.memory = watch.memory()
        return self.report

    def _drive(
        self, cluster: LocalCluster, watch: ClusterWatch, honest: HonestJob, own: OwnExchanges
    ) -> None:
        self._names = own.refresh()
        sender = Sender(cluster.metadata, [daemon.address for daemon in self._names.daemons])
        ends = time.monotonic() + self._seconds
        workers = [
            threading.Thread(target=self._work, args=(sender,), daemon=True) for _ in range(CALLS)
        ]
        for worker in workers:
            worker.start()
        try:
            while not self.report.found and (left_s := ends - time.monotonic()) > 0:
                if self._is_done.wait(min(LOOK_S, left_s)):
                    break
                self._look(watch, honest)
                self._names = own.refresh()
        except grpc.RpcError as error:  # a service that does not answer is a finding
            self._look(watch, honest)
            self._tell(f"the fuzzer's own calls: {type(error).__name__}: {error}")
        finally:
            self._stopping = True
            sender.close()
            for worker in workers:
                worker.join(ANSWER_S)
            self.report.ended = sender.ended

    def _work(self, sender: Sender) -> None:
        try:
            while not self._stopping and (made := self._next()) is not None:
                if wrong := sender.send(made):
                    self.report.found.append(Found(f"{made.method}: {wrong}", [made]))
                    break
        except Exception as error:  # noqa: BLE001  a fuzzer that is broken finds nothing
            self._tell(f"the fuzzer itself: {type(error).__name__}: {error}")
        with self._lock:
            self._working -= 1
            if not self._working or self.report.found:
                self._is_done.set()

    def _next(self) -> Case | None:
        """Return the next call to make; None if there is none."""
        with self._lock:
            for index in self._indexes:
                made = case(self._seed, index, self._names)
                if made is not None:
                    self._recent.append(made)
                    self.report.calls += 1
                    return made
                self.report.left_out += 1
        return None

    def _look(self, watch: ClusterWatch, honest: HonestJob) -> None:
        problems = watch.problems()
        for problem in problems:
            self._tell(problem)
        if honest.problem and not problems:
            self._tell(honest.problem)
        if not problems and not honest.problem:
            with self._lock:
                while len(self._recent) > CALLS:  # which may be under way
                    self._recent.popleft()

    def _tell(self, what: str) -> None:
        if any(found.what == what for found in self.report.found):
            return
        self.report.found.append(Found(what, list(self._recent)))


def tell(report: Report, seed: int, kept: Path) -> None:
    """Print a report. The calls of what was found go to files in `kept`."""
    print(
        f"services      {report.calls:>11} calls, {report.left_out} left out, "
        f"{report.rounds} honest rounds; {report.memory}",
        flush=True,
    )
    for at, found in enumerate(report.found):
        kept.mkdir(exist_ok=True)
        path = kept / f"services-{seed}-{at}.txt"
        path.write_text("".join(map(written, found.calls)))
        print(f"FAILED: {found.what}")
        for call in found.calls[-1:]:
            data = b"".join(call.messages)
            print(f"  the last call: {call.path} {data[:_SHOWN_BYTES].hex()}")
        first = min((call.index for call in found.calls), default=0)
        count = max((call.index for call in found.calls), default=0) - first + 1
        print(f"  the calls, in hexadecimal: {path}")
        print(f"  again with: python -m tests.fuzz --seed {seed} --first {first} --count {count}")


def written(call: Case) -> str:
    """Return a call as a file has it: a line for it, and one for each message."""
    where = "metadata" if call.daemon is None else f"daemon-{call.daemon}"
    lines = [f"{call.index} {call.path} {where} {call.ending.value}"]
    lines += [f"  {message.hex()}" for message in call.messages]
    return "\n".join(lines) + "\n"
