"""Credentials out of the files of AWS' tools."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from cosco.dfs.objects.aws_profiles import find_profile
from cosco.errors import InvalidArgument

CREDENTIALS = """
[default]
aws_access_key_id = AKDEFAULT
aws_secret_access_key = hush-default
[work]
aws_access_key_id=AKWORK
aws_secret_access_key=hush%work
aws_session_token=hush-token
[half]
aws_access_key_id=AKHALF
"""
CONFIG = """
[default]
region = eu-one-1
[profile work]
region = eu-two-2
[profile sso]
sso_session = corp
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(CREDENTIALS)
    (tmp_path / ".aws/config").write_text(CONFIG)
    return {"HOME": str(tmp_path)}


def test_the_default_profile(home: dict[str, str]) -> None:
    profile = find_profile(home)
    assert profile.region == "eu-one-1"
    assert profile.credentials is not None
    given = profile.credentials()
    assert (given["access_key_id"], given["secret_access_key"]) == ("AKDEFAULT", "hush-default")
    assert given["token"] is None


@pytest.mark.parametrize("variable", ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])
def test_a_profile_that_is_named(home: dict[str, str], variable: str) -> None:
    profile = find_profile(home | {variable: "work"})
    assert profile.region == "eu-two-2"
    assert profile.credentials is not None
    given = profile.credentials()
    assert (given["secret_access_key"], given["token"]) == ("hush%work", "hush-token")
    assert "hush" not in repr(profile)


def test_keys_that_were_renewed_are_found(home: dict[str, str]) -> None:
    profile = find_profile(home)
    assert profile.credentials is not None
    before = profile.credentials()
    file = Path(home["HOME"]) / ".aws/credentials"
    file.write_text(CREDENTIALS.replace("hush-default", "hush-renewed"))
    after = profile.credentials()
    assert after["secret_access_key"] == "hush-renewed"
    assert after["expires_at"] >= before["expires_at"]


@pytest.mark.parametrize(
    "variable",
    [
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ],
)
def test_the_environment_goes_first(home: dict[str, str], variable: str) -> None:
    profile = find_profile(home | {variable: "x"})
    assert profile.credentials is None
    assert profile.region == "eu-one-1"


def test_files_elsewhere(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text(CREDENTIALS.replace("AKDEFAULT", "AKMINE"))
    profile = find_profile(home | {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "mine")})
    assert profile.credentials is not None
    assert profile.credentials()["access_key_id"] == "AKMINE"


def test_without_files_there_is_nothing(tmp_path: Path) -> None:
    profile = find_profile({"HOME": str(tmp_path)})
    assert (profile.region, profile.credentials) == (None, None)


def test_what_makes_no_sense_is_said_without_secrets(home: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match=r"AWS_PROFILE names 'other', and no file"):
        find_profile(home | {"AWS_PROFILE": "other"})
    half = find_profile(home | {"AWS_PROFILE": "half"})
    assert half.credentials is not None
    with pytest.raises(PermissionError, match="without aws_secret_access_key"):
        half.credentials()
    (Path(home["HOME"]) / ".aws/credentials").write_text("hush-default\n[x")
    with pytest.raises(InvalidArgument, match="cannot be read as a file of profiles") as caught:
        find_profile(home)
    assert "hush" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.skipif(
    importlib.util.find_spec("botocore") is not None, reason="botocore is installed"
)
def test_a_profile_that_needs_a_library_names_it(home: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match=r"'sso' has sso_session.*pip install botocore"):
        find_profile(home | {"AWS_PROFILE": "sso"})
