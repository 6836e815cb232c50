"""A store of two directories as its tiers: what every store promises, and how files move."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cosco.dfs import LocalStore, Observer, StoreFull
from cosco.dfs.testing import MakeStore, StoreConformance, cut, pages, paths_of
from cosco.dfs.tiers.flash_files import FlashClaim
from cosco.dfs.tiers.mover import TierNews
from cosco.dfs.tiers.state import tier_table
from cosco.dfs.tiers.state.tier_table import TierOptions
from cosco.dfs.tiers.tiered_store import TieredStore
from cosco.errors import DataCorrupted, InvalidArgument
from cosco.format.chunk import ALIGNMENT

PATH = "c/1/0-1/a"


def any_content(_path: str, _data: memoryview) -> None:
    """A check that finds nothing wrong."""


class Slow(LocalStore):
    """A directory that fails, or hangs, when a test wants it to."""

    def __init__(self, directory: Path, observer: Observer | None = None, **more: Any) -> None:
        super().__init__(f"file://{directory}", directory, threads=4, observer=observer, **more)
        self.fails: OSError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = asyncio.Event()
        self.puts = 0

    async def put(self, path: str, parts: Sequence[memoryview]) -> None:
        self.puts += 1
        self.began.set()
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        await super().put(path, parts)


class Rig:
    """Two tiers in a folder, and what they told."""

    def __init__(self, folder: Path, flash: str = "flash", **options: Any) -> None:
        self.counts: Counter[str] = Counter()
        self.news: list[str] = []
        self.durable: asyncio.Queue[str] = asyncio.Queue()
        claim = FlashClaim()
        self.flash = Slow(folder / flash, identify=claim.take)
        self.then = Slow(folder / "then")
        options.setdefault("age_s", 1e9)
        self.check: Callable[[str, memoryview], None] = any_content
        self.store = TieredStore(
            self.flash,
            self.then,
            claim,
            TierOptions(**options),
            news=TierNews(
                lambda _url, change: self.news.append(f"out {change.is_out} {change.cause}"),
                lambda news, reason: self.news.append(f"{news} {reason}".strip()),
                lambda what, amount, of: self.counts.update({f"{what} {of}".strip(): amount}),
            ),
            check=lambda path, data: self.check(path, data),  # noqa: PLW0108  a test may change it
        )
        self.store.on_durable = self.durable.put_nowait
        self.lost: list[str] = []
        self.store.on_lost = self.lost.append

    async def put(self, path: str = PATH, content: bytes = pages("a")) -> None:
        await self.store.put(path, cut(content))

    def on_flash(self, path: str = PATH) -> bool:
        return (self.flash.directory / path).exists()

    def in_then(self, path: str = PATH) -> bool:
        return (self.then.directory / path).exists()

    async def moved(self) -> str:
        return await asyncio.wait_for(self.durable.get(), 30)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)  # there is no event for all of it


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[None]:
    """Have files move for as long as the block."""
    await rig.store.open()
    task = asyncio.create_task(rig.store.run())
    try:
        yield
    finally:
        assert not task.done(), task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await rig.store.close()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


class TestTieredStore(StoreConformance):
    """What every store promises, while nothing moves, and all is on flash."""

    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        return lambda observer: made_store(tmp_path, "flash", observer)

    def test_all_who_open_one_place_agree_on_its_id(self, tmp_path: Path) -> None:  # type: ignore[override]
        """Each has a flash of its own, and others see a file once it is durable."""

        async def main() -> None:
            rigs = [Rig(tmp_path, f"flash-{n}") for n in range(4)]
            await asyncio.gather(*(rig.store.open() for rig in rigs))
            assert len({rig.store.store_id for rig in rigs}) == 1
            moving = asyncio.create_task(rigs[0].store.run())
            await rigs[0].put()
            assert not rigs[0].store.is_durable(PATH)
            rigs[0].store.hurry("c/1/0-1/")
            assert await rigs[0].moved() == PATH
            assert rigs[0].store.is_durable(PATH)
            assert await rigs[1].store.read(PATH, 0, ALIGNMENT) == pages("a")
            assert await paths_of(rigs[2].store, "") == [PATH]
            assert await rigs[2].store.list_folders("") == ["c"]
            moving.cancel()
            for rig in rigs:
                await rig.store.close()

        run(main())


class TestTieredStorePastFlash(TestTieredStore):
    """The same where flash has room for nothing."""

    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        return lambda observer: made_store(tmp_path, "flash", observer, flash_bytes=1)


def made_store(folder: Path, flash: str, observer: Observer | None, **options: Any) -> TieredStore:
    claim = FlashClaim()
    return TieredStore(
        LocalStore("file://f", folder / flash, observer=observer, identify=claim.take),
        LocalStore("file://t", folder / "then", observer=observer),
        claim,
        TierOptions(**{"age_s": 1e9, **options}),
        check=any_content,
    )


# --- moves --------------------------------------------------------------------------------


def test_what_is_old_moves_and_goes_from_flash_after_the_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr(tier_table, "GRACE_S", 0.0)
        rig = Rig(tmp_path, age_s=0.0)
        async with running(rig):
            await rig.put()
            assert await rig.moved() == PATH
            assert rig.in_then()
            await rig.until(lambda: not rig.on_flash())
            assert await rig.store.read(PATH, 0, ALIGNMENT) == pages("a")
        assert rig.counts["moved_bytes age"] == rig.counts["put_bytes flash"] == ALIGNMENT

    run(main())


def test_it_is_durable_when_the_slow_put_has_returned_and_read_from_flash_before(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        async with running(rig):
            await rig.put()
            rig.then.gate.clear()
            rig.store.hurry(PATH)
            await rig.then.began.wait()
            assert not rig.store.is_durable(PATH)
            assert rig.durable.empty()
            assert await rig.store.read(PATH, 0, ALIGNMENT) == pages("a")
            assert [file.size_bytes for file in await rig.store.list("c/1/")] == [ALIGNMENT]
            rig.then.gate.set()
            assert await rig.moved() == PATH
            assert rig.store.is_durable(PATH)
            assert rig.on_flash(), "for the grace"

    run(main())


def test_a_flash_that_counts_as_durable_moves_nothing_in_a_hurry(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path, flash_is_durable=True)
        async with running(rig):
            await rig.put()
            assert rig.store.is_durable(PATH)
            rig.store.hurry(PATH)
            assert rig.store.figures.pending_bytes == ALIGNMENT
            rig.store.move_all(True)  # a daemon that drains
            await asyncio.wait_for(rig.store.nothing_pending(), 30)
            assert rig.in_then()

    run(main())


def test_a_slow_tier_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        async with running(rig):
            await rig.put()
            rig.then.fails = StoreFull(errno.ENOSPC, "no space left")
            rig.store.hurry(PATH)
            await rig.until(lambda: rig.then.puts >= 2)
            assert rig.news == ["failing no space left"]
            assert rig.store.trouble is not None
            assert not rig.store.is_durable(PATH)
            rig.then.fails = None
            assert await rig.moved() == PATH
            assert rig.store.trouble is None
            await rig.until(lambda: rig.news == ["failing no space left", "works"])

    run(main())


def test_a_move_that_hangs_is_told_and_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path, timeout_s=0.5)
        async with running(rig):
            await rig.put()
            rig.then.gate.clear()
            rig.store.hurry(PATH)
            await rig.until(lambda: bool(rig.news))
            assert rig.news == ["failing a move has been under way for 0.5 s"]
            trouble = rig.store.trouble
            assert trouble is not None
            assert trouble.hangs
            with pytest.raises(TimeoutError):
                await rig.store.delete_prefix("c/1/")
            assert rig.then.puts == 1, "and not repeated"
            rig.then.gate.set()
            await rig.until(lambda: rig.store.trouble is None and rig.in_then())
            await rig.store.delete_prefix("c/1/")
            assert not rig.in_then()
            assert not rig.on_flash()
            assert rig.durable.empty(), "nobody wants it any more"

    run(main())


def test_what_is_damaged_on_flash_is_told_and_not_copied(tmp_path: Path) -> None:
    def damaged(_path: str, _data: memoryview) -> None:
        raise DataCorrupted("a flipped bit")

    async def main() -> None:
        rig = Rig(tmp_path)
        rig.check = damaged
        async with running(rig):
            await rig.put()
            rig.store.hurry(PATH)
            await rig.until(lambda: bool(rig.news))
            assert rig.news == [f"damaged {PATH}: a flipped bit"]
            assert rig.lost == [PATH]
            assert not rig.in_then()
            assert rig.on_flash()
            assert not rig.store.is_durable(PATH)
            await asyncio.wait_for(rig.store.nothing_pending(), 30)
            await rig.store.delete_prefix("c/1/")
            assert not rig.on_flash()

    run(main())


def test_what_is_cut_short_or_gone_from_flash_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        async with running(rig):
            await rig.put(content=pages("a", 3))
            await rig.put("c/1/0-1/b")
            os.truncate(rig.flash.directory / PATH, ALIGNMENT)
            (rig.flash.directory / "c/1/0-1/b").unlink()
            rig.store.hurry("c/1/0-1/")
            await rig.until(lambda: len(rig.news) == 2)
            assert sorted(rig.news) == [
                f"damaged {PATH}: the file was cut short at {ALIGNMENT}",
                "damaged c/1/0-1/b: it is not on flash any more",
            ]
            assert not rig.in_then()
            with pytest.raises(FileNotFoundError):
                await rig.store.read("c/1/0-1/b", 0, 1)

    run(main())


def test_what_a_read_finds_gone_from_flash_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        async with running(rig):
            await rig.put()
            (rig.flash.directory / PATH).unlink()
            for _ in range(2):
                with pytest.raises(FileNotFoundError):
                    await rig.store.read(PATH, 0, 1)
            assert rig.news == [f"damaged {PATH}: it is not on flash any more"]
            assert rig.lost == [PATH]
            assert rig.store.figures.pending_bytes == 0
            assert await rig.store.list("c/") == []

    run(main())


# --- deletions ----------------------------------------------------------------------------


def test_nothing_lands_after_a_deletion(tmp_path: Path) -> None:
    """A deletion waits for the move that is under way, and no other begins."""

    async def main() -> None:
        rig = Rig(tmp_path)
        async with running(rig):
            for name in "abc":
                await rig.put(f"c/1/0-1/{name}")
            await rig.put("c/2/0-1/a")
            rig.then.gate.clear()
            rig.store.hurry("c/1/0-1/")
            await rig.until(lambda: rig.then.puts == 2)
            deleting = asyncio.create_task(rig.store.delete_prefix("c/1/"))
            await asyncio.sleep(0)
            assert not deleting.done()
            rig.then.gate.set()
            await deleting
            rig.store.hurry("c/2/0-1/")
            assert await rig.moved() == "c/2/0-1/a"
            assert await paths_of(rig.store, "") == ["c/2/0-1/a"]
            assert rig.then.puts == 3
            assert (rig.counts["saved"], rig.counts["saved_bytes"]) == (1, ALIGNMENT)

    run(main())


def test_a_deletion_that_fails_is_made_again(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        async with running(rig):
            await rig.put()
            away = tmp_path / "away"
            rig.flash.directory.rename(away)
            rig.flash.directory.symlink_to(rig.flash.directory)  # every call there fails
            with pytest.raises(OSError, match="symbolic links"):
                await rig.store.delete_prefix("c/1/")
            assert await rig.store.list_folders("c/") == ["1"], "so that it is asked for again"
            rig.flash.directory.unlink()
            away.rename(rig.flash.directory)
            await rig.store.delete_prefix("c/1/")
            assert not rig.on_flash()
            assert await rig.store.list_folders("c/") == []

    run(main())


# --- a flash that is not well -------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_flash_that_fails_is_passed_by_and_comes_back(tmp_path: Path, error: int) -> None:
    cause = {errno.EIO: "errs", errno.ENOSPC: "full"}[error]

    async def main() -> None:
        rig = Rig(tmp_path)
        async with running(rig):
            kind = StoreFull if error == errno.ENOSPC else OSError
            rig.flash.fails = kind(error, "it fails")
            await rig.put()
            assert rig.in_then()
            assert rig.store.is_durable(PATH)
            assert rig.news == [f"out True {cause}"]
            await rig.put("c/1/0-1/b")
            assert rig.flash.puts == 1, "it was not asked again"
            rig.flash.fails = None
            await rig.until(lambda: rig.news[1:] == [f"out False {cause}"])
            await rig.put("c/1/0-1/c")
            assert rig.on_flash("c/1/0-1/c")

    run(main())


def test_a_flash_that_hangs_is_passed_by_and_what_lands_late_goes(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path, timeout_s=0.5)
        async with running(rig):
            await rig.put("c/1/0-1/before")
            rig.flash.gate.clear()
            content = bytearray(pages("a"))
            await rig.store.put(PATH, [memoryview(content)])
            content[:] = bytes(len(content))  # the memory is its caller's again
            assert rig.in_then()
            assert rig.news == ["out True hangs"]
            with pytest.raises(TimeoutError):
                await rig.store.read("c/1/0-1/before", 0, 1)
            assert await rig.store.read(PATH, 0, ALIGNMENT) == pages("a")
            rig.flash.gate.set()
            await rig.until(lambda: rig.news[1:] == ["out False hangs"])
            assert not rig.on_flash()
            assert await rig.store.read("c/1/0-1/before", 0, ALIGNMENT) == pages("a")

    run(main())


def test_what_is_in_both_is_read_from_the_slow_tier_when_flash_errs(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path)
        async with running(rig):
            await rig.put()
            await rig.put("c/1/0-1/b")
            rig.store.hurry(PATH)
            await rig.moved()
            for name in "ab":
                path = rig.flash.directory / f"c/1/0-1/{name}"
                path.unlink()
                path.symlink_to(path)
            assert await rig.store.read(PATH, 0, ALIGNMENT) == pages("a")
            into = bytearray(ALIGNMENT)
            assert await rig.store.read_into(PATH, 0, [memoryview(into)]) == ALIGNMENT
            assert into == pages("a")
            with pytest.raises(OSError, match="symbolic links"):
                await rig.store.read("c/1/0-1/b", 0, 1)

    run(main())


# --- another start ------------------------------------------------------------------------


def test_what_an_earlier_start_left_is_found_and_moves(tmp_path: Path) -> None:
    async def main() -> None:
        first = Rig(tmp_path)
        await first.store.open()
        await first.put()
        await first.put("c/1/0-1/both")
        await first.store.close()
        torn = first.then.directory / "c/1/0-1/both"
        torn.parent.mkdir(parents=True)
        torn.write_bytes(bytes(ALIGNMENT))  # as a move leaves it whose process died
        second = Rig(tmp_path)
        async with running(second):
            assert await paths_of(second.store, "") == [PATH, "c/1/0-1/both"]
            assert await second.store.read("c/1/0-1/both", 0, ALIGNMENT) == pages("a")
            assert {await second.moved(), await second.moved()} == {PATH, "c/1/0-1/both"}
            assert torn.read_bytes() == pages("a")
        assert second.counts["moves left"] == 2

    run(main())


def test_what_is_longer_in_the_slow_tier_was_put_there_past_flash(tmp_path: Path) -> None:
    async def main() -> None:
        first = Rig(tmp_path)
        await first.store.open()
        await first.put()  # of which a put that failed left no more
        await first.then.put(PATH, cut(pages("b", 2)))
        await first.store.close()
        second = Rig(tmp_path)
        await second.store.open()
        assert not second.on_flash()
        assert await second.store.read(PATH, 0, 2 * ALIGNMENT) == pages("b", 2)
        await second.store.close()

    run(main())


def test_folders_that_an_earlier_start_left_empty_go(tmp_path: Path) -> None:
    async def main() -> None:
        folder = tmp_path / "flash" / "c" / "7" / "0-1"
        folder.mkdir(parents=True)
        rig = Rig(tmp_path)
        await rig.store.open()
        assert not folder.parent.exists()
        await rig.store.close()

    run(main())


# --- whose flash it is --------------------------------------------------------------------


def test_a_flash_has_one_daemon_at_a_time(tmp_path: Path) -> None:
    async def main() -> None:
        first, second = Rig(tmp_path), Rig(tmp_path)
        await first.store.open()
        with pytest.raises(InvalidArgument, match="another daemon's"):
            await second.store.open()
        await second.store.close()
        await first.store.close()
        third = Rig(tmp_path)
        await third.store.open()
        await third.store.close()

    run(main())


def test_a_flash_of_another_store_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        first = Rig(tmp_path)
        await first.store.open()
        await first.store.close()
        (tmp_path / "then").rename(tmp_path / "other")
        second = Rig(tmp_path)
        with pytest.raises(InvalidArgument, match="has segments of the store"):
            await second.store.open()
        await second.store.close()

    run(main())


def test_a_store_by_itself_is_no_flash_and_a_flash_no_store(tmp_path: Path) -> None:
    async def main() -> None:
        alone = LocalStore("file://", tmp_path / "flash")
        await alone.open()
        await alone.close()
        rig = Rig(tmp_path)
        with pytest.raises(InvalidArgument, match="is a store by itself"):
            await rig.store.open()
        await rig.store.close()
        other = Rig(tmp_path, "other")
        await other.store.open()
        await other.store.close()
        flash = LocalStore("file://", tmp_path / "other")
        with pytest.raises(InvalidArgument, match="--store flash=URL,then=URL"):
            await flash.open()
        await flash.close()

    run(main())
