"""Counts the files of Cosco that one row enters between `collect` and `row()`.

`python -m tests.trace_row` runs a metadata service and two daemons on an event loop of this
process, makes an exchange with one copy of each row and one with two, opens a writer and a reader
of each, and then notes which files of the product are entered, in whatever thread, from the call
of `collect` until `row()` has returned the row. How long the way of a row is, in files, says how
much one has to read to follow it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

import cosco
from cosco import CoscoExchange, CoscoReader, CoscoWriter
from cosco.config import DaemonConfig, MetadataConfig
from cosco.metadata.server import serve as serve_metadata
from cosco.shuffle_service.server import serve as serve_daemon

PRODUCT = Path(cosco.__file__).parent
ROW = b"one small row"
#: Nothing that happens by the clock is to happen meanwhile.
_NEVER_S = 3600.0
_START_TIMEOUT_S = 30.0


class Recorder:
    """Notes the files of the product in which functions are called while it is on."""

    def __init__(self) -> None:
        self.files: set[Path] = set()
        self.is_on = False
        self._prefix = f"{PRODUCT}/"

    @contextmanager
    def installed(self) -> Iterator[None]:
        """See the calls of this thread and of threads that start in the block."""
        threading.setprofile(self._called)
        sys.setprofile(self._called)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        if self.is_on and event == "call":
            code = frame.f_code
            # Modules that are imported late are entered when something in them is called.
            if code.co_filename.startswith(self._prefix) and code.co_name != "<module>":
                self.files.add(Path(code.co_filename).relative_to(PRODUCT))


class Services:
    """Services on an event loop of a thread of this process; stopped in reverse order."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="services")
        self._running: list[tuple[Future[None], asyncio.Event]] = []

    def start(self, serve: Callable[..., Coroutine[Any, Any, None]], config: Any) -> str:
        """Start one; the address on which it serves."""
        address: Future[str] = Future()
        stop = asyncio.Event()
        events: dict[str, Any] = {"stop": stop}
        if isinstance(config, DaemonConfig):  # which need not drain
            events |= {"stop_now": stop, "drained": lambda: None}
        running = asyncio.run_coroutine_threadsafe(
            serve(config, ready=address.set_result, **events), self._loop
        )
        self._running.append((running, stop))
        running.add_done_callback(lambda ended: _failed(ended, address))
        return address.result(_START_TIMEOUT_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for running, stop in reversed(self._running):
            self._loop.call_soon_threadsafe(stop.set)
            running.result(_START_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _failed(ended: Future[None], address: Future[str]) -> None:
    """Say why a service has ended to who waits for its address."""
    if not address.done():
        address.set_exception(ended.exception() or RuntimeError("it ended at once"))


def start_all(services: Services, directory: str) -> str:
    """Start a metadata service, whose address is returned, and two daemons."""
    metadata = services.start(
        serve_metadata,
        MetadataConfig(
            listen="127.0.0.1:0",
            store=f"sqlite:///{directory}/metadata.db",
            daemon_lease_s=_NEVER_S,
            http="",
        ),
    )
    for host in ("a", "b"):
        config = DaemonConfig(
            metadata=metadata,
            store=f"file://{directory}/store",
            memory=16 << 20,
            host_id=host,
            metrics="",
            heartbeat_s=_NEVER_S / 3,
            sweep_s=_NEVER_S,
        )
        services.start(serve_daemon, config)
    return metadata


def send_row(metadata: str, replicas: int, recorder: Recorder) -> None:
    """One row through an exchange of its own, with the recorder on from `collect` to `row()`."""
    name = f"row-{replicas}"
    with (
        CoscoExchange(name, 1, replicas=replicas, metadata=metadata),
        CoscoWriter(name, 0, metadata=metadata) as writer,
        CoscoReader(name, [0], 0, metadata=metadata) as reader,
    ):
        recorder.is_on = True
        try:
            writer.collect(0, ROW)
            writer.close()
            assert reader.next()
            assert reader.row() == ROW
        finally:
            recorder.is_on = False


def trace() -> set[Path]:
    """The files, relative to the package, that rows of one copy and of two enter."""
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as directory:
        with recorder.installed(), Services() as services:
            metadata = start_all(services, directory)
            for replicas in (1, 2):
                send_row(metadata, replicas, recorder)
    return recorder.files


def describe(files: set[Path]) -> str:
    """The files by folder, and how many there are."""
    folders: defaultdict[Path, list[str]] = defaultdict(list)
    for file in sorted(files):
        folders[file.parent].append(file.stem)
    width = max(len(str(folder)) for folder in folders)
    lines = [
        f"{folder!s:{width}}  {len(stems):3}  {' '.join(stems)}"
        for folder, stems in sorted(folders.items())
    ]
    total = f"{len(files)} files in {len(folders)} folders"
    return "\n".join((*lines, total))


if __name__ == "__main__":
    logging.disable()  # a daemon that stops before its replica says so
    print(describe(trace()))
