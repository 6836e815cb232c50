"""`cosco-shuffled` whose directory hangs when a test wants it to, as a disk does that is not there.

Each call of the store takes a lock of a file beside the directory before it begins, or before it
returns. A test holds that lock (`Gate`): the threads of the daemon then wait in the kernel.
"""

from __future__ import annotations

import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cosco.cli import shuffled
from cosco.dfs import LocalStore

#: The calls that each gate stops. `landed` stops writes when all is written.
_CALLS = {
    "writes": ("_put", "_check"),
    "reads": ("_read", "_read_into", "_size"),
    "lists": ("_open", "_list", "_list_folders", "_delete", "_call", "_room", "_remove"),
}
GATES = (*_CALLS, "landed")


class Gate:
    """The gates of the store in a directory, from a test's side."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextmanager
    def held(self, *names: str) -> Iterator[None]:
        """Have calls that come to these gates hang until the end of the block; all: no names."""
        held = [_open(self.directory, name) for name in names or GATES]
        try:
            for fd in held:
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            for fd in held:
                os.close(fd)


def _open(directory: Path, name: str) -> int:
    return os.open(f"{directory}.{name}", os.O_RDWR | os.O_CREAT, 0o600)


def _pass(directory: Path, name: str) -> None:
    fd = _open(directory, name)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _gated(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(call)
    def gated(store: LocalStore, *arguments: Any) -> Any:
        _pass(store._root, name)
        result = call(store, *arguments)
        if name == "writes":
            _pass(store._root, "landed")
        return result

    return gated


def main() -> None:
    """Run a daemon."""
    store: Any = LocalStore
    for name, calls in _CALLS.items():
        for call in calls:
            setattr(store, call, _gated(getattr(store, call), name))
    shuffled.main()


if __name__ == "__main__":
    main()
