"""A cluster in which all examples of the HTTP interface can be tried, and what they answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.exchanges import numbered, send
from support.http_client import JSON as TYPED
from support.http_client import Web, url_of
from support.log_lines import JSON
from support.processes import Services

from cosco import CoscoApplication, CoscoExchange, CoscoExchangeGroup
from cosco.metadata.http.document.examples import Example

#: What stands in examples for what each cluster has of its own.
DAEMON, STORE = "127.0.0.1:7071", "3f1c"


class Tried:
    """Sends the requests of examples."""

    def __init__(self, services: Services) -> None:
        self.web = Web(url_of(services.metadata_service))
        self._daemon = services.daemons[0].address
        spare = services.daemons[2].address
        daemons = self.web.get("daemons")["daemons"]
        [self.gone] = [d["store_id"] for d in daemons if d["address"] == spare]
        services.daemons[2].kill()

    def answer(self, example: Example) -> tuple[int, Any]:
        """The status, and the body: as JSON if it is that; of what goes on for ever its first
        message."""
        target = example.target.replace(DAEMON, self._daemon).replace(STORE, self.gone)
        if target.endswith("/live"):
            connection = self.web.connection()
            connection.request("GET", target)
            reply = connection.getresponse()
            lines = [reply.readline().decode() for _ in range(3)]
            connection.close()
            return reply.status, "".join(lines)
        sends = example.method == "POST"
        body = None if example.body is None else json.dumps(example.body)
        got = self.web.ask(target, example.method, body, TYPED if sends else None)
        is_json = "json" in got.headers.get("content-type", "")
        return got.status, got.json() if is_json else got.body


@contextmanager
def trying(directory: Path) -> Iterator[Tried]:
    """A service with three daemons, of which one is gone with a store of its own, and exchanges."""
    options = (*JSON, "--daemon-lease-s", "1", "--adoption-grace-s", "0")
    with Services(directory, metadata_options=options) as services:
        for store in (None, None, f"file://{directory}/own"):
            services.daemon("--heartbeat-s", "0.2", "--memory", "16MiB", store=store)
        metadata = services.metadata
        with (
            CoscoExchange("orders/2026", 8, replicas=1, metadata=metadata),
            CoscoExchange("old", 2, replicas=1, metadata=metadata),
            CoscoExchangeGroup("batches", 2, 3, 1, replicas=1, metadata=metadata),
            CoscoApplication("report", metadata=metadata) as application,
            CoscoExchange("sales", 2, replicas=1, metadata=metadata, application=application),
        ):
            send("orders/2026", 0, numbered(0, 80, partitions=8), metadata)
            yield Tried(services)
