"""Whether a process of ours keeps the large blocks that it frees, and when it must not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: Frees 40 MiB in blocks, and tells how many pages the kernel gives for as many again.
_FAULTS = """
import resource
{first}

def touch():
    return [b"x" * (1 << 20) for _ in range(40)]

touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
#: Eight threads free 40 MiB each, one after the other, and all live on: MiB that are kept.
_THREADS = """
import threading
from cosco.process.allocator import keep_large_blocks
from cosco.local.workers import peak_rss_bytes
assert keep_large_blocks(one_arena={one_arena})
turn, end = threading.Lock(), threading.Barrier(8)

def work():
    with turn:
        [b"x" * (1 << 20) for _ in range(40)]
    end.wait()

before = peak_rss_bytes()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print((peak_rss_bytes() - before) >> 20)
"""
_CONNECTED = """
from contextlib import suppress
from cosco.client.rpc.scope import Scope, Unreachable
from cosco.client.rpc.transport import Endpoint
kept = Endpoint("127.0.0.1:1")
with suppress(Unreachable):
    kept.unary("/t/Echo", b"", 10.0, Scope("a test", "x"))
"""
_PAGES_OF_40_MIB = (40 << 20) // os.sysconf("SC_PAGE_SIZE")


def _figure(code: str, **variables: str) -> int:
    """What a process of its own prints."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_"))
    }
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return int(run.stdout)


def _faults(first: str, **variables: str) -> int:
    return _figure(_FAULTS.format(first=first), **variables)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is on Linux only")
def test_a_client_keeps_the_memory_of_messages_unless_its_user_set_the_allocator() -> None:
    assert _faults("") > _PAGES_OF_40_MIB // 2  # or the others say nothing
    assert _faults(_CONNECTED) < _PAGES_OF_40_MIB // 10
    assert _faults(_CONNECTED, MALLOC_TRIM_THRESHOLD_="131072") > _PAGES_OF_40_MIB // 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is on Linux only")
def test_threads_of_a_daemon_keep_what_the_largest_of_them_needed_and_not_each_its_own() -> None:
    assert _figure(_THREADS.format(one_arena=False)) > 160
    assert _figure(_THREADS.format(one_arena=True)) < 80
