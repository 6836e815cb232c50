"""What goes wrong in a real HDFS, and what a store makes of it."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
from hdfs_native import FileWriter
from stores.hdfs.hdfs_support import Gate, Wire
from stores.hdfs.minicluster import MiniCluster

from cosco.dfs import StoredFile, StoreFull, open_store
from cosco.dfs.hdfs import hdfs_client
from cosco.dfs.hdfs.hdfs_store import HdfsStore
from cosco.errors import CoscoError, InvalidArgument, ServiceUnavailable
from cosco.format.chunk import ALIGNMENT

PAGE = b"p" * ALIGNMENT
MIB = 1 << 20


def content(mib: int) -> list[memoryview]:
    """Return parts of one MiB each, which all differ."""
    return [memoryview(random.Random(n).randbytes(MIB)) for n in range(mib)]


@asynccontextmanager
async def opened(url: str):  # type: ignore[no-untyped-def]
    store = open_store(url)
    await store.open()
    try:
        yield store
    finally:
        with suppress(TimeoutError):  # a call that hangs is abandoned then
            async with asyncio.timeout(5):
                await store.close()


async def during(gate: Gate, work: Awaitable[object], fault: Callable[[], object]) -> object:
    """Have a fault happen while a put or read stands at a gate; return what came of the work."""
    task = asyncio.ensure_future(work)
    try:
        assert await asyncio.to_thread(gate.reached.wait, 60)
        await asyncio.to_thread(fault)
    finally:
        gate.go.set()
    return (await asyncio.gather(task, return_exceptions=True))[0]


@contextmanager
def all_back(hdfs: MiniCluster) -> Iterator[None]:
    """Start the datanodes again that something in the block has stopped."""
    try:
        yield
    finally:
        hdfs.tell("start-datanodes")


@pytest.mark.parametrize("datanode", [0, 1])
def test_a_datanode_that_dies_during_a_put_and_a_read_is_done_without(
    hdfs: MiniCluster, datanode: int
) -> None:
    """Nothing is noticed of it. Only rarely the library waits for the dead one for ever: then there
    is an error in time, and the call can be repeated."""
    parts = content(24)
    whole = b"".join(parts)

    async def main() -> None:
        url = f"{hdfs.address}{hdfs.new_folder()}?replication=2&timeout_s=10"
        async with opened(url) as store:
            await store.put("c/read", parts)
            gate = Gate(parts, 12)
            memory = bytearray(len(whole))
            views = [memoryview(memory)[n * MIB : (n + 1) * MIB] for n in range(24)]
            read_gate = Gate(views, 1)
            with all_back(hdfs):
                reading = asyncio.ensure_future(store.read_into("c/read", 0, read_gate))
                assert await asyncio.to_thread(read_gate.reached.wait, 60)
                putting = store.put("c/put", gate)
                stop = lambda: hdfs.tell("stop-datanode", datanode)  # noqa: E731
                failed = await during(gate, putting, stop)
                assert failed is None or isinstance(failed, TimeoutError)
                if failed is not None:
                    await store.put("c/put", parts)
                read_gate.go.set()
                try:
                    assert await reading == len(whole)
                except TimeoutError:
                    assert await store.read_into("c/read", 0, views) == len(whole)
                assert memory == whole
                assert await store.read("c/put", 0, len(whole)) == whole
                assert {f.path: f.size_bytes for f in await store.list("c/")} == {
                    "c/put": len(whole),
                    "c/read": len(whole),
                }

    asyncio.run(main())


def test_a_put_fails_without_datanodes_and_can_be_repeated(hdfs: MiniCluster) -> None:
    parts = content(8)

    async def main() -> None:
        async with opened(f"{hdfs.address}{hdfs.new_folder()}?replication=2") as store:
            await store.put("c/other", [memoryview(PAGE)])

            def stop() -> None:
                hdfs.tell("stop-datanode", 1)
                hdfs.tell("stop-datanode", 0)

            gate = Gate(parts, 4)
            with all_back(hdfs):
                failed = await during(gate, store.put("c/f", gate), stop)
                assert isinstance(failed, OSError)
                assert "\n" not in str(failed)
                with pytest.raises(OSError, match="HDFS"):
                    await store.read("c/other", 0, 1)
            assert await store.list("c/") == [StoredFile("c/other", ALIGNMENT)], "it came whole"
            await store.put("c/f", parts)
            assert await store.read("c/f", 0, 8 * MIB) == b"".join(parts)

    asyncio.run(main())


def test_a_namenode_that_restarts_is_waited_for(hdfs: MiniCluster) -> None:
    """Or whoever calls is told that it is not there, never that a file is missing or a disk full.

    Until its datanodes have reported, the namenode is in safe mode.
    """
    parts = content(4)
    whole = b"".join(parts)

    async def main() -> None:
        async with opened(f"{hdfs.address}{hdfs.new_folder()}") as store:
            await store.put("c/before", parts)

            def calls() -> list[Awaitable[object]]:
                return [store.put("c/amid", parts), store.read("c/before", 5, MIB), store.list("c")]

            hdfs.tell("stop-namenode")
            try:
                tasks = [asyncio.ensure_future(call) for call in calls()]
                assert not (await asyncio.wait(tasks, timeout=0.3))[0]
            finally:
                await asyncio.to_thread(hdfs.tell, "start-namenode")
            results = await asyncio.gather(*tasks, return_exceptions=True)

            def restart() -> None:
                hdfs.tell("stop-namenode")
                hdfs.tell("start-namenode")

            gate = Gate(parts, 2)
            results.append(await during(gate, store.put("c/during", gate), restart))
            for result in results:
                if isinstance(result, BaseException):
                    assert isinstance(result, OSError)
                    assert not isinstance(result, FileNotFoundError | StoreFull)
            await asyncio.gather(*calls(), store.put("c/during", parts))
            for name in ("before", "amid", "during"):
                assert await store.read(f"c/{name}", 0, 5 * MIB) == whole
            assert len(await store.list("")) == 3

    asyncio.run(main())


def test_a_namenode_that_hangs_is_left_for_another_connection(hdfs: MiniCluster) -> None:
    """And what its connection delivers late changes nothing that was put meanwhile."""
    wire = Wire(hdfs.port)
    folder = hdfs.new_folder()
    parts = content(2)

    async def main() -> None:
        url = f"hdfs://127.0.0.1:{wire.port}{folder}?timeout_s=1"
        async with opened(url) as store:
            assert isinstance(store, HdfsStore)
            late = wire.hang()
            calls = [
                store.put("c/f", parts),
                *(store.put(f"c/{n}", parts) for n in range(3)),
                store.read("c/f", 0, 1),
                store.list(""),
            ]
            failed = await asyncio.gather(*calls, return_exceptions=True)
            for error in failed:
                assert isinstance(error, TimeoutError)
                assert "HDFS has not answered for 1 s" in str(error)
            await store.put("c/f", parts)  # by a connection that does not hang
            assert await store.read("c/f", 0, 2 * MIB) == b"".join(parts)
            late.set()
            await store.close()  # waits for those that go on now
        async with opened(f"{hdfs.address}{folder}") as other:
            assert await other.read("c/f", 0, 2 * MIB) == b"".join(parts)
            assert await other.list("") == [StoredFile("c/f", 2 * MIB)]

    try:
        asyncio.run(main())
    finally:
        wire.stop()


def test_a_file_that_is_deleted_under_its_reader_is_missing(hdfs: MiniCluster) -> None:
    parts = content(32)
    folder = hdfs.new_folder()

    async def main() -> None:
        async with opened(f"{hdfs.address}{folder}?replication=2") as store:
            await store.put("c/f", parts)
            memory = [memoryview(bytearray(MIB)) for _ in range(32)]
            gate = Gate(memory, 1)
            reading = store.read_into("c/f", 0, gate)
            got = await during(gate, reading, lambda: hdfs.tell("delete", f"{folder}/c"))
            if isinstance(got, BaseException):
                assert isinstance(got, FileNotFoundError)
            else:  # the datanode had it open
                assert b"".join(memory) == b"".join(parts)
            with pytest.raises(FileNotFoundError, match="no such file in the store: 'c/f'"):
                await store.read("c/f", 0, 1)

    asyncio.run(main())


@pytest.mark.parametrize(("names", "space"), [("none", 3 * MIB), (4, "none")])
def test_a_quota_that_is_used_up_is_a_store_that_is_full(
    hdfs: MiniCluster, names: object, space: object
) -> None:
    folder = hdfs.new_folder()
    url = f"{hdfs.address}{folder}?replication=1"

    async def main() -> None:
        async with opened(url) as store:
            await store.put("c/f", content(2))
            hdfs.tell("quota", folder, names, space)  # names: root, identity, c and f
            with pytest.raises(StoreFull, match=r"quota of HDFS is used up: .*: 'c/g'") as caught:
                await store.put("c/g", content(2))
            assert "\n" not in str(caught.value)
            assert await store.list("") == [StoredFile("c/f", 2 * MIB)]
            async with opened(url) as other:
                assert await other.read("c/f", 0, MIB) == content(1)[0], "it can be read still"
            hdfs.tell("quota", folder, "none", "none")
            await store.put("c/g", content(2))

    asyncio.run(main())


def test_an_error_that_is_let_go_asks_hdfs_nothing(
    hdfs: MiniCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of hdfs-native close themselves when they are collected, which may be in the loop."""
    asked: list[str] = []
    monkeypatch.setattr(FileWriter, "close", lambda _: asked.append("closed"))
    folder = hdfs.new_folder()

    async def main() -> None:
        async with opened(f"{hdfs.address}{folder}?replication=1") as store:
            hdfs.tell("quota", folder, "none", MIB)
            with pytest.raises(StoreFull):
                await store.put("c/f", content(2))
        gc.collect()

    asyncio.run(main())
    gc.collect()
    assert not asked


def test_datanodes_without_room_are_a_store_that_is_full(hdfs: MiniCluster, tmp_path: Path) -> None:
    assert hdfs.port, "what is missing for one is missing for two"
    full = MiniCluster(tmp_path / "cluster", datanodes=1, capacity_bytes=1 << 16)

    async def main() -> None:
        store = open_store(f"{full.address}/x?replication=1")
        with pytest.raises(InvalidArgument, match="no datanode has room"):
            await store.open()
        with pytest.raises(StoreFull, match="no datanode has room"):
            await store.put("c/f", content(1))
        assert await store.list("") == []
        await store.close()

    try:
        asyncio.run(main())
    finally:
        full.stop()


def test_a_put_replaces_what_another_writer_still_has_open(hdfs: MiniCluster) -> None:
    folder = hdfs.new_folder()

    async def main() -> None:
        async with opened(f"{hdfs.address}{folder}") as store:
            hdfs.tell("write", f"{folder}/c/f", 1000)
            assert await store.read("c/f", 0, MIB) in (b"", bytes(1000))
            await store.put("c/f", content(1))
            assert await store.list("") == [StoredFile("c/f", MIB)]
            assert await store.read("c/f", 0, 2 * MIB) == content(1)[0]

    asyncio.run(main())


def test_files_are_one_block_with_the_replication_of_the_url(hdfs: MiniCluster) -> None:
    folder = hdfs.new_folder()

    async def main() -> None:
        async with opened(f"{hdfs.address}{folder}?replication=1&fsync=false") as store:
            await store.put("c/f", [*content(3), memoryview(PAGE)])
        assert hdfs.tell("replication", f"{folder}/c/f") == "1"
        assert hdfs.tell("block-bytes", f"{folder}/c/f") == str(3 * MIB + ALIGNMENT)

    asyncio.run(main())


def test_files_of_several_blocks(hdfs: MiniCluster) -> None:
    whole = b"".join(content(5)) + PAGE

    async def main() -> None:
        store = HdfsStore(
            "hdfs://", hdfs.address, hdfs.new_folder(), replication=2, block_bytes_max=2 * MIB
        )
        await store.open()
        try:
            await store.put("c/f", [memoryview(whole)[:7], memoryview(whole)[7:]])
            assert await store.read("c/f", 0, len(whole) + 1) == whole
            for start, length in ((0, 2 * MIB), (2 * MIB - 1, 2), (MIB, 3 * MIB), (5 * MIB, 9999)):
                assert await store.read("c/f", start, length) == whole[start : start + length]
        finally:
            await store.close()

    asyncio.run(main())


def test_names_that_hdfs_does_not_take(hdfs: MiniCluster) -> None:
    paths = ["a:b/c:d", "%3A/x", ".snapshot/x", "c/.snapshot"]

    async def main() -> None:
        async with opened(f"{hdfs.address}{hdfs.new_folder()}") as store:
            for path in paths:
                await store.put(path, [memoryview(PAGE)])
                assert await store.read(path, 0, 1) == b"p"
            assert [file.path for file in await store.list("")] == sorted(paths)
            assert await store.list_folders("") == ["%3A", ".snapshot", "a:b", "c"]
            await store.delete_prefix("a:b/")
            assert len(await store.list("")) == 3
            with pytest.raises(ValueError, match="no path within this store"):
                await store.put("c/x.cosco-put", [memoryview(PAGE)])

    asyncio.run(main())


def test_a_namenode_in_safe_mode_takes_nothing(hdfs: MiniCluster) -> None:
    async def main() -> None:
        async with opened(f"{hdfs.address}{hdfs.new_folder()}") as store:
            hdfs.tell("safe-mode", "on")
            try:
                with pytest.raises(OSError, match="Name node is in safe mode"):
                    await store.put("c/f", content(1))
            finally:
                hdfs.tell("safe-mode", "off")
            await store.put("c/f", content(1))

    asyncio.run(main())


def test_a_user_without_the_right_is_refused(
    hdfs: MiniCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hdfs.new_folder()
    url = f"{hdfs.address}{folder}"

    async def main() -> None:
        async with opened(url) as store:
            await store.put("c/f", content(1))
        monkeypatch.setenv("HADOOP_USER_NAME", "somebody")
        with pytest.raises(InvalidArgument, match=r"cannot be written: .*Permission denied") as no:
            await open_store(url).open()
        assert "\n" not in str(no.value)
        hdfs.tell("mkdir", folder, "777", "root")
        async with opened(url) as store:
            assert await store.read("c/f", 0, MIB) == content(1)[0]
            with pytest.raises(PermissionError, match="user=somebody"):
                await store.put("c/g", content(1))
            with pytest.raises(PermissionError, match="user=somebody"):
                await store.delete_prefix("c/")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("address", "reason", "kind"),
    [
        ("127.0.0.1:1", "Connection refused", ServiceUnavailable),
        ("no-such-host.invalid:8020", "lookup address", ServiceUnavailable),
        ("no-such-nameservice", "No NameNode hosts found", InvalidArgument),
    ],
)
def test_who_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, address: str, reason: str, kind: type[CoscoError]
) -> None:
    monkeypatch.setitem(hdfs_client._CONFIG, "dfs.client.failover.max.attempts", "1")

    async def main() -> None:
        store = open_store(f"hdfs://{address}/x")
        with pytest.raises(kind, match=reason) as caught:
            await store.open()
        assert address in str(caught.value)
        assert "\n" not in str(caught.value)
        await store.close()

    asyncio.run(main())


def test_an_identity_that_makes_no_sense_is_refused(hdfs: MiniCluster) -> None:
    folder = hdfs.new_folder()
    hdfs.tell("write", f"{folder}/cosco-store.json", 10)

    async def main() -> None:
        store = open_store(f"{hdfs.address}{folder}")
        with pytest.raises(InvalidArgument, match="no store identity of format 1"):
            await store.open()
        await store.close()

    asyncio.run(main())
