"""What serves HTTP beside the service: the interface, or without its packages a small endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from cosco.config import MetadataConfig, is_loopback
from cosco.errors import InvalidArgument
from cosco.metadata.service.behind import Behind
from cosco.process.exposition import METRICS_PATH
from cosco.process.health import Health
from cosco.process.http_endpoint import HttpEndpoint, Resource
from cosco.process.tls.tls_files import TlsFiles

log = logging.getLogger(__name__)


class Http(Protocol):
    """What serves HTTP at `address`, host:port, by `url`."""

    address: str
    url: str

    def attach(self, behind: Behind) -> None:
        """Serve what a service has."""

    async def close(self) -> None:
        """Stop."""


class SmallEndpoint:
    """Serves metrics and health alone, in threads of its own."""

    def __init__(self, config: MetadataConfig, metrics: Resource, health: Health) -> None:
        """Raises InvalidArgument if it cannot listen, or would serve what is to be HTTPS."""
        listen, option = config.http_listen, f"--http {config.http}"
        if config.tls_cert and not is_loopback(listen):
            if not config.insecure:
                raise InvalidArgument(
                    f"{option} needs HTTPS, for which packages are missing: run "
                    "pip install 'cosco[http]', or name an address of the loopback"
                )
            log.warning("--insecure: metrics at %s are for everybody, in plain HTTP", listen)
        resources = {METRICS_PATH: metrics, **health.resources()}
        self._endpoint = HttpEndpoint(listen, resources, option)
        self.address = self._endpoint.address
        self.url = f"http://{self.address}"

    def attach(self, _: Behind) -> None:
        """Do nothing: metrics and health are known."""

    async def close(self) -> None:
        """Stop."""
        await asyncio.to_thread(self._endpoint.close)


def open_http(
    config: MetadataConfig,
    tls: TlsFiles | None,
    metrics: Resource,
    health: Health,
    readiness: Callable[[], Sequence[str]],
) -> Http | None:
    """Return what serves HTTP as the options say; None: nothing does.

    Raises: InvalidArgument if it cannot.
    """
    if not config.http_listen:
        return None
    try:
        # What this imports takes a while, and is there with the extra alone.
        from cosco.metadata.http.site.http_site import HttpSite  # noqa: PLC0415
    except ImportError as error:
        log.info(
            "HTTP serves metrics and health alone, as %s is missing: pip install 'cosco[http]' "
            "has the rest of it, see docs/http.md",
            error.name or "a package",
        )
        return SmallEndpoint(config, metrics, health)
    return HttpSite(config, tls, metrics, readiness)
