"""The metadata service as a process: database, gRPC server and clock around the state."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from cosco.config import MetadataConfig
from cosco.mechanics import DESCRIPTION
from cosco.metadata.service.courier import Courier
from cosco.metadata.service.handlers import Handlers
from cosco.metadata.service.journal import Journal
from cosco.metadata.service.loss_walk import look_for_losses
from cosco.metadata.service.metadata_metrics import MetadataMetrics
from cosco.metadata.service.polls import MAX_WAITING_CALLS, Polls
from cosco.metadata.state.records.changes import Stored
from cosco.metadata.state.state import TICK_S, MetadataState
from cosco.metadata.store.database import Database, DatabaseWatch, open_database
from cosco.process.build import VERSION
from cosco.process.event_writer import EventWriter
from cosco.process.exposition import METRICS_PATH, add_process_metrics, metrics_resource
from cosco.process.grpc_settings import bind
from cosco.process.health import Health
from cosco.process.http_endpoint import HttpEndpoint
from cosco.process.native_grpc.misdirected import Misdirected
from cosco.process.native_grpc.server_choice import Server, new_server
from cosco.protocol import wire
from cosco.protocol.events import Event, EventKind

log = logging.getLogger(__name__)
#: What is told of the cluster, to be given a level of its own.
EVENTS: Final = logging.getLogger("cosco.metadata.events")

#: Calls under way, of any kind; gRPC refuses more.
MAX_CALLS: Final = MAX_WAITING_CALLS + 10_000
#: Time that calls under way get at the end, and then the writing of what they changed.
STOP_GRACE_S: Final = 1.0
#: How often it is counted what there is.
_COUNT_S: Final = 1.0

#: For who takes this service for a daemon.
_NO_DAEMON: Final = Misdirected(
    wire.SHUFFLE_SERVICE,
    "this is the address of the metadata service, and was taken for that of a shuffle daemon: "
    "was one started with a wrong --advertise?",
)


async def serve(
    config: MetadataConfig, *, ready: Callable[[str], None], stop: asyncio.Event
) -> None:
    """Serve until `stop` is set; `ready` gets "host:port" once the service answers.

    Raises InvalidArgument when an option, the store or a port cannot be used.
    """
    config.validate()
    async with open_database(config.store.removeprefix("sqlite:///")) as database:
        await MetadataService(config, database).run(ready, stop)


class MetadataService:
    """The parts of the service, and in which order they begin and end; `run` once."""

    def __init__(self, config: MetadataConfig, database: Database) -> None:
        self._config = config
        self._database = database
        self._metrics = MetadataMetrics()
        #: Why it would not serve, beside what the database says.
        self._not_ready = "the state is being restored from the database"
        self._health = Health(self._readiness)
        measures = self._metrics.database_measures()
        self._watch = DatabaseWatch(database.write, measures, config.store)

    async def run(self, ready: Callable[[str], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set, as `serve` does."""
        longest_bytes = wire.MAX_METADATA_MESSAGE_BYTES
        server = new_server(
            max_message_bytes=longest_bytes,
            calls_max=MAX_CALLS,
            options=(("grpc.max_send_message_length", longest_bytes),),
        )
        endpoint = None
        try:
            address = bind(server, self._config.listen)
            endpoint = self._open_endpoint()
            metrics = endpoint.address if endpoint is not None else None
            await self._serve(server, address, metrics, ready, stop)
        finally:
            await server.stop(None)
            if endpoint is not None:
                await asyncio.to_thread(endpoint.close)

    async def _serve(
        self,
        server: Server,
        address: str,
        metrics: str | None,
        ready: Callable[[str], None],
        stop: asyncio.Event,
    ) -> None:
        state = await self._restored()
        path = self._config.store.removeprefix("sqlite:///")
        journal = Journal(state, self._watch.write, path=path)
        events = EventWriter(state.events, EVENTS, journal.durable)
        events.listeners.append(self._metrics.count_event)
        self._watch.tell = events.tell
        polls = Polls(state)
        handlers = Handlers(state, polls, journal, self._database)
        handlers.on_commit = self._metrics.committed()
        courier = Courier(state, journal, polls)
        server.add_generic_rpc_handlers(
            (handlers.generic_handler(), self._health.handler(wire.METADATA_SERVICE), _NO_DAEMON)
        )
        about = Event(
            kind=EventKind.SERVICE_STARTED, address=address, metrics=metrics, version=VERSION,
            mechanics=DESCRIPTION, cluster=state.cluster_id, store=self._config.store,
            exchanges=state.counts().open,
        )  # fmt: skip
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(journal.run())
            others = [
                tasks.create_task(_tick(polls, journal)),
                tasks.create_task(courier.run()),
                tasks.create_task(look_for_losses(state, polls, journal)),
                tasks.create_task(events.run()),
                tasks.create_task(self._count(state, polls)),
            ]
            try:
                await server.start()
                self._not_ready = ""
                ready(address)
                events.tell(about)
                await stop.wait()
                events.tell(Event(kind=EventKind.SERVICE_STOPPING, address=address))
            finally:
                self._not_ready = "the service is stopping"
                self._health.stop()
                polls.stop()
                await server.stop(STOP_GRACE_S)
                for task in others:
                    task.cancel()
                if await _finish(journal):
                    events.flush()
                writer.cancel()
                events.tell(Event(kind=EventKind.SERVICE_STOPPED, address=address))

    async def _restored(self) -> MetadataState:
        def build(stored: Stored) -> MetadataState:
            return MetadataState(
                stored,
                daemon_lease_s=self._config.daemon_lease_s,
                ranges_per_daemon=self._config.ranges_per_daemon,
                adoption_grace_s=self._config.adoption_grace_s,
                old_build_grace_s=self._config.old_build_grace_s,
                now=time.monotonic(),
            )

        return await self._database.load(build)

    def _readiness(self) -> list[str]:
        reasons = [self._not_ready] if self._not_ready else []
        return reasons + self._watch.doubts(time.monotonic())

    def _open_endpoint(self) -> HttpEndpoint | None:
        listen = self._config.metrics_listen
        if not listen:
            return None
        add_process_metrics(self._metrics.registry, VERSION)
        resources = {
            METRICS_PATH: metrics_resource(self._metrics.registry),
            **self._health.resources(),
        }
        return HttpEndpoint(listen, resources, f"--metrics {self._config.metrics}")

    async def _count(self, state: MetadataState, polls: Polls) -> None:
        while True:
            self._watch.look(time.monotonic())
            self._metrics.observe(state.counts(), len(polls.waiting))
            await asyncio.sleep(_COUNT_S)


async def _tick(polls: Polls, journal: Journal) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        # While the database does not take writes no answer leaves, so nobody may expire, not even
        # when it was for less than what a late tick tells the state of a stall.
        await journal.durable()
        polls.tick(time.monotonic(), journal.pop_stall_s())


async def _finish(journal: Journal) -> bool:
    """Return whether all that was changed is durable."""
    try:
        async with asyncio.timeout(STOP_GRACE_S):
            await journal.durable()
            return True
    except TimeoutError:
        log.warning("stopped while the store takes no writes: what was not answered is lost")
        return False
