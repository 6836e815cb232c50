"""Tokens in a file: made, taken, refused, revoked."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import stat
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosco.errors import AccessDenied, InvalidArgument
from cosco.metadata.access.token_file import TokenFile, add_record, read_records, remove_record
from cosco.metadata.access.token_records import PREFIX, new_token, parse_records
from cosco.process.files import watched_file
from cosco.protocol.peer import Principal, Role

ADA = Principal("ada", "analytics", Role.TENANT)
NOW_S = 1_800_000_000


def add(path: Path, principal: Principal = ADA, expires_s: int = 0) -> str:
    token, record = new_token(principal, NOW_S, expires_s)
    add_record(path, record)
    return token


def refusal(file: TokenFile, token: str) -> str:
    """What is said of a token that is refused."""
    assert file.known(token) is None
    with pytest.raises(AccessDenied) as caught:
        asyncio.run(file.principal(token))
    said = str(caught.value)
    assert token == "" or token not in said
    assert token.rpartition(".")[2] not in said or "." not in token, "its secret part neither"
    assert caught.value.__cause__ is None
    return said


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def test_a_token_stands_for_whom_it_was_made(path: Path) -> None:
    token = add(path)
    other = add(path, Principal("v.1", "b", Role.VIEWER))
    file = TokenFile(str(path))
    assert file.known(token) == asyncio.run(file.principal(token)) == ADA
    assert file.known(other) == Principal("v.1", "b", Role.VIEWER)
    assert re.fullmatch(r"cosco-token-ada\.[A-Za-z0-9_-]{43}", token)
    assert len({new_token(ADA, 0, 0)[0] for _ in range(100)}) == 100


def test_no_secret_is_in_the_file_nor_in_a_repr(path: Path) -> None:
    token = add(path)
    secret = token.rpartition(".")[2]
    assert secret not in path.read_text()
    [record] = read_records(path).values()
    assert record.sha256.hex() not in repr(record)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_any_other_text_is_refused(path: Path) -> None:
    token = add(path)
    file = TokenFile(str(path))
    secret = token.rpartition(".")[2]
    other_secret = new_token(ADA, 0, 0)[0]
    for wrong in (
        token[:-1],
        token + "A",
        token + "\n",
        token.swapcase(),
        other_secret,
        f"{PREFIX}bob.{secret}",
        f"{PREFIX}.{secret}",
        secret,
        PREFIX,
        "",
        "\ud800",
        f"{PREFIX}ada.\ud800",
        f"{PREFIX}ada.{read_records(path)['ada'].sha256.hex()}",
    ):
        assert "unknown here, or was revoked" in refusal(file, wrong), wrong


def test_the_name_belongs_to_the_token(path: Path) -> None:
    """A secret is good for its own name alone, even if somebody copies its line."""
    token = add(path)
    path.write_text(path.read_text().replace('"ada"', '"boss"'))
    assert "unknown" in refusal(TokenFile(str(path)), token.replace("ada", "boss"))


def test_a_token_expires(path: Path) -> None:
    now_s = NOW_S + 0.0
    token = add(path, expires_s=NOW_S + 10)
    file = TokenFile(str(path), lambda: now_s)
    assert file.known(token) == ADA
    now_s = NOW_S + 9.9
    assert file.known(token) == ADA
    now_s = NOW_S + 10.0
    assert "the token ada has expired" in refusal(file, token)
    assert "unknown" in refusal(file, token[:-1]), "who guesses is not told which have expired"


def test_a_change_is_taken_up_and_a_revoked_token_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_file, "LOOK_S", 0.001)
    first = add(path)
    file = TokenFile(str(path))

    async def run() -> None:
        watching = asyncio.create_task(file.watch())
        second = add(path, Principal("bob", "b", Role.ADMIN))
        while file.known(second) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert file.known(first) == ADA
        remove_record(path, "ada")
        while file.known(first) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert file.known(second) is not None
        watching.cancel()

    asyncio.run(asyncio.wait_for(run(), 30))
    assert "revoked" in refusal(file, first)


def test_a_file_that_breaks_or_goes_lets_in_who_was_let_in(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = add(path)
    file = TokenFile(str(path))
    with caplog.at_level(logging.WARNING):
        for broken in ("", "nonsense", path.read_text()[:-20]):
            path.write_text(broken)
            file._file.look()
            file._file.look()
            assert file.known(token) == ADA
        path.unlink()
        file._file.look()
    assert file.known(token) == ADA
    assert len(caplog.records) == 4
    assert hashlib.sha256(token.encode()).hexdigest() not in caplog.text


def test_people_may_write_in_it(path: Path) -> None:
    """Lines that say nothing stay, and a line that is deleted revokes."""
    add(path)
    add(path, Principal("bob", "b", Role.ADMIN))
    path.write_text("# ours\n\n" + path.read_text() + "  # the end\n")
    add(path, Principal("eve", "b", Role.VIEWER))
    remove_record(path, "bob")
    lines = path.read_text().splitlines()
    assert lines[0] == "# ours"
    assert "  # the end" in lines
    assert set(read_records(path)) == {"ada", "eve"}


def test_the_last_token_can_be_revoked(path: Path) -> None:
    token = add(path)
    path.write_text(path.read_text().splitlines()[-1] + "\n")
    file = TokenFile(str(path))
    remove_record(path, "ada")
    assert file._file.look()
    assert "revoked" in refusal(file, token)
    add(path)
    assert set(read_records(path)) == {"ada"}


def test_mode_and_owner_stay(path: Path) -> None:
    add(path)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 1234)
    add(path, Principal("bob", "b", Role.ADMIN))
    remove_record(path, "ada")
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o640
    if os.geteuid() == 0:
        assert (found.st_uid, found.st_gid) == (1234, 1234)
        lock = path.with_name(".tokens.lock").stat()
        assert (lock.st_uid, lock.st_gid) == (1234, 1234), "whose file it is can change it, too"


def test_a_name_is_there_once(path: Path) -> None:
    add(path)
    with pytest.raises(InvalidArgument, match="has a token ada already"):
        add(path)
    with pytest.raises(InvalidArgument, match="has no token of that name"):
        remove_record(path, "bob")
    assert len(read_records(path)) == 1


@pytest.mark.parametrize(
    ("name", "tenant"),
    [("", "t"), ("a b", "t"), ("a/b", "t"), ("a\n", "t"), ("a" * 65, "t"), ("a", ""), ("a", "ä")],
)
def test_names_and_tenants_that_are_none(name: str, tenant: str) -> None:
    with pytest.raises(InvalidArgument, match="is to be 1 to 64 of"):
        new_token(Principal(name, tenant, Role.TENANT), NOW_S, 0)


def line(**changes: object) -> bytes:
    _, record = new_token(ADA, NOW_S, NOW_S + 1)
    fields = {**json.loads(record.line()), **changes}
    return json.dumps({k: v for k, v in fields.items() if v != "gone"}).encode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"\xff", "it is not text"),
        (b"# x\n\nyes", "line 3: it is no record"),
        (b"[1]", "line 1: a record has created, expires"),
        (b"[" * 100_000, "line 1: it is no record"),
        (line(role="gone"), "a record has"),
        (line(also=1), "a record has"),
        (line(role="root"), "role is to be one of admin, tenant, viewer"),
        (line(role=["admin"]), "it is no record"),
        (line(tenant="a/b"), "the tenant is to be"),
        (line(tenant=None), "the tenant is to be"),
        (line(name=""), "the name is to be"),
        (line(sha256="00"), "sha256 has not 64"),
        (line(sha256="x" * 64), "it is no record"),
        (line(expires="soon"), "expires is no time like"),
        (line(expires="2027-01-01T00:00:00"), "expires is no time like"),
        (line(expires=0), "it is no record"),
        (line(expires="0001-01-01T00:00:00+00:00"), "expires is no time like"),
        (line(expires="9999-12-31T23:59:59-23:59"), "expires is no time like"),
        (line(created=None), "it is no record"),
        (line() + b"\n" + line(), "line 2: ada is there twice"),
    ],
)
def test_a_line_that_is_none_is_told_with_its_number(content: bytes, says: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(says)) as caught:
        parse_records(content)
    assert not re.search("[0-9a-f]{64}", str(caught.value))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@given(
    st.sampled_from(["name", "tenant", "role", "created", "expires", "sha256"]),
    _JSON,
    st.sampled_from(["", "Z", "+23:59", "-23:59"]),
)
def test_whatever_is_in_a_record_it_is_used_or_told(field: str, value: object, zone: str) -> None:
    value = value.isoformat() + zone if isinstance(value, datetime) else value
    try:
        content = line(**{field: value})
    except TypeError:  # a time in the midst of something else
        return
    try:
        [record] = parse_records(content).values()
    except InvalidArgument:
        return
    assert list(parse_records(record.line().encode()).values()) == [record]


@given(st.binary(max_size=60))
def test_any_bytes_are_lines_or_are_told(content: bytes) -> None:
    with suppress(InvalidArgument):
        assert parse_records(content) == {}


def test_records_are_read_as_they_were_written() -> None:
    _, record = new_token(ADA, NOW_S, NOW_S + 86_400)
    _, forever = new_token(Principal("x", "y", Role.VIEWER), NOW_S, 0)
    content = f"{record.line()}\n{forever.line()}\n".encode()
    assert list(parse_records(content).values()) == [record, forever]


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "does not exist: cosco token create --tokens .*tokens makes it"), (b"x", "line 1")],
)
def test_a_service_does_not_begin_with_a_file_that_is_none(
    path: Path, content: bytes | None, says: str
) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=says):
        TokenFile(str(path))
