"""A plugin of pytest: all services have TLS and ask for tokens, and this process is a client with a
certificate and the token of an admin.

`pytest -p support.with_tls` runs tests so that know nothing of it; see `make test-tls`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from support.processes import Service

from cosco import LocalCluster
from cosco.client.access.credentials import TOKEN_FILE_VARIABLE
from cosco.metadata.access.token_file import add_record
from cosco.metadata.access.token_records import new_token
from cosco.process.tls.authority import CA, make_authority
from cosco.process.tls.tls_files import CLIENT_VARIABLES
from cosco.protocol.peer import Principal, Role

#: Modules of services, and whose certificate each has.
_ROLES = {"cosco.cli.metadata": "metadata", "cosco.cli.shuffled": "daemon"}


def options(directory: Path, role: str) -> list[str]:
    """Return the options of a service that has the certificate of a role, and asks for the tokens
    of `make_token` if there are any."""
    tokens = directory / "tokens"
    return [
        *("--tls-ca", str(directory / CA)),
        *("--tls-cert", str(directory / f"{role}.pem")),
        *("--tls-key", str(directory / f"{role}-key.pem")),
        *(("--tokens", str(tokens)) if role == "metadata" and tokens.exists() else ()),
    ]


def make_token(directory: Path, name: str, tenant: str, role: Role) -> Path:
    """Have a token that the metadata service knows, and return its file."""
    token, record = new_token(Principal(name, tenant, role), int(time.time()), 0)
    add_record(directory / "tokens", record)
    path = directory / f"{name}.token"
    path.write_text(token)
    return path


def pytest_configure(config: pytest.Config) -> None:
    directory = Path(tempfile.mkdtemp(prefix="cosco-tls-"))
    config.add_cleanup(lambda: shutil.rmtree(directory))
    make_authority(directory, [], 30)
    for variable, file in zip(CLIENT_VARIABLES, (CA, "client.pem", "client-key.pem"), strict=True):
        os.environ[variable] = str(directory / file)
    os.environ[TOKEN_FILE_VARIABLE] = str(make_token(directory, "tests", "tests", Role.ADMIN))
    make = LocalCluster.__init__

    def with_tls(
        self: LocalCluster,
        *arguments: Any,
        metadata_options: Any = (),
        daemon_options: Any = (),
        **others: Any,
    ) -> None:
        make(
            self,
            *arguments,
            metadata_options=[*options(directory, "metadata"), *metadata_options],
            daemon_options=[*options(directory, "daemon"), *daemon_options],
            **others,
        )

    LocalCluster.__init__ = with_tls  # type: ignore[method-assign]
    begin = Service.__init__

    def service_with_tls(
        self: Service, module: str, given: Iterable[str], *arguments: Any, **others: Any
    ) -> None:
        role = _ROLES.get(module)
        begin(
            self,
            module,
            [*(options(directory, role) if role else ()), *given],
            *arguments,
            **others,
        )

    Service.__init__ = service_with_tls  # type: ignore[method-assign, assignment]
