"""How a service speaks TLS, as its options say: to who connects, and to other services."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Final

from cosco.config import DaemonConfig, MetadataConfig
from cosco.errors import InvalidArgument
from cosco.process.tls.native_tls import Tls, native_client, native_server, without_tls
from cosco.process.tls.tls_files import TlsFiles
from cosco.protocol.peer import NAMES, ServiceNames


class ServiceTls:
    """The files of a service, or none: then it speaks without TLS."""

    def __init__(
        self,
        files: TlsFiles | None,
        native: ModuleType | None,
        *,
        requires_client_cert: bool = True,
        names: ServiceNames = NAMES,
    ) -> None:
        """native: the native part, if that is what carries calls. names: by which services are
        known.

        Raises: InvalidArgument for files that the transport cannot use, and if certificates of
        clients are optional without the native part.
        """
        self.files: Final = files
        self.names: Final = names if files is not None else NAMES
        #: What the native server serves connections by, and what native channels connect by.
        self.server: Tls = without_tls
        self.client: Tls = without_tls
        if files is None:
            return
        if native is not None:
            self.server = native_server(native, files, requires_client_cert=requires_client_cert)
            self.client = native_client(native, files, looks=False)
        elif not requires_client_cert:
            raise InvalidArgument(
                "--tls-client-auth optional needs the native part, which is not installed or off: "
                "grpcio asks every client for a certificate, or none"
            )

    async def watch(self) -> None:
        """Have changed files taken up, until this is cancelled."""
        if self.files is None:
            await asyncio.get_running_loop().create_future()
            return
        await self.files.watch()


def service_tls(config: MetadataConfig | DaemonConfig, native: ModuleType | None) -> ServiceTls:
    """Return what the options of a service say.

    Raises: InvalidArgument as `TlsFiles` and `ServiceTls`.
    """
    files = None
    if config.tls_cert:
        files = TlsFiles(config.tls_ca, config.tls_cert, config.tls_key)
    required = config.tls_client_auth == "require"
    names = ServiceNames(config.daemon_san, config.metadata_san, is_checked=True)
    return ServiceTls(files, native, requires_client_cert=required, names=names)


#: Without TLS.
PLAIN: Final = ServiceTls(None, None)
