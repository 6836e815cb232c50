"""`Connection`: what it names, where that comes from, and what never leaves it."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from cosco import Connection
from cosco.client.access.credentials import TOKEN_FILE_VARIABLE
from cosco.client.access.service_connection import connection_to
from cosco.client.rpc.known_services import KnownServices
from cosco.errors import InvalidArgument
from cosco.process.tls.authority import CA, make_authority
from cosco.process.tls.tls_files import CLIENT_VARIABLES, client_files
from cosco.protocol.capability import MAX_CHARACTERS

HERE = "127.0.0.1:7070"
SECRET = "cosco-token-secret"
CAPABILITY = "c" * MAX_CHARACTERS
FILES = {"ca": "/ca", "cert": "/cert", "key": "/key", "token_file": "/token"}
VARIABLES = ("COSCO_METADATA", TOKEN_FILE_VARIABLE, *CLIENT_VARIABLES)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_where_the_metadata_service_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection_to(None) == "127.0.0.1:7070"
    monkeypatch.setenv("COSCO_METADATA", "there:1")
    assert connection_to(None) == Connection("there:1")
    assert connection_to("here:2") == "here:2"
    given = Connection("here:3", **FILES)
    assert connection_to(given) is given
    for bad in ("here", 0, b"here:2", [], np.array(["here:2"])):
        with pytest.raises(InvalidArgument, match="host:port"):
            connection_to(bad)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="host"):
            Connection(bad)  # type: ignore[arg-type]


def test_it_is_equal_by_what_it_names() -> None:
    one = Connection(HERE, **FILES)
    same = Connection(HERE, **FILES | {"ca": Path("/ca")})
    assert one == same
    assert hash(one) == hash(same)
    assert one == Connection(HERE, **FILES).with_capability(CAPABILITY)
    for name in FILES:
        other = FILES | {name: "/other"}
        assert one != Connection(HERE, **other)
    assert one != Connection("there:1", **FILES)
    assert Connection(HERE, token=SECRET) == Connection(HERE, token="another")
    assert Connection(HERE) == HERE
    assert hash(Connection(HERE)) == hash(HERE)
    assert one != HERE
    assert Connection(HERE) != 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.address = "x:1"  # type: ignore[misc]


def test_as_a_whole_it_differs_by_its_secrets_as_well() -> None:
    wholes = {
        one.whole
        for one in (
            Connection(HERE),
            Connection(HERE, token=SECRET),
            Connection(HERE, token="another"),
            Connection(HERE, token=lambda: SECRET),
            Connection(HERE, token_file="/token"),
            Connection(HERE).with_capability(CAPABILITY),
        )
    }
    assert len(wholes) == 6


@pytest.mark.parametrize("token", [SECRET, lambda: SECRET])
def test_nothing_secret_is_shown_or_leaves_the_process(token: object) -> None:
    one = Connection(HERE, ca="/ca", token=token)  # type: ignore[arg-type]
    assert str(one) == HERE
    assert repr(one) == "Connection('127.0.0.1:7070', ca='/ca', token=...)"
    other = pickle.loads(pickle.dumps(one))
    assert SECRET.encode() not in pickle.dumps(one)
    assert other == one
    assert other.credential() is None
    for copied in (copy.copy(one), copy.deepcopy({1: one})[1]):
        source = copied.credential()
        assert source is not None
        assert source() == SECRET


def test_a_capability_takes_the_place_of_a_token_and_goes_where_it_goes(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    for plain in (Connection(HERE, token=SECRET), Connection(HERE, token_file=missing)):
        one = plain.with_capability(CAPABILITY)
        assert plain.with_capability("") is plain
        assert CAPABILITY not in f"{one} {one!r}"
        for made in (one, pickle.loads(pickle.dumps(one))):
            source = made.credential()
            assert source is not None
            assert source() == CAPABILITY


def test_what_is_not_named_is_of_the_environment_where_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Connection(HERE)
    assert one.credential() is None
    for name in ("driver", "worker"):
        (tmp_path / name).write_text(f"{name}\n")
        monkeypatch.setenv("COSCO_TOKEN_FILE", str(tmp_path / name))
        source = pickle.loads(pickle.dumps(one)).credential()
        assert source() == name
    assert Connection(HERE, token_file="").credential() is None, "an empty name is no file"
    source = Connection(HERE, token=SECRET).credential()
    assert source is not None
    assert source() == SECRET
    monkeypatch.setenv("COSCO_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(InvalidArgument, match="cannot be read"):
        one.credential()


def test_files_of_tls_are_named_or_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSCO_TLS_CA", "/of the environment")
    with pytest.raises(InvalidArgument, match="'/of the environment'"):
        client_files(names=Connection(HERE).tls)
    with pytest.raises(InvalidArgument, match="'/ca'"):
        client_files(names=Connection(HERE, **FILES).tls)
    assert client_files(names=Connection(HERE, ca="").tls) is None, "an empty name is no file"


@pytest.mark.parametrize(
    "wrong",
    [
        {"cert": "/cert"},
        {"key": "/key"},
        {"token": "t", "token_file": "/token"},
        {"token": ""},
        {"token": "two words"},
        {"token": 7},
        {"token_file": 7},
        {"ca": b"/ca"},
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        Connection(HERE, **wrong)  # type: ignore[arg-type]


def test_whose_files_are_others_has_met_nobody() -> None:
    services = KnownServices()
    named = Connection(HERE, **FILES)
    services.meet(HERE)
    assert services.has_met(Connection(HERE, token=SECRET))
    assert not services.has_met(named)
    services.vouch_for(named)
    assert services.has_met(named)
    services.end(HERE)
    assert not services.has_met(named)
    assert not services.has_met(HERE)
    services.vouch_for(named)
    assert not services.has_met(named), "it was ended here"


@pytest.mark.parametrize("secret", [{"token": SECRET}, {"token_file": "{file}"}, {}])
def test_nothing_secret_goes_over_a_network_without_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: dict[str, str]
) -> None:
    (tmp_path / "token").write_text(SECRET)
    make_authority(tmp_path / "certs", [], 1)
    given = {name: value.format(file=tmp_path / "token") for name, value in secret.items()}
    for address in ("node.example:7070", "10.1.2.3:7070"):
        one = Connection(address, **given).with_capability("" if secret else CAPABILITY)
        with pytest.raises(InvalidArgument, match="no TLS, so whoever is between") as caught:
            one.credential()
        assert SECRET not in str(caught.value)
        with monkeypatch.context() as patched:
            patched.setenv(CLIENT_VARIABLES[0], str(tmp_path / "certs" / CA))
            assert one.credential() is not None
        named = Connection(address, ca=tmp_path / "certs" / CA, **given)
        assert (named.credential() is None) == (not secret)
    assert Connection("node.example:7070").credential() is None
