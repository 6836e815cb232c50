"""`cosco token` as processes: what it prints, where, and what it does not."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest
from support.commands import command, environment

from cosco.metadata.access.token_file import TokenFile, read_records
from cosco.protocol.peer import Principal, Role


def run(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("main", "token", *args),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(**variables),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def test_a_token_is_printed_alone_and_once(path: Path) -> None:
    made = run("create", "--tokens", str(path), "--tenant", "a", "--role", "tenant")
    assert made.returncode == 0, made.stderr
    token = made.stdout.removesuffix("\n")
    assert "\n" not in token
    assert "shown once" in made.stderr
    assert token not in made.stderr
    found = TokenFile(str(path)).known(token)
    assert found is not None
    assert (found.tenant, found.role) == ("a", Role.TENANT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for shown in (run("list", "--tokens", str(path)), run("list", "--json", "--tokens", str(path))):
        assert token.rpartition(".")[2] not in shown.stdout + shown.stderr
        [record] = read_records(path).values()
        assert record.sha256.hex() not in shown.stdout


def test_a_token_for_a_file_is_printed_nowhere(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "token"
    options = ("--tenant", "a", "--role", "admin", "--name", "boss", "--out", str(out))
    made = run("create", *options, COSCO_METADATA_TOKENS=str(path))
    assert made.returncode == 0, made.stderr
    token = out.read_text().removesuffix("\n")
    assert token not in made.stdout + made.stderr
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert TokenFile(str(path)).known(token) == Principal("boss", "a", Role.ADMIN)
    again = run("create", *options, "--tokens", str(path))
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert out.read_text() == f"{token}\n", "what is there stays"


def test_what_fails_leaves_no_token_behind(path: Path, tmp_path: Path) -> None:
    path.write_text("nonsense\n")
    options = ("--tokens", str(path), "--tenant", "a", "--role", "admin")
    made = run("create", *options, "--out", str(tmp_path / "token"))
    assert made.returncode == 2
    assert not (tmp_path / "token").exists()
    made = run("create", *options)
    assert (made.returncode, made.stdout) == (2, "")
    assert made.stderr.startswith(f"cosco: '{path}' is no file of tokens: line 1")
    assert path.read_text() == "nonsense\n"


def test_tokens_are_listed_and_revoked(path: Path) -> None:
    for name, role, more in (("ada", "tenant", ()), ("bob", "viewer", ("--expires-days", "30"))):
        options = ("--tenant", "a", "--role", role, "--name", name, *more)
        assert run("create", "--tokens", str(path), *options).returncode == 0
    listed = run("list", "--tokens", str(path))
    lines = listed.stdout.splitlines()
    assert lines[0] == "2 tokens"
    assert lines[2].split() == ["name", "tenant", "role", "created", "expires"]
    assert lines[3].split()[:3] == ["ada", "a", "tenant"]
    assert lines[3].endswith("never")
    ada, bob = json.loads(run("list", "--json", "--tokens", str(path)).stdout)
    assert (ada["expires"], bob["expired"]) == (None, False)
    assert bob["expires"] > bob["created"]
    done = run("revoke", "ada", "--tokens", str(path))
    assert (done.returncode, done.stdout) == (0, "ada is revoked\n")
    assert set(read_records(path)) == {"bob"}
    done = run("revoke", "ada", "--tokens", str(path))
    assert done.returncode == 2
    assert "has no token of that name" in done.stderr
    done = run("revoke", "bob", "--json", "--tokens", str(path))
    assert json.loads(done.stdout) == {"name": "bob", "revoked": True}


def test_commands_at_a_time_lose_no_token(path: Path) -> None:
    """Each reads the file, and writes it with a line more or less."""
    run("create", "--tokens", str(path), "--tenant", "a", "--role", "viewer", "--name", "old")
    options = ("--tokens", str(path), "--tenant", "a", "--role", "tenant", "--name")
    calls = [("create", *options, f"t{number}") for number in range(6)]
    calls.append(("revoke", "old", "--tokens", str(path)))
    started = [
        subprocess.Popen(command("main", "token", *call), stdout=subprocess.PIPE, env=environment())
        for call in calls
    ]
    printed = [process.communicate(timeout=60)[0].decode().strip() for process in started]
    assert {process.returncode for process in started} == {0}
    assert set(read_records(path)) == {f"t{number}" for number in range(6)}
    file = TokenFile(str(path))
    assert all(file.known(token) is not None for token in printed[:-1])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("create", "--tenant", "a b", "--role", "tenant"), "the tenant is to be 1 to 64 of"),
        (("create", "--tenant", "a", "--role", "root"), "--role"),
        (("create", "--tenant", "a", "--role", "admin", "--expires-days", "0"), "--expires-days"),
        (("create", "--tenant", "a", "--role", "admin", "--name", "x y"), "the name is to be"),
        (("list",), "cannot be read: no such file"),
        (("revoke", "a"), "cannot be read: no such file"),
    ],
)
def test_what_cannot_be_is_one_line(path: Path, args: tuple[str, ...], says: str) -> None:
    done = run(*args, "--tokens", str(path))
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.startswith("cosco: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not path.exists()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "none" / "tokens"
    done = run("create", "--tokens", str(path), "--tenant", "a", "--role", "admin")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"cosco: {path} cannot be changed: no such file or directory\n"
