"""A metadata service with 1,000 daemons and 10,000 open exchanges, that nobody had to start.

    python tests/web/many_things.py DIRECTORY

It prints the URL of its HTTP, and its address. Daemons have heartbeats, and each time they have
done more. For each line that it reads it prints for how many milliseconds of processor time one
thing of the event loop has held up all others since the line before, at most, and what that was.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from cosco.config import MetadataConfig
from cosco.decision_thread import hold_to_this_thread
from cosco.metadata.http_choice import Http
from cosco.metadata.server import MetadataService
from cosco.metadata.state.state import MetadataState
from cosco.metadata.store.database import open_database
from cosco.protocol.daemon_figures import DaemonFigures
from cosco.protocol.records import DaemonHeartbeat, DaemonRegistration, ExchangeSpec

DAEMONS: Final = 1000
EXCHANGES: Final = 10_000
MEMORY_BYTES: Final = 8 << 30
#: Daemons that are heard together, ten times a second.
_AT_ONCE: Final = DAEMONS // 10
#: Daemons that exchanges are placed on.
_FIRST: Final = 20
_OWNER: Final = b"o" * 16


class Longest:
    """The longest time that one callback of the loop took, of the processor's."""

    def __init__(self) -> None:
        self.held_s, self.what = 0.0, ""
        run = asyncio.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            what = handle._callback  # which is forgotten if it is cancelled
            began = time.thread_time()
            run(handle)
            held_s = time.thread_time() - began
            if held_s > self.held_s:
                self.held_s, self.what = held_s, str(what)[:300]

        asyncio.Handle._run = timed  # type: ignore[method-assign]

    def pop(self) -> str:
        found = f"{1000 * self.held_s:.1f} {self.what}"
        self.held_s, self.what = 0.0, ""
        return found


class Filled(MetadataService):
    """A service that begins with all this, as if it had been told of it."""

    async def _restored(self) -> MetadataState:
        state = await super()._restored()
        now = time.monotonic()
        # Exchanges come when there are few daemons, as it takes long to choose among many.
        for n in range(1, DAEMONS + 1):
            if n == _FIRST:
                self._create(state, now)
            address = f"rack-{n % 40:02d}-host-{n:04d}.example:7071"
            state.register(
                DaemonRegistration(n, address, f"host-{n}", "shared", MEMORY_BYTES, MEMORY_BYTES),
                now,
            )
        self.state = state
        return state

    @staticmethod
    def _create(state: MetadataState, now: float) -> None:
        for n in range(EXCHANGES):
            spec = ExchangeSpec(f"job-{n // 100:03d}/stage-{n % 100:02d}", 8, replicas=2)
            state.create_exchange(spec, _OWNER, now, used=False)

    def _open_http(self) -> Http | None:
        self.http = super()._open_http()
        return self.http


async def beat(state: MetadataState) -> None:
    """Have each daemon tell once a second what it has done."""
    for turn, first in _turns():
        for n in range(first + 1, first + _AT_ONCE + 1):
            state.heartbeat(_heartbeat(n, turn), time.monotonic())
        await asyncio.sleep(0.1)


def _turns() -> Iterator[tuple[int, int]]:
    turn = 0
    while True:
        turn += 1
        for first in range(0, DAEMONS, _AT_ONCE):
            yield turn, first


def _heartbeat(n: int, turn: int) -> DaemonHeartbeat:
    used = MEMORY_BYTES // 8 * (1 + (n + turn) % 6)
    done = DaemonFigures(
        bytes_received=turn * n << 14,
        writes=turn * 3,
        write_bytes=turn * n << 14,
        reads=turn * 2,
        read_bytes=turn * n << 13,
        bytes_fetched=turn * n << 13,
        waited_s=turn * 0.001,
    )
    here = replace(done, pages_used_bytes=used, copies_bytes=used // 3, push_streams=n % 17)
    return DaemonHeartbeat(n, MEMORY_BYTES - used, figures=here)


async def main(directory: str) -> None:
    longest = Longest()
    config = MetadataConfig(
        listen="127.0.0.1:0",
        http="127.0.0.1:0",
        store=f"sqlite:///{directory}/many.db",
        daemon_lease_s=3600.0,
    )
    hold_to_this_thread("cosco.metadata.state")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []
    async with open_database(f"{directory}/many.db") as database:
        service = Filled(config, database)

        async def ask() -> None:
            while await asyncio.to_thread(sys.stdin.readline):
                print(longest.pop(), flush=True)
            stop.set()

        def ready(address: str) -> None:
            assert service.http is not None
            print(service.http.url, address, flush=True)
            tasks.extend((loop.create_task(beat(service.state)), loop.create_task(ask())))

        await service.run(ready, stop)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
