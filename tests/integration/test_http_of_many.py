"""HTTP about an exchange of as many partitions as may be: its loop goes on for all others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.http_client import Web
from support.metadata_service import Service, run

from cosco.config import MetadataConfig
from cosco.metadata.http.routes import exchange_routes
from cosco.metadata.http_choice import Http
from cosco.metadata.server import MetadataService
from cosco.metadata.store.database import open_database
from cosco.protocol.api_limits import MAX_PARTITIONS


class WithHttp(MetadataService):
    """A service that tells where its HTTP is."""

    http: Http | None = None

    def _open_http(self) -> Http | None:
        self.http = super()._open_http()
        return self.http


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> dict[str, threading.Thread]:
    """In which thread the sizes of partitions were looked at last, by what looked."""
    found: dict[str, threading.Thread] = {}

    def watch(name: str) -> None:
        real: Callable[..., Any] = getattr(exchange_routes, name)

        def watched(*args: Any, **options: Any) -> Any:
            found[name] = threading.current_thread()
            return real(*args, **options)

        monkeypatch.setattr(exchange_routes, name, watched)

    watch("size_page")
    watch("size_picture")
    return found


def test_sizes_of_many_partitions_are_looked_at_in_threads(
    tmp_path: Path, threads: dict[str, threading.Thread]
) -> None:
    async def main() -> None:
        path = f"{tmp_path}/metadata.db"
        config = MetadataConfig(listen="127.0.0.1:0", http="127.0.0.1:0", store=f"sqlite:///{path}")
        stop = asyncio.Event()
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with open_database(path) as database:
            service = WithHttp(config, database)
            task = asyncio.create_task(service.run(ready.set_result, stop))
            async with grpc.aio.insecure_channel(await ready) as channel:
                calls = Service(await ready, channel)
                await calls.register()
                await calls.create(partitions=MAX_PARTITIONS)
                await calls.write(0, 1, 5)
                await calls.write(1, 5)
                assert service.http is not None
                await asyncio.to_thread(ask, Web(service.http.url))
            stop.set()
            await task
        assert threads.keys() == {"size_page", "size_picture"}
        assert threading.current_thread() not in threads.values()

    run(main)


def ask(web: Web) -> None:
    pages = [web.get("exchanges/a/partitions?limit=2")]
    pages.append(web.get(f"exchanges/a/partitions?limit=2&cursor={pages[0]['next']}"))
    found = [(p["partition"], p["rows"]) for page in pages for p in page["partitions"]]
    assert found == [(5, 2), (1, 1), (0, 0), (2, 0)]
    sizes = web.get("exchanges/a")["sizes"]
    assert (sizes["largest_bytes"], sizes["median_bytes"]) == (20, 0)
