"""A store that hangs, looked at with a bound."""

from __future__ import annotations

import asyncio

import pytest

from cosco.dfs import BoundedStore, MemoryStore, answered_in
from cosco.errors import ServiceUnavailable


class HungStore(MemoryStore):
    """A store that answers nothing."""

    async def open(self) -> None:
        await asyncio.Event().wait()

    async def _hang(self, *_: object) -> None:
        await asyncio.Event().wait()

    read = list = list_folders = _hang  # type: ignore[assignment]


def test_looks_at_a_store_that_hangs_end() -> None:
    async def main() -> None:
        store = BoundedStore(HungStore(), 0.02)
        assert store.url == "memory://"
        with pytest.raises(ServiceUnavailable, match=r"has not answered for 0\.02 s: see to its"):
            await store.open()
        for look in (store.read("a", 0, 1), store.list("a/"), store.list_folders("a/")):
            with pytest.raises(OSError, match=r"the store memory:// has not answered for 0\.02 s"):
                await look

    asyncio.run(main())


def test_a_bounded_store_is_the_store_else() -> None:
    async def main() -> None:
        inner = MemoryStore()
        store = BoundedStore(inner, 10)
        await store.open()
        assert store.store_id == inner.store_id
        assert not store.durable
        part = memoryview(bytes(4096))
        await store.put("a/b", [part])
        assert await store.read("a/b", 0, 9) == bytes(9)
        assert await store.read_into("a/b", 0, [memoryview(bytearray(4096))]) == 4096
        assert [file.path for file in await store.list("a/")] == ["a/b"]
        assert await store.list_folders("") == ["a"]
        await store.delete_prefix("a/")
        assert await store.list("") == []
        await store.close()

    asyncio.run(main())


def test_a_time_out_of_the_medium_keeps_its_own_words() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError, match="stale") as caught:
            async with answered_in(10, "the store"):
                raise TimeoutError(110, "stale")
        assert caught.value.errno == 110

    asyncio.run(main())
