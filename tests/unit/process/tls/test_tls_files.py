"""Files of TLS: read, checked, and taken up when they change."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from cosco.errors import InvalidArgument
from cosco.process.tls import tls_files
from cosco.process.tls.authority import CA, CA_KEY, ROLES, make_authority, renew
from cosco.process.tls.tls_files import TlsFiles, client_files


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_files, "FIRST_S", 0.0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_authority(tmp_path / "certs", ["a.example", "10.1.2.3"], 30)
    return tmp_path / "certs"


def of(directory: Path, role: str = "daemon") -> TlsFiles:
    names = (CA, f"{role}.pem", f"{role}-key.pem")
    return TlsFiles(*(str(directory / name) for name in names))


def swap(path: Path, content: bytes) -> None:
    """As whoever renews does: the file is another one at once."""
    other = path.with_suffix(".new")
    other.write_bytes(content)
    other.replace(path)


def test_what_files_have(directory: Path) -> None:
    content = of(directory).content
    assert content.ca == (directory / CA).read_bytes()
    assert content.cert == (directory / "daemon.pem").read_bytes()
    assert content.key == (directory / "daemon-key.pem").read_bytes()
    assert "PRIVATE" not in repr(content)


def test_a_client_may_have_no_certificate(directory: Path) -> None:
    content = TlsFiles(str(directory / CA)).content
    assert (content.cert, content.key) == (b"", b"")


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda d: (d / CA).unlink(), "ca.pem' cannot be read: no such file"),
        (lambda d: (d / CA).write_text("nothing"), "ca.pem' is no file of PEM"),
        (
            lambda d: (d / CA).write_text(
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
            ),
            "ca.pem' has no certificate",
        ),
        (lambda d: (d / "daemon.pem").unlink(), "daemon.pem' cannot be read"),
        (lambda d: (d / "daemon-key.pem").write_bytes(b"\0" * 100), "no file of PEM"),
        (
            lambda d: (d / "daemon-key.pem").write_bytes((d / "client-key.pem").read_bytes()),
            "are no certificate and its key: key values mismatch",
        ),
        (
            lambda d: (d / "daemon.pem").write_bytes(b"-----BEGIN " + b"x" * (2 << 20)),
            "no file of PEM",
        ),
    ],
)
def test_what_cannot_be_used_is_told(
    directory: Path, break_it: Callable[[Path], object], says: str
) -> None:
    break_it(directory)
    with pytest.raises(InvalidArgument, match=says):
        of(directory)


def test_a_key_with_a_password_is_not_asked_for(directory: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    path = directory / "daemon-key.pem"
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(InvalidArgument, match="has a password"):
        of(directory)


def test_new_files_are_taken_up(directory: Path) -> None:
    files = of(directory)
    before = files.content
    renew(directory, [], 30)
    assert files.content is before, "nothing is read until it is looked"
    files.look()
    assert files.content.cert == (directory / "daemon.pem").read_bytes() != before.cert
    assert files.content.key == (directory / "daemon-key.pem").read_bytes()
    taken = files.content
    files.look()
    assert files.content is taken


def test_half_a_rotation_changes_nothing(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A new certificate with the old key, until the key comes."""
    files = of(directory)
    before = files.content
    old_key = (directory / "daemon-key.pem").read_bytes()
    renew(directory, [], 30)
    new_key = (directory / "daemon-key.pem").read_bytes()
    swap(directory / "daemon-key.pem", old_key)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            files.look()
    assert files.content is before
    assert len(caplog.records) == 1, "told once"
    assert "stay as they were" in caplog.text
    assert "PRIVATE" not in caplog.text
    swap(directory / "daemon-key.pem", new_key)
    files.look()
    assert files.content.key == new_key


def test_files_that_are_gone_change_nothing(directory: Path) -> None:
    files = of(directory)
    before = files.content
    content = (directory / "daemon.pem").read_bytes()
    (directory / "daemon.pem").unlink()
    files.look()
    assert files.content is before
    swap(directory / "daemon.pem", content)
    files.look()
    assert files.content == before


def test_who_begins_amid_a_rotation_waits_for_its_end(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_files, "FIRST_S", 60.0)
    new_key = (directory / "daemon-key.pem").read_bytes()
    swap(directory / "daemon-key.pem", (directory / "client-key.pem").read_bytes())
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            swap(directory / "daemon-key.pem", new_key)

    monkeypatch.setattr(tls_files.time, "sleep", sleep)
    assert of(directory).content.key == new_key
    assert len(waits) == 3


def test_old_files_that_do_not_fit_are_not_waited_for(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_files, "FIRST_S", 60.0)
    monkeypatch.setattr(tls_files.time, "sleep", lambda _: pytest.fail("it waits"))
    (directory / "daemon-key.pem").write_bytes((directory / "client-key.pem").read_bytes())
    for path in directory.iterdir():
        os.utime(path, (1, 1))
    with pytest.raises(InvalidArgument, match="key values mismatch"):
        of(directory)


def test_a_forked_child_waits_for_no_thread_of_its_parent(directory: Path) -> None:
    files = of(directory)
    assert files._looking.acquire(blocking=False)  # as a thread that looks at the fork
    renew(directory, [], 30)
    before = files.content
    files.look()
    assert files.content is before
    files.in_child()
    files.look()
    assert files.content is not before


def test_it_is_looked_at_most_so_often(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(tls_files.time, "monotonic", lambda: now)
    files = of(directory)
    renew(directory, [], 30)
    now += tls_files.LOOK_S * 0.9
    before = files.content
    assert files.current() is before
    now += tls_files.LOOK_S * 0.2
    assert files.current() is not before


def test_who_watches_takes_them_up(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_files, "LOOK_S", 0.01)

    async def test() -> None:
        files = of(directory)
        before = files.content
        watching = asyncio.create_task(files.watch())
        renew(directory, [], 30)
        async with asyncio.timeout(10):
            while files.content is before:  # noqa: ASYNC110 (there is no event for it)
                await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.wait((watching,))

    asyncio.run(test())


def test_what_the_environment_says(directory: Path) -> None:
    ca, cert, key = (str(directory / name) for name in (CA, "client.pem", "client-key.pem"))
    assert client_files({}) is None
    alone = client_files({"COSCO_TLS_CA": ca})
    assert alone is not None
    assert alone.content.cert == b""
    both = {"COSCO_TLS_CA": ca, "COSCO_TLS_CERT": cert, "COSCO_TLS_KEY": key}
    found = client_files(both)
    assert found is not None
    assert found.content.key == Path(key).read_bytes()
    assert client_files(both) is found, "clients of a process share them"
    with pytest.raises(InvalidArgument, match="COSCO_TLS_CA is not"):
        client_files({"COSCO_TLS_CERT": cert, "COSCO_TLS_KEY": key})
    with pytest.raises(InvalidArgument, match="name both, or neither"):
        client_files({"COSCO_TLS_CA": ca, "COSCO_TLS_CERT": cert})


# --- an authority of one's own --------------------------------------------------------------


def names_of(path: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = {str(one) for one in names.get_values_for_type(x509.IPAddress)}
    return found | set(names.get_values_for_type(x509.DNSName))


def test_who_serves_has_the_hosts_and_a_client_has_none(directory: Path) -> None:
    """A client's key is in many hands: it must not be able to stand for a service."""
    for role, own_name in ROLES.items():
        found = names_of(directory / f"{role}.pem")
        if role == "client":
            assert found == {own_name}
        else:
            assert {own_name, "a.example", "10.1.2.3", "localhost", "127.0.0.1", "::1"} <= found


def test_keys_are_for_their_owner_alone(directory: Path) -> None:
    for path in directory.iterdir():
        mode = path.stat().st_mode & 0o777
        assert mode == (0o600 if path.name.endswith("-key.pem") else 0o644), path
    assert not [path for path in directory.iterdir() if path.name.startswith(".")]


def test_an_authority_is_not_made_twice(directory: Path) -> None:
    before = (directory / CA).read_bytes()
    with pytest.raises(InvalidArgument, match="has an authority already"):
        make_authority(directory, [], 30)
    assert (directory / CA).read_bytes() == before


def test_what_is_renewed_is_for_the_same_hosts(directory: Path) -> None:
    before = names_of(directory / "daemon.pem")
    renew(directory, [], 30)
    assert names_of(directory / "daemon.pem") == before
    renew(directory, ["b.example"], 30)
    assert "b.example" in names_of(directory / "daemon.pem")
    assert "a.example" not in names_of(directory / "daemon.pem")


@pytest.mark.parametrize("host", ["", "a b", "a/b", "ä.example", "a:1"])
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidArgument):
        make_authority(tmp_path / "c", [host], 30)
    assert not (tmp_path / "c").exists()


def test_what_is_renewed_keeps_its_owner_its_mode_and_its_place(directory: Path) -> None:
    """A service that runs as another user still reads it."""
    key = directory / "daemon-key.pem"
    key.chmod(0o640)
    if os.getuid() == 0:
        os.chown(key, 1234, 4321)
    elsewhere = directory.parent / "elsewhere.pem"
    (directory / "daemon.pem").rename(elsewhere)
    (directory / "daemon.pem").symlink_to(elsewhere)
    before = key.stat()
    renew(directory, [], 30)
    after = key.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode, before.st_uid, before.st_gid,
    )  # fmt: skip
    assert (directory / "daemon.pem").is_symlink()
    TlsFiles(str(directory / CA), str(elsewhere), str(key))


def test_renewing_needs_the_authority(directory: Path) -> None:
    (directory / CA_KEY).unlink()
    with pytest.raises(InvalidArgument, match="no authority to renew by"):
        renew(directory, [], 30)
