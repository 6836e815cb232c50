"""What decides refuses other threads, and says so: each in a process of its own, as it is checked
for good there."""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cosco import decision_thread
from cosco.mechanics import NATIVE
from cosco.metadata.state.state import MetadataState
from cosco.shuffle_service.state.core import DaemonCore

ROOT = Path(__file__).resolve().parents[2]
BEGIN = """
    import asyncio, logging, threading
    from concurrent.futures import ThreadPoolExecutor
    from cosco.decision_thread import WrongThread, hold_to_this_thread, made_for_it
    from cosco.shuffle_service.state.core import DaemonCore
    logging.basicConfig(format="%(message)s")
    hold_to_this_thread("cosco.shuffle_service.state")
    core = DaemonCore(arena=memoryview(bytearray(1 << 20)), incarnation=1, segment_bytes=1 << 16)
    other = ThreadPoolExecutor(1, thread_name_prefix="another")
    def refused(call):
        try:
            other.submit(call).result()
        except WrongThread as error:
            return str(error)
"""


def ended(code: str, setting: str = "threads") -> subprocess.CompletedProcess[str]:
    """Run a program which has a core, and another thread."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BEGIN) + textwrap.dedent(code)],
        env=os.environ | {decision_thread.ENVIRONMENT: setting},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_a_call_from_an_executor_is_refused_and_logged() -> None:
    done = ended(
        """
        async def main():
            core.changed(1.0)
            try:
                await asyncio.get_running_loop().run_in_executor(other, core.changed, 2.0)
            except WrongThread as error:
                print(error)
        asyncio.run(main())
        """
    )
    assert "DaemonCore.page_queue is used by thread another_0, and MainThread de" in done.stdout
    assert "wrong_thread: DaemonCore" in done.stderr


def test_whatever_another_thread_does_with_it_is_refused() -> None:
    done = ended(
        """
        print(refused(lambda: core.changed))                  # a method
        print(refused(lambda: core.is_pressed))               # a property
        print(refused(lambda: setattr(core, "cluster_id", "x")))
        print(refused(lambda: len(core.replication)))         # of its parts as well
        print(refused(lambda: core))                          # to hold it is no use
        print(core.cluster_id == "")
        """
    )
    assert [line.partition(" ")[0] for line in done.stdout.splitlines()] == [
        "DaemonCore.changed", "DaemonCore.is_pressed", "DaemonCore.cluster_id",
        "DaemonCore.replication", "None", "True",
    ]  # fmt: skip


def test_it_may_be_made_elsewhere_if_that_is_said() -> None:
    done = ended(
        """
        def make():
            return DaemonCore(
                arena=memoryview(bytearray(1 << 20)), incarnation=2, segment_bytes=1 << 16
            )
        def make_for_it():
            with made_for_it():
                return make()
        print(refused(make))
        made = other.submit(make_for_it).result()
        print(made.incarnation, refused(lambda: made.incarnation))
        """
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("DaemonCore.arena is used by thread another_0")
    assert second.startswith("2 DaemonCore.incarnation is used by thread another_0")


@pytest.mark.parametrize("setting", ["", "other"])
def test_nothing_is_wrapped_unless_it_is_asked_for(setting: str) -> None:
    done = ended(
        """
        print(DaemonCore.__getattribute__ is object.__getattribute__)
        print(refused(core.exchanges))
        """,
        setting,
    )
    assert (done.stdout, done.stderr) == ("True\nNone\n", "")


@pytest.mark.parametrize("owner", [DaemonCore, MetadataState])
def test_each_entry_is_a_plain_call(owner: type) -> None:
    """One that waited could find everything changed when it goes on."""
    for name, call in inspect.getmembers(owner, callable):
        assert not inspect.iscoroutinefunction(call), name
        assert not inspect.isasyncgenfunction(call), name


# --- what is native -----------------------------------------------------------------------------


def _uses() -> dict[str, Callable[[], Any]]:
    """Calls of native objects that this thread made."""
    assert NATIVE is not None
    pool, dedupe = NATIVE.PagePool(256 << 10), NATIVE.DedupeIndex()
    buffer = NATIVE.PartitionBuffer((1, 2, 3), 4)
    chunk = NATIVE.Chunk(buffer)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = NATIVE.ServerConnection(ours.fileno(), 1, 1 << 16)  # which copies it
    arena = memoryview(bytearray(256 << 10))
    return {
        "allocate": lambda: pool.allocate(1),
        "free": lambda: pool.free([]),
        "claim": lambda: dedupe.claim((1, 1), 0, 0, 1),
        "knows": lambda: dedupe.knows((1, 1)),
        "oldest": dedupe.oldest,
        "grow": lambda: chunk.grow(pool, 4096, 0),
        "append": lambda: chunk.append(arena, memoryview(b"x")),
        "memory": lambda: chunk.memory(arena, 0, 0),
        "release": lambda: chunk.release(pool),
        "begin_flush": buffer.begin_flush,
        "advance": lambda: connection.advance(True),
        "close": connection.close,
        "wants_connection": NATIVE.ServiceCaller("localhost:1", 1 << 20).wants_connection,
    }


@pytest.mark.skipif(NATIVE is None, reason="needs the native part")
@pytest.mark.parametrize(
    "name",
    [
        "allocate", "free", "claim", "knows", "oldest", "grow", "append", "memory", "release",
        "begin_flush", "advance", "close", "wants_connection",
    ],
)  # fmt: skip
def test_native_objects_refuse_another_thread(name: str) -> None:
    use, told = _uses()[name], []

    def try_it() -> None:
        try:
            use()
        except RuntimeError as error:
            told.append(str(error))

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    assert told == ["it is of the thread that made it, and this is another one"]


@pytest.mark.skipif(NATIVE is None, reason="needs the native part")
def test_what_a_writer_has_takes_one_call_at_a_time() -> None:
    """From any thread, so it needs no owner: a second call is refused while the first one runs."""
    assert NATIVE is not None
    sorter = NATIVE.ColumnSorter(1, 100, [8], (bytes(200), 0, 8, 16, 32))
    told: list[str] = []

    def meanwhile() -> None:
        try:
            sorter.reset(1, 100)
        except RuntimeError as error:
            told.append(str(error))

    class Columns(list[Any]):
        """Columns that are looked at during the call, and then give another one its chance."""

        def __len__(self) -> int:
            thread = threading.Thread(target=meanwhile)
            thread.start()
            thread.join()
            return super().__len__()

    sorter.append_sorted(0, 1, Columns([(None, 0, None, bytes(8))]))
    assert told
    assert set(told) == {"Already borrowed"}
    thread = threading.Thread(target=meanwhile)
    thread.start()
    thread.join()
    assert set(told) == {"Already borrowed"}  # and none is told now, as no call is under way
    assert sorter.drain(0).partition() is None
