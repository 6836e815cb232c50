"""Credentials of S3 out of the files of AWS' tools, which obstore does not read.

The usual order is kept: variables of the environment, then these files, then the role of the
container or of the machine. Only the second is done here, and obstore does the others.
"""

from __future__ import annotations

import configparser
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cosco.errors import InvalidArgument

#: With one of these obstore finds the credentials by itself.
_OTHERS: Final = (
    "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_SKIP_SIGNATURE",
)  # fmt: skip
#: What only AWS' own library can turn into credentials.
_ROUNDABOUT: Final = (
    "credential_process", "role_arn", "source_profile", "sso_session", "sso_start_url",
    "web_identity_token_file", "login_session",
)  # fmt: skip
#: How long credentials are used before the file, which may have been renewed, is read again.
_KEEP: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a profile says; `credentials` is what obstore calls whenever it needs some."""

    region: str | None
    credentials: Callable[[], dict[str, Any]] | None


def find_profile(environment: Mapping[str, str]) -> Profile:
    """Return the profile that the environment names, or the default one.

    Without credentials, if these come from elsewhere. Raises InvalidArgument for a profile that
    is named and missing, or needs a library that is.
    """
    name = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE")
    section = _read(name or "default", environment)
    region = section.get("region")
    if any(environment.get(variable) for variable in _OTHERS):
        return Profile(region, None)
    if "aws_access_key_id" in section:
        return Profile(region, _Static(name or "default", environment))
    roundabout = next((key for key in _ROUNDABOUT if key in section), None)
    if roundabout is not None:
        return Profile(region, _of_botocore(name, roundabout))
    if name and not section:
        raise InvalidArgument(f"AWS_PROFILE names {name!r}, and no file of profiles has it")
    return Profile(region, None)


def _read(name: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the profile's section of both files, joined."""
    home = Path(environment.get("HOME") or "/")
    files = {
        "AWS_CONFIG_FILE": (home / ".aws/config", name if name == "default" else f"profile {name}"),
        "AWS_SHARED_CREDENTIALS_FILE": (home / ".aws/credentials", name),
    }
    found: dict[str, str] = {}
    for variable, (usual, section) in files.items():
        path = Path(environment.get(variable) or usual)
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            # What the parser says quotes the line, which may be a secret.
            raise InvalidArgument(f"{str(path)!r} cannot be read as a file of profiles") from None
        if parser.has_section(section):
            found.update(parser[section])
    return found


class _Static:
    """Keys that stand in the files, which are read again before they could have become stale."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self._name = name
        self._environment = dict(environment)

    def __call__(self) -> dict[str, Any]:
        section = _read(self._name, self._environment)
        try:
            return {
                "access_key_id": section["aws_access_key_id"],
                "secret_access_key": section["aws_secret_access_key"],
                "token": section.get("aws_session_token"),
                "expires_at": datetime.now(UTC) + _KEEP,
            }
        except KeyError as error:
            raise PermissionError(
                f"the profile {self._name!r} has credentials without {error.args[0]}"
            ) from None


def _of_botocore(name: str | None, key: str) -> Callable[[], dict[str, Any]]:
    try:
        session = importlib.import_module("botocore.session").Session(profile=name)
    except ImportError:
        raise InvalidArgument(
            f"the profile {name or 'default'!r} has {key}, which AWS' own library must carry out: "
            "pip install botocore, or give credentials by the environment"
        ) from None

    def credentials() -> dict[str, Any]:
        found = session.get_credentials()
        if found is None:
            raise PermissionError(f"the profile {name or 'default'!r} gives no credentials")
        frozen = found.get_frozen_credentials()  # which renews those that are about to expire
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _KEEP,
        }

    return credentials
