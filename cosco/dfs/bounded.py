"""A store whose calls end: what it does not answer in time is an error."""

from __future__ import annotations

import asyncio
import builtins
import errno
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from cosco.dfs.protocol import GivesAccess, Store, StoredFile
from cosco.errors import ServiceUnavailable


@asynccontextmanager
async def answered_in(seconds: float, what: str) -> AsyncIterator[None]:
    """Bound what is awaited in this block; raises TimeoutError, an OSError, as the kernel would."""
    try:
        async with asyncio.timeout(seconds if seconds < math.inf else None):
            yield
    except TimeoutError as error:
        if error.errno is not None:  # of the medium itself
            raise
        raise TimeoutError(errno.ETIMEDOUT, f"{what} has not answered for {seconds:g} s") from None


class BoundedStore:
    """`cosco.dfs.protocol.Store` over another one, with `timeout_s` for each look at it.

    `put` and `read_into` use memory of the caller until they have ended, and deletions may be
    large, so these are passed on as they are: whoever makes them decides how long to wait.
    """

    def __init__(self, store: Store, timeout_s: float) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._what = f"the store {store.url}"
        self.url = store.url
        self.store_id = ""
        self.durable = store.durable

    async def open(self) -> None:
        try:
            async with answered_in(self._timeout_s, self._what):
                await self._store.open()
        except TimeoutError as error:
            raise ServiceUnavailable(
                f"{error.strerror}: see to its disk or mount, or name another with --store"
            ) from None
        self.store_id = self._store.store_id

    async def put(self, path: str, parts: Sequence[memoryview]) -> None:
        await self._store.put(path, parts)

    async def read(self, path: str, offset: int, length: int) -> bytes:
        async with answered_in(self._timeout_s, self._what):
            return await self._store.read(path, offset, length)

    async def read_into(self, path: str, offset: int, parts: Sequence[memoryview]) -> int:
        return await self._store.read_into(path, offset, parts)

    async def list(self, prefix: str) -> builtins.list[StoredFile]:
        async with answered_in(self._timeout_s, self._what):
            return await self._store.list(prefix)

    async def list_folders(self, prefix: str) -> builtins.list[str]:
        async with answered_in(self._timeout_s, self._what):
            return await self._store.list_folders(prefix)

    async def delete_prefix(self, prefix: str) -> None:
        await self._store.delete_prefix(prefix)

    async def access(self, path: str, expires_s: float) -> str | None:
        """See `cosco.dfs.protocol.GivesAccess`; None of a store that does not have it."""
        if not isinstance(self._store, GivesAccess):
            return None
        async with answered_in(self._timeout_s, self._what):
            return await self._store.access(path, expires_s)

    async def close(self) -> None:
        await self._store.close()


def check_answers(error: OSError, url: str) -> None:
    """Raise ServiceUnavailable if a store cannot be opened as nobody answers.

    Its server may be there soon, so who starts a daemon tries again. What else is wrong with a
    store is for people to mend.
    """
    is_away = isinstance(error, ConnectionError | TimeoutError)
    if is_away or error.errno == errno.EHOSTUNREACH:
        raise ServiceUnavailable(f"store {url!r} does not answer: {error.strerror}") from None
