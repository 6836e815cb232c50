"""How much slower commits are while people look at the dashboard of a large cluster.

    python tests/web/commits_while_watched.py [--watchers 2] [--rounds 12] [--round-s 2]

A service with 10,000 open exchanges and 1,000 daemons takes attempts and commits of one caller, one
after the other, in turns with and without people who look: each listens to what is live, and asks
for what the dashboard's pages do once a second, from a process of their own. It prints the times of
a commit, in ms, and the ratio of each pair of turns. On an idle machine.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np

_ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(_ROOT / "tests"))

from support.committing import sums_of  # noqa: E402  found by the line above
from support.http_client import Web  # noqa: E402
from support.raw_push import RawMetadata  # noqa: E402

from cosco.protocol import wire  # noqa: E402
from cosco.protocol.records import CommitRequest, OpenedAttempt, pairs_array  # noqa: E402
from cosco.protocol.wire import mpb  # noqa: E402

_PAGES: Final = (
    "cluster",
    "daemons?order=memory_used_bytes&limit=8",
    "daemons?order=write_bytes&limit=25",
    "exchanges?limit=50",
    "exchanges/job-050%2Fstage-50",
    "events?limit=50",
)
_EXCHANGE: Final = "job-000/stage-00"
_WARM_UP: Final = 200


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--watchers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--round-s", type=float, default=2.0)
    parser.add_argument("--watch", help="a URL: look at it until stdin ends")
    given = parser.parse_args()
    if given.watch:
        watch(given.watch, given.watchers)
        return
    with many_things() as (url, address):
        commits = Commits(address)
        for _ in range(_WARM_UP):
            commits.one()
        ratios, alone_ms, watched_ms = [], [], []
        for _ in range(given.rounds):
            alone = commits.median_ms(given.round_s)
            with watchers(url, given.watchers):
                watched = commits.median_ms(given.round_s)
            alone_ms.append(alone)
            watched_ms.append(watched)
            ratios.append(watched / alone)
    print(f"a commit alone {statistics.median(alone_ms):.3f} ms")
    print(f"with {given.watchers} who look {statistics.median(watched_ms):.3f} ms")
    shown = ", ".join(f"{ratio:.3f}" for ratio in sorted(ratios))
    print(f"ratio {statistics.median(ratios):.3f} ({shown})")


class Commits:
    """Attempts of new mappers of one exchange, and their commits."""

    def __init__(self, address: str) -> None:
        self._raw = RawMetadata(address)

    def one(self) -> float:
        """Return how long a commit took, in ms."""
        reply = self._raw.call("OpenAttempt", mpb.OpenAttemptRequest(shuffle_id=_EXCHANGE))
        opened = wire.from_pb(OpenedAttempt, reply)
        epochs = [(one.range_index, one.epoch) for one in opened.info.assignments]
        partitions = opened.info.spec.partitions
        request = CommitRequest(
            opened.info.number,
            opened.mapper,
            opened.attempt,
            opened.info.generation,
            pairs_array(epochs),
            sums_of(dict.fromkeys(range(partitions), 10)),
        )
        began = time.perf_counter()
        won = self._raw.call("Commit", wire.to_pb(request)).won
        took_ms = 1000 * (time.perf_counter() - began)
        assert won
        return took_ms

    def median_ms(self, for_s: float) -> float:
        """Return the median of all that can be made in a time."""
        until = time.monotonic() + for_s
        taken = []
        while time.monotonic() < until:
            taken.append(self.one())
        return float(np.median(taken))


@contextmanager
def many_things() -> Iterator[tuple[str, str]]:
    """Run the large cluster's service; gives its URL and its address."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, _ROOT / "tests/web/many_things.py", directory]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            url, address = process.stdout.readline().split()
            web = Web(url)
            while True:  # an answer leaves once all that came before it is durable
                with suppress(TimeoutError):
                    web.get("cluster")
                    break
            yield url, address
            process.stdin.close()


@contextmanager
def watchers(url: str, count: int) -> Iterator[None]:
    """People who look, in another process; they have all that they see first."""
    command = [sys.executable, __file__, "--watch", url, "--watchers", str(count)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "looking\n"
        yield
        process.stdin.close()


def watch(url: str, count: int) -> None:
    """Look at all pages once, say so, and go on until stdin ends."""
    stop = threading.Event()
    web = Web(url)

    def look() -> None:
        while not stop.wait(1.0):
            for path in _PAGES:
                web.get(path)

    def listen() -> None:
        connection = http.client.HTTPConnection(*web.address, timeout=30.0)
        connection.request("GET", "/api/v1/live")
        reply = connection.getresponse()
        while not stop.is_set():
            reply.readline()
        connection.close()

    for path in _PAGES:
        web.get(path)
    for step in (look, listen):
        for _ in range(count):
            threading.Thread(target=step, daemon=True).start()
    print("looking", flush=True)
    sys.stdin.read()
    stop.set()


if __name__ == "__main__":
    main()
