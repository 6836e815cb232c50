"""What tests of stores share: real servers, as long as the session, and credentials for them.

They have an environment of their own (`make stores`). A server that could not be installed is
said, and its tests are skipped; all others run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from support.http_faults import HttpFaults
from support.s3_servers import (
    ACCESS_KEY,
    SECRET_KEY,
    VERSITYGW,
    S3Server,
    rclone,
    versitygw,
)

pytest.register_assert_rewrite("cosco.dfs.testing")

_VARIABLES = ("AWS_", "AZURE_", "GOOGLE_")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have the environment of every test name the servers' user, and nothing of the machine's."""
    for name in list(os.environ):
        if name.startswith(_VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


@pytest.fixture(scope="session")
def versity_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One gateway for all tests, each with a prefix of its own."""
    if not VERSITYGW.exists():
        pytest.skip("versitygw is not installed: `make stores` says what is missing")
    with versitygw(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One rclone for all tests."""
    with rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture
def faults(versity_server: S3Server) -> Iterator[HttpFaults]:
    """A proxy before the gateway."""
    proxy = HttpFaults(versity_server.address)
    yield proxy
    proxy.close()


@pytest.fixture
def faulty_url(faults: HttpFaults, versity_server: S3Server) -> Callable[..., str]:
    """Give URLs of one store behind the proxy: of its own prefix, with short time-outs."""
    direct = versity_server.url()

    def url(more: str = "&timeout_s=2&retry_s=4") -> str:
        return direct.replace(versity_server.address, faults.address) + more

    return url
