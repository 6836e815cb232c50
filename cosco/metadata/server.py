"""The metadata service as a process: database, gRPC server and clock around the state."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

import grpc

from cosco.config import MetadataConfig
from cosco.metadata.service.courier import Courier
from cosco.metadata.service.handlers import Handlers
from cosco.metadata.service.journal import Journal
from cosco.metadata.service.polls import MAX_WAITING_CALLS, Polls
from cosco.metadata.state.state import TICK_S, MetadataState
from cosco.metadata.store.database import open_database
from cosco.process.grpc_settings import SERVER_OPTIONS, bind
from cosco.protocol import wire

log = logging.getLogger(__name__)

#: Calls under way, of any kind; gRPC refuses more.
MAX_CALLS: Final = MAX_WAITING_CALLS + 10_000
#: Time that calls under way get at the end, and then the writing of what they changed.
STOP_GRACE_S: Final = 1.0

_OPTIONS: Final = (
    *SERVER_OPTIONS,
    ("grpc.max_receive_message_length", wire.MAX_METADATA_MESSAGE_BYTES),
    ("grpc.max_send_message_length", wire.MAX_METADATA_MESSAGE_BYTES),
)


async def serve(
    config: MetadataConfig, *, ready: Callable[[str], None], stop: asyncio.Event
) -> None:
    """Serve until `stop` is set; `ready` gets "host:port" once the service answers.

    Raises InvalidArgument when an option, the store or the port cannot be used.
    """
    config.validate()
    async with open_database(config.store.removeprefix("sqlite:///")) as database:
        state = MetadataState(
            await database.load(),
            daemon_lease_s=config.daemon_lease_s,
            ranges_per_daemon=config.ranges_per_daemon,
            adoption_grace_s=config.adoption_grace_s,
            now=time.monotonic(),
        )
        journal = Journal(state, database.write)
        polls = Polls(state)
        handlers = Handlers(state, polls, journal, database)
        courier = Courier(state, journal, polls)
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        server.add_generic_rpc_handlers((handlers.generic_handler(),))
        address = bind(server, config.listen)
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(journal.run())
            ticker = tasks.create_task(_tick(polls, journal))
            errands = tasks.create_task(courier.run())
            try:
                await server.start()
                ready(address)
                await stop.wait()
            finally:
                polls.stop()
                await server.stop(STOP_GRACE_S)
                ticker.cancel()
                errands.cancel()
                await _finish(journal)
                writer.cancel()


async def _tick(polls: Polls, journal: Journal) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        # While the database does not take writes no answer leaves, so nobody may expire: the
        # tick that comes late tells the state of the stall.
        await journal.durable()
        polls.tick(time.monotonic())


async def _finish(journal: Journal) -> None:
    try:
        async with asyncio.timeout(STOP_GRACE_S):
            await journal.durable()
    except TimeoutError:
        log.warning("stopped while the store takes no writes: what was not answered is lost")
