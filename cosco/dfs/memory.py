"""A store in the memory of its process: for tests and for data one can afford to lose.

Its bytes come on top of the daemon's `--memory` and are not bounded by it.
"""

from __future__ import annotations

import builtins
import errno
import time
import uuid
from collections.abc import Sequence
from typing import Literal

from cosco.dfs.paths import check_folder, check_prefix, check_put, check_read
from cosco.dfs.protocol import IOEvent, Observer, StoredFile
from cosco.protocol.records import VOLATILE_STORE


class MemoryStore:
    """`cosco.dfs.protocol.Store` over a dict of bytes."""

    durable = False

    def __init__(self, url: str = "memory://", *, observer: Observer | None = None) -> None:
        self.url = url
        self.store_id = ""
        self._observer = observer
        self._files: dict[str, bytes] = {}

    async def open(self) -> None:
        self.store_id = VOLATILE_STORE + uuid.uuid4().hex

    async def put(self, path: str, parts: Sequence[memoryview]) -> None:
        length = check_put(path, parts)
        started = time.perf_counter()
        self._files[path] = b"".join(parts)
        self._observe("write", path, 0, length, started)

    async def read(self, path: str, offset: int, length: int) -> bytes:
        check_read(path, offset, length)
        started = time.perf_counter()
        with memoryview(self._file(path)) as view:
            data = bytes(view[offset : offset + length])
        self._observe("read", path, offset, len(data), started)
        return data

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        check_read(path, offset, sum(map(len, parts)))
        started = time.perf_counter()
        got = 0
        with memoryview(self._file(path)) as view:
            for part in parts:
                piece = view[offset + got : offset + got + len(part)]
                part[: len(piece)] = piece
                got += len(piece)
        self._observe("read", path, offset, got, started)
        return got

    async def list(self, prefix: str) -> builtins.list[StoredFile]:
        check_prefix(prefix)
        found = (path for path in self._files if path.startswith(prefix))
        return [StoredFile(path, len(self._files[path])) for path in sorted(found)]

    async def list_folders(self, prefix: str) -> builtins.list[str]:
        if prefix:
            check_folder(prefix)
        below = (path[len(prefix) :] for path in self._files if path.startswith(prefix))
        return sorted({rest.partition("/")[0] for rest in below if "/" in rest})

    async def delete_prefix(self, prefix: str) -> None:
        check_folder(prefix)
        for path in [path for path in self._files if path.startswith(prefix)]:
            del self._files[path]

    async def close(self) -> None:
        self._files.clear()

    def _file(self, path: str) -> bytes:
        try:
            return self._files[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such file in the store", path) from None

    def _observe(
        self, kind: Literal["read", "write"], path: str, offset: int, length: int, started: float
    ) -> None:
        if self._observer is not None:
            seconds = time.perf_counter() - started
            self._observer(IOEvent(kind, path, offset, length, started, seconds))
