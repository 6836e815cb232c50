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
_CONNECTED = 'from cosco.client.transport import Endpoint\nkept = Endpoint("127.0.0.1:1")'
_PAGES_OF_40_MIB = (40 << 20) // os.sysconf("SC_PAGE_SIZE")


def _faults(first: str, **variables: str) -> int:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_"))
    }
    run = subprocess.run(
        [sys.executable, "-c", _FAULTS.format(first=first)],
        env={**clean, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is on Linux only")
def test_a_client_keeps_the_memory_of_messages_unless_its_user_set_the_allocator() -> None:
    assert _faults("") > _PAGES_OF_40_MIB // 2  # or the others say nothing
    assert _faults(_CONNECTED) < _PAGES_OF_40_MIB // 10
    assert _faults(_CONNECTED, MALLOC_TRIM_THRESHOLD_="131072") > _PAGES_OF_40_MIB // 2
