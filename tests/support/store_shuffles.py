"""A shuffle by real services whose daemons keep their segments in some store, and its check."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

from support.exchanges import SERVICE_TIMEOUT_S, by_partition, fetch_all, never, numbered, send
from support.processes import Services

from cosco import CoscoExchange, CoscoReader, ExchangeClosed
from cosco.dfs import StoredFile, open_store

PARTITIONS = 4
MAPPERS = 3
ROWS = 4000
#: Everything is stored as soon as it is quiet.
OPTIONS = ("--memory", "16MiB", "--store-idle-s", "0.2", "--sweep-s", "1")


def shuffle(
    services: Services, name: str, halfway: Callable[[], object] | None = None
) -> CoscoExchange:
    """Send the rows of all mappers; `halfway` is called amid the last one."""
    exchange = CoscoExchange(name, PARTITIONS, never, metadata=services.metadata)
    with ExitStack() as stack:
        stack.callback(exchange.close)
        for mapper in range(MAPPERS):
            rows = numbered(mapper, ROWS, partitions=PARTITIONS)
            last = mapper == MAPPERS - 1
            send(name, mapper, rows, services.metadata, halfway=halfway if last else None)
        stack.pop_all()
    return exchange


def every_row() -> list[Counter[bytes]]:
    """Return the rows that a shuffle sends, by partition."""
    rows = [row for m in range(MAPPERS) for row in numbered(m, ROWS, partitions=PARTITIONS)]
    return by_partition(rows, PARTITIONS)


def check(services: Services, name: str) -> None:
    """Read everything, each row once."""
    assert fetch_all(name, range(MAPPERS), PARTITIONS, services.metadata) == every_row()


def check_close_amid_reads(services: Services, name: str, is_empty: Callable[[], bool]) -> None:
    """Close an exchange amid reads of it, each of which is a bit further, and go on reading.

    is_empty: wait until the store has no file any more. A reader gives all rows once, or it says
    that the exchange is closed; it never ends early, nor speaks of a loss.
    """
    everything = every_row()
    exchange = shuffle(services, name)
    readers = [
        CoscoReader(
            name, range(MAPPERS), p,
            metadata=services.metadata, service_timeout_s=SERVICE_TIMEOUT_S,
        )
        for p in range(PARTITIONS)
    ]  # fmt: skip
    try:
        found = [
            Counter([next(rows) for _ in range(1 + 700 * p)]) for p, rows in enumerate(readers)
        ]
        exchange.close()
        assert is_empty()
        for p, rows in enumerate(readers):
            try:
                found[p].update(rows)
            except ExchangeClosed:
                assert found[p] <= everything[p]
            else:
                assert found[p] == everything[p]
    finally:
        for rows in readers:
            rows.close()


def files_of(url: str) -> list[StoredFile]:
    """Return the files of a store, as the store itself lists them."""

    async def main() -> list[StoredFile]:
        store = open_store(url)
        await store.open()
        try:
            return await store.list("")
        finally:
            await store.close()

    return asyncio.run(main())
