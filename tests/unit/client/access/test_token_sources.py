"""Where a token comes from: files that change, and what is called for it."""

from __future__ import annotations

import logging
import os
import pickle
import threading
from pathlib import Path

import pytest
from support.children import fork, join

from cosco.client.access.credentials import (
    CALL_S,
    LOOK_S,
    TOKEN_FILES,
    CalledToken,
    TokenFile,
    checked_token,
)
from cosco.errors import AccessDenied, InvalidArgument
from cosco.protocol.peer import MAX_CREDENTIAL_CHARACTERS

SECRET = "cosco-token-secret"
BAD = [
    "",
    "  \n",
    "two words",
    "two\nlines",
    "n\xf6",
    "a\0b",
    f"{SECRET} ",
    "t" * (MAX_CREDENTIAL_CHARACTERS + 1),
]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def replace(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize(
    "bad", [*(one for one in BAD if not one.startswith(SECRET)), 3, b"t", None]
)
def test_what_is_no_token_is_refused_and_not_shown(bad: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^token is no token") as caught:
        checked_token(bad, "token")
    if isinstance(bad, str) and bad.strip():
        assert bad not in str(caught.value)


def test_a_file_is_read_again_when_it_has_changed_and_not_more_often(tmp_path: Path) -> None:
    path, clock = tmp_path / "token", Clock()
    path.write_text(f" {SECRET}\r\n")
    file = TokenFile(str(path), clock)
    assert file.current() == SECRET
    replace(path, "other")
    assert file.current() == SECRET, "nothing is looked at for each call"
    clock.now += LOOK_S
    assert file.current() == "other"
    assert file.current() == "other"


def test_the_longest_token_fits(tmp_path: Path) -> None:
    longest = "t" * MAX_CREDENTIAL_CHARACTERS
    (tmp_path / "token").write_text(f"{longest}\n")
    assert TokenFile(str(tmp_path / "token")).current() == longest


@pytest.mark.parametrize("bad", BAD[:4] + BAD[5:6] + BAD[7:])
def test_a_file_that_has_no_token_any_more_changes_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: str
) -> None:
    path, clock = tmp_path / "token", Clock()
    path.write_text(SECRET)
    file = TokenFile(str(path), clock)
    with caplog.at_level(logging.INFO, "cosco"):
        for text in (bad, bad + "\n"):
            replace(path, text)
            clock.now += LOOK_S
            assert file.current() == SECRET
        path.unlink()
        clock.now += LOOK_S
        assert file.current() == SECRET
    assert len(caplog.records) == 2, "one of the text, and one of the file that is gone"
    assert SECRET not in caplog.text
    replace(path, "new")
    clock.now += LOOK_S
    assert file.current() == "new"
    with pytest.raises(InvalidArgument, match="no token") as caught:
        replace(path, bad)
        TokenFile(str(path))
    assert bad.strip() not in str(caught.value) or not bad.strip()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, Path("a\0b")):
        with pytest.raises(InvalidArgument, match="cannot be read"):
            TOKEN_FILES.of(str(path))


def test_what_is_called_is_called_once_in_a_while_by_who_needs_it() -> None:
    threads: list[threading.Thread] = []

    def token() -> str:
        threads.append(threading.current_thread())
        return f" {SECRET}{len(threads)}\n"

    clock = Clock()
    called = CalledToken(token, clock)
    assert not threads
    assert [called(), called()] == [f"{SECRET}1"] * 2
    clock.now += CALL_S
    other = threading.Thread(target=called)
    other.start()
    other.join()
    assert called() == f"{SECRET}2"
    assert threads == [threading.current_thread(), other]


def test_many_threads_make_one_call_of_it() -> None:
    begun, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def token() -> str:
        calls.append(1)
        begun.set()
        assert go_on.wait(20)
        return SECRET

    called = CalledToken(token)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(called())) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert begun.wait(20)
    go_on.set()
    for thread in threads:
        thread.join()
    assert (found, len(calls)) == ([SECRET] * 8, 1)


@pytest.mark.parametrize("bad", [*BAD[:6], BAD[7], None, 7])
def test_what_a_call_returns_is_checked(bad: object) -> None:
    with pytest.raises(AccessDenied, match="token") as caught:
        CalledToken(lambda: bad)()  # type: ignore[arg-type, return-value]
    if isinstance(bad, str) and bad.strip():
        assert bad not in str(caught.value)


def test_what_a_call_raises_is_the_cause_and_is_not_told() -> None:
    def token() -> str:
        raise KeyError(SECRET)

    called = CalledToken(token)
    with pytest.raises(AccessDenied, match="KeyError") as caught:
        called()
    assert isinstance(caught.value.__cause__, KeyError)
    assert SECRET not in str(caught.value)
    assert SECRET.encode() not in pickle.dumps(caught.value)


def test_a_forked_child_goes_on_whatever_a_thread_of_the_parent_did(tmp_path: Path) -> None:
    parent = os.getpid()
    begun, go_on = threading.Event(), threading.Event()

    def token() -> str:
        if os.getpid() == parent:
            begun.set()
            assert go_on.wait(20)
        return SECRET

    path, clock = tmp_path / "token", Clock()
    path.write_text("first")
    file, called = TokenFile(str(path), clock), CalledToken(token)
    TOKEN_FILES._known["of a test"] = file
    thread = threading.Thread(target=called)
    thread.start()
    assert begun.wait(20)
    file._looking.acquire()

    def child() -> None:
        assert called() == SECRET
        replace(path, "second")
        clock.now += LOOK_S
        assert file.current() == "second"

    try:
        join(fork(child))
    finally:
        go_on.set()
        thread.join()
        del TOKEN_FILES._known["of a test"]
