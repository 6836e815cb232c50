"""TLS for a cluster of a benchmark, and for whoever uses it from this process or its children."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cosco.errors import InvalidArgument
from cosco.process.tls.tls_files import CLIENT_VARIABLES


@contextmanager
def cluster_options(directory: str | None, *, tls: bool) -> Iterator[dict[str, Any]]:
    """Return options of a `LocalCluster`, with certificates that are gone at the end, and have the
    environment name those of a client.

    directory: where they are for that time; None: where the system has such things. tls: False:
    there are none.

    Raises: InvalidArgument without the library that makes certificates.
    """
    if not tls:
        yield {}
        return
    try:
        from cosco.process.tls.authority import CA, make_authority  # noqa: PLC0415
    except ImportError:
        raise InvalidArgument("--tls needs certificates: run pip install 'cosco[tls]'") from None
    before = {name: os.environ.get(name) for name in CLIENT_VARIABLES}
    with tempfile.TemporaryDirectory(prefix="cosco-tls-", dir=directory) as made:
        place = Path(made)
        make_authority(place, [], 1)

        def of(role: str) -> tuple[str, str, str]:
            names = (CA, f"{role}.pem", f"{role}-key.pem")
            return tuple(str(place / name) for name in names)  # type: ignore[return-value]

        def options(role: str) -> list[str]:
            ca, cert, key = of(role)
            return ["--tls-ca", ca, "--tls-cert", cert, "--tls-key", key]

        os.environ.update(zip(CLIENT_VARIABLES, of("client"), strict=True))
        try:
            yield {"metadata_options": options("metadata"), "daemon_options": options("daemon")}
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
