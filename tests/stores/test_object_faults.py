"""What goes wrong between a store and its server: noticed, bounded, repeated, and said."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.http_faults import HttpFaults
from support.s3_servers import SECRET_KEY, S3Server, url_at

from cosco.dfs import IOEvent, Store, StoredFile, StoreFull, open_store
from cosco.dfs.objects.object_store import ObjectStore
from cosco.dfs.testing import cut, pages
from cosco.errors import CoscoError, InvalidArgument, ServiceUnavailable

Url = Callable[..., str]
#: More than one write of a socket takes, so that half of it is not all.
CONTENT = b"".join(pages(chr(ord("a") + n % 26)) for n in range(1024))
#: Time-outs and retries of `faulty_url`, and what a machine that is busy adds.
BOUND_S = 2 + 4 + 4


def run(
    url: str,
    scenario: Callable[[ObjectStore], Awaitable[None]],
    observer: Callable[[IOEvent], None] | None = None,
) -> None:
    """Run a scenario on a store, which is closed after it."""

    async def main() -> None:
        store = open_store(url, threads=3, observer=observer)
        assert isinstance(store, ObjectStore)
        await store.open()
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(main())


async def failure(call: Awaitable[Any]) -> OSError:
    """Return the error that a call raises, in time, and of which nobody learns a secret."""
    started = time.monotonic()
    with pytest.raises(OSError, match=r"\w") as caught:
        await call
    assert time.monotonic() - started < BOUND_S
    text = str(caught.value)
    assert SECRET_KEY not in text
    assert "Signature" not in text.replace("SignatureDoesNotMatch", "")
    assert "\n" not in text
    # What obstore said is not shown beside it.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value


# --- what passes --------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError")])
def test_errors_of_a_server_that_pass_are_not_noticed(
    faults: HttpFaults, faulty_url: Url, status: int, code: str
) -> None:
    async def scenario(store: Store) -> None:
        for method in ("PUT", "GET", "POST"):
            faults.fault("answer", method, status=status, code=code, times=2)
        await store.put("d/f", cut(CONTENT))
        assert await store.read("d/f", 0, len(CONTENT)) == CONTENT
        assert await store.list("d/") == [StoredFile("d/f", len(CONTENT))]
        await store.delete_prefix("d/")
        assert await store.list("") == []

    run(faulty_url(), scenario)
    assert len(faults.seen("PUT", "d/f")) == 3


def test_answers_that_break_off_are_asked_for_again(faults: HttpFaults, faulty_url: Url) -> None:
    async def scenario(store: Store) -> None:
        await store.put("f", cut(CONTENT))
        faults.fault("half_answer", "GET", "/f", times=2)
        memory = bytearray(len(CONTENT))
        assert await store.read_into("f", 0, [memoryview(memory)]) == len(CONTENT)
        assert memory == CONTENT
        faults.fault("torn_answer", "GET", "/f", times=1)
        assert await store.read("f", 4096, 100_000) == CONTENT[4096:104_096]

    run(faulty_url(), scenario)


def test_a_put_that_breaks_off_is_made_again(faults: HttpFaults, faulty_url: Url) -> None:
    async def scenario(store: Store) -> None:
        faults.fault("half_body", "PUT", "/f", times=1)
        await store.put("f", cut(CONTENT))
        assert await store.read("f", 0, len(CONTENT)) == CONTENT

    run(faulty_url(), scenario)


def test_a_put_whose_answer_was_lost_is_there(faults: HttpFaults, faulty_url: Url) -> None:
    async def scenario(store: Store) -> None:
        faults.fault("late", "PUT", "/f", times=1)
        await store.put(
            "f", cut(CONTENT)
        )  # by the second request, once the first one took too long
        assert await store.read("f", 0, len(CONTENT)) == CONTENT

    run(faulty_url(), scenario)
    assert len(faults.seen("PUT", "/f")) == 2


# --- what does not ------------------------------------------------------------------------


def test_a_server_that_is_overloaded_for_long(faults: HttpFaults, faulty_url: Url) -> None:
    async def scenario(store: Store) -> None:
        await store.put("f", cut(CONTENT))
        for method in ("PUT", "GET", "POST"):
            faults.fault("answer", method, times=1000)
        part = memoryview(bytearray(4096))
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.put("g", cut(CONTENT)),
            lambda: store.read("f", 0, 10),
            lambda: store.read_into("f", 0, [part]),
            lambda: store.list(""),
            lambda: store.list_folders(""),
            lambda: store.delete_prefix("d/"),
        ]
        errors = [await failure(call()) for call in calls]
        for error in errors:
            assert "503 SlowDown (as a test has it)" in str(error)
            assert not isinstance(error, FileNotFoundError | PermissionError | StoreFull)

    run(faulty_url("&timeout_s=2&retry_s=0.5"), scenario)


@pytest.mark.parametrize("action", ["hold", "late"])
def test_a_server_that_never_answers(faults: HttpFaults, faulty_url: Url, action: Any) -> None:
    async def scenario(store: Store) -> None:
        await store.put("f", cut(CONTENT))
        faults.fault(action, "*", times=1000)
        errors = await asyncio.gather(
            failure(store.put("g", cut(CONTENT))),
            failure(store.read("f", 0, 10)),
            failure(store.list("")),
        )
        for error in errors:
            assert isinstance(error, TimeoutError), error
            assert error.errno is not None
        faults.release()

    run(faulty_url(), scenario)


def test_half_an_answer_is_never_taken_for_the_whole(faults: HttpFaults, faulty_url: Url) -> None:
    async def scenario(store: Store) -> None:
        await store.put("f", cut(CONTENT))
        for action in ("half_answer", "torn_answer"):
            fault = faults.fault(action, "GET", "/f", times=1000)  # type: ignore[arg-type]
            memory = bytearray(len(CONTENT))
            error = await failure(store.read_into("f", 0, [memoryview(memory)]))
            assert not isinstance(error, FileNotFoundError)
            assert not any(memory), "what was not whole has reached the caller"
            assert 1 < fault.done < 40
            fault.times = 0

    run(faulty_url("&timeout_s=2&retry_s=1"), scenario)


def test_a_put_that_fails_is_put_again_whole(faults: HttpFaults, faulty_url: Url) -> None:
    """A put that breaks off may leave a beginning, which is what the protocol says."""

    async def scenario(store: Store) -> None:
        fault = faults.fault("half_body", "PUT", "/f", times=1000)
        await failure(store.put("f", cut(CONTENT)))
        for file in await store.list(""):
            assert await store.read(file.path, 0, file.size_bytes) == CONTENT[: file.size_bytes]
        fault.times = 0
        await store.put("f", cut(CONTENT))
        assert await store.read("f", 0, 1 << 40) == CONTENT
        assert await store.list("") == [StoredFile("f", len(CONTENT))]

    run(faulty_url("&timeout_s=2&retry_s=0.5"), scenario)


def test_a_torn_object_is_seen_by_its_length_and_put_again(versity_server: S3Server) -> None:
    """As a gateway leaves one that dies amid a put."""
    url = versity_server.url("torn/of-a-gateway")
    path = versity_server.folder / "torn" / "of-a-gateway" / "d" / "f"

    async def scenario(store: Store) -> None:
        await store.put("d/f", cut(CONTENT))
        torn = len(CONTENT) // 2 + 17
        with path.open("r+b") as file:
            file.truncate(torn)
        assert await store.list("") == [StoredFile("d/f", torn)]
        memory = bytearray(len(CONTENT))
        assert await store.read_into("d/f", 0, [memoryview(memory)]) == torn
        assert await store.read("d/f", torn, 10) == b""
        await store.put("d/f", cut(CONTENT))
        assert await store.read("d/f", 0, 1 << 40) == CONTENT
        with path.open("r+b") as file:
            file.truncate(0)
        assert await store.read("d/f", 0, 10) == b""

    run(url, scenario)


def test_an_object_that_somebody_deleted(versity_server: S3Server) -> None:
    async def scenario(store: Store) -> None:
        await store.put("d/f", cut(CONTENT))
        (versity_server.folder / "gone" / "d" / "f").unlink()
        assert isinstance(await failure(store.read("d/f", 0, 10)), FileNotFoundError)

    run(versity_server.url("gone"), scenario)


def test_only_a_missing_object_is_a_missing_file(faults: HttpFaults, faulty_url: Url) -> None:
    """What else comes with a status 404 is no loss of rows."""

    async def scenario(store: Store) -> None:
        await store.put("f", cut(CONTENT))
        for code in ("NoSuchBucket", "XAdminUserNotFound", "PageNotFound"):
            faults.fault("answer", "GET", status=404, code=code)
            error = await failure(store.read("f", 0, 10))
            assert not isinstance(error, FileNotFoundError), code
            assert code in str(error)
        faults.fault("answer", "GET", status=404, code="NoSuchKey")
        assert isinstance(await failure(store.read("f", 0, 10)), FileNotFoundError)

    run(faulty_url(), scenario)


@pytest.mark.parametrize(("status", "code"), [(507, "X"), (403, "QuotaExceeded")])
def test_a_store_without_room(faults: HttpFaults, faulty_url: Url, status: int, code: str) -> None:
    async def scenario(store: Store) -> None:
        faults.fault("answer", "PUT", status=status, code=code, times=1000)
        assert isinstance(await failure(store.put("f", cut(CONTENT))), StoreFull)

    run(faulty_url("&timeout_s=2&retry_s=0.3"), scenario)


# --- credentials and places ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (400, "ExpiredToken", "renew the credentials"),
        (403, "AccessDenied", "the right to read, write"),
        (403, "RequestTimeTooSkewed", "set the clock of this host"),
        (401, "Unheard", "401 Unheard"),
    ],
)
def test_credentials_that_no_longer_do(
    faults: HttpFaults, faulty_url: Url, status: int, code: str, hint: str
) -> None:
    async def scenario(store: Store) -> None:
        await store.put("f", cut(CONTENT))
        faults.fault("answer", "*", status=status, code=code, times=1000)
        for call in (store.put("g", cut(CONTENT)), store.read("f", 0, 1), store.list("")):
            error = await failure(call)
            assert isinstance(error, PermissionError)
            assert hint in str(error)

    run(faulty_url(), scenario)


async def nothing(_: Store) -> None:
    """A scenario without steps."""


def refusal(url: str, kind: type[CoscoError] = InvalidArgument) -> str:
    """Return why a store cannot be opened, in one line."""
    with pytest.raises(kind) as caught:
        run(url, nothing)
    text = str(caught.value)
    assert "\n" not in text
    assert SECRET_KEY not in text
    return text


def test_what_cannot_be_opened_says_why(
    versity_server: S3Server, rclone_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = versity_server.url()
    assert "NoSuchBucket" in refusal(versity_server.url(bucket="nobodys"))
    assert "make the bucket" in refusal(versity_server.url(bucket="nobodys"))
    assert "?region=" in refusal(re.sub("region=[^&]*", "region=us-east-9", url))
    more = "&timeout_s=2&retry_s=0.3"
    away = url_at("127.0.0.1:1", "p", more=more)  # who starts a daemon tries again
    assert "cannot be reached" in refusal(away, ServiceUnavailable)
    ignoring = rclone_server.url().replace("&exclusive=false", "")
    assert "ignores If-None-Match" in refusal(ignoring)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-one-entirely")
    assert "SignatureDoesNotMatch" in refusal(url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    assert "NotFound" in refusal(url)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}', '{"format": 1}'])
def test_a_broken_identity(versity_server: S3Server, content: str) -> None:
    folder = versity_server.folder / "broken"
    folder.mkdir(exist_ok=True)
    (folder / "cosco-store.json").write_text(content)
    assert "no store identity of format 1" in refusal(versity_server.url("broken"))
    assert (folder / "cosco-store.json").read_text() == content


def test_credentials_of_a_profile_are_renewed_with_its_file(
    versity_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are read again once they may have become stale, and by whoever opens a store."""
    file = tmp_path / "credentials"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "shuffle")
    url = versity_server.url()
    assert "no file of profiles has it" in refusal(url)
    keys = "[shuffle]\naws_access_key_id = AKIATESTS\naws_secret_access_key = "
    file.write_text(keys + "not-the-right-one\n")
    assert "SignatureDoesNotMatch" in refusal(url)
    file.write_text(keys + SECRET_KEY + "\n")
    run(url, nothing)


# --- a hang, and closing ------------------------------------------------------------------


def test_a_cancelled_put_keeps_its_parts_until_it_has_ended(
    faults: HttpFaults, faulty_url: Url
) -> None:
    async def scenario(store: Store) -> None:
        memory = memoryview(bytearray(CONTENT))
        faults.fault("hold", "PUT", "/f")
        putting = asyncio.create_task(store.put("f", [memory]))
        await asyncio.to_thread(faults.wait_for_held)
        closing = asyncio.create_task(store.close())
        for _ in range(2):
            putting.cancel()
            await asyncio.wait({putting, closing}, timeout=0.05)
            assert not putting.done(), "the request is still under way"
            assert not closing.done(), "the request is still under way"
        faults.release()
        with pytest.raises(asyncio.CancelledError):
            await putting
        memory.release()  # which fails while somebody has a hold on it
        await closing

    run(faulty_url(), scenario)


def test_closing_that_is_given_up_abandons_what_hangs(faults: HttpFaults, faulty_url: Url) -> None:
    async def scenario(store: Store) -> None:
        faults.fault("hold", "PUT", "/f", times=1000)
        putting = asyncio.create_task(store.put("f", cut(CONTENT)))
        await asyncio.to_thread(faults.wait_for_held)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        putting.cancel()
        done, _ = await asyncio.wait({putting}, timeout=5)
        assert done and putting.cancelled()
        faults.release()

    run(faulty_url("&timeout_s=60&retry_s=60"), scenario)


# --- hedged reads -------------------------------------------------------------------------


def test_a_slow_read_is_asked_for_twice(faults: HttpFaults, faulty_url: Url) -> None:
    events: list[IOEvent] = []

    async def scenario(store: Store) -> None:
        await store.put("f", cut(CONTENT))
        for _ in range(40):
            await store.read("f", 0, 8192)
        before = len(faults.seen("GET", "/f"))
        faults.fault("hold", "GET", "/f", times=1)
        memory = bytearray(8192)
        assert await store.read_into("f", 4096, [memoryview(memory)]) == 8192
        assert memory == CONTENT[4096 : 4096 + 8192]
        assert len(faults.seen("GET", "/f")) == before + 2
        memory[:] = bytes(8192)
        faults.release()
        await store.read("f", 0, 8192)
        assert not any(memory), "the slow answer has come to memory of others"

    run(faulty_url("&timeout_s=30&retry_s=30"), scenario, events.append)
    reads = [event for event in events if event.kind == "read" and event.path == "f"]
    assert len(reads) >= 43
    assert [event.length for event in reads].count(0) >= 1, "the request given up is told, too"


def test_requests_are_doubled_for_a_bounded_share(faults: HttpFaults, faulty_url: Url) -> None:
    async def scenario(store: Store) -> None:
        await store.put("f", cut(CONTENT))
        for _ in range(30):
            await store.read("f", 0, 8192)
        before = len(faults.seen("GET", "/f"))
        faults.fault("hold", "GET", "/f", times=1000)
        slow = [asyncio.create_task(store.read("f", 0, 8192)) for _ in range(6)]
        for _ in slow:
            await asyncio.to_thread(faults.wait_for_held)
        await asyncio.wait(slow, timeout=0.5)  # in which all of them would be asked for again
        # One of twenty before, which a busy machine may have used already.
        assert before + 6 <= len(faults.seen("GET", "/f")) <= before + 6 + 1
        faults.release()
        await asyncio.gather(*slow)

    run(faulty_url("&timeout_s=30&retry_s=30"), scenario)


# --- costs --------------------------------------------------------------------------------


def test_every_request_is_counted(faults: HttpFaults, faulty_url: Url) -> None:
    events: list[IOEvent] = []

    async def scenario(store: Store) -> None:
        await asyncio.gather(*(store.put(f"d/{n}", cut(pages("x"))) for n in range(5)))
        await store.read("d/1", 0, 100)
        await store.list("d/")
        await store.list_folders("")
        await store.delete_prefix("d/")

    run(faulty_url(), scenario, events.append)
    kinds = {"write": "PUT", "delete": "POST"}
    for kind, method in kinds.items():
        told = sum(event.requests for event in events if event.kind == kind)
        assert told == len(faults.seen(method)), kind
    told = sum(event.requests for event in events if event.kind in {"read", "list", "head"})
    assert told == len(faults.seen("GET")) + len(faults.seen("HEAD"))
    assert sum(event.length for event in events if event.kind == "write") > 5 * 4096


def test_large_files_are_put_in_pieces(faults: HttpFaults, faulty_url: Url) -> None:
    events: list[IOEvent] = []

    async def scenario(store: Store) -> None:
        piece = memoryview(bytes(1 << 20))
        await store.put("small", [piece] * 64)
        await store.put("large", [piece] * 65)

    run(faulty_url("&timeout_s=30"), scenario, events.append)
    assert len(faults.seen("PUT", "/small")) == 1
    assert len(faults.seen("PUT", "/large")) == 5
    assert len(faults.seen("POST", "/large")) == 2
    writes = {event.path: event.requests for event in events if event.kind == "write"}
    assert (writes["small"], writes["large"]) == (1, 7)
