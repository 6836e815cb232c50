"""The metadata service as a process: database, gRPC server and clock around the state."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import Final

from cosco.config import MetadataConfig, insecure_warning
from cosco.decision_thread import hold_to_this_thread, made_for_it
from cosco.mechanics import DESCRIPTION, NATIVE
from cosco.metadata.access.principals import principals_of
from cosco.metadata.http_choice import Http, open_http
from cosco.metadata.service.behind import Behind
from cosco.metadata.service.courier import Courier
from cosco.metadata.service.guard import Guard
from cosco.metadata.service.handlers import Handlers
from cosco.metadata.service.journal import Journal
from cosco.metadata.service.limits.daemon_room import DaemonRoom
from cosco.metadata.service.loss_walk import look_for_losses
from cosco.metadata.service.metadata_metrics import MetadataMetrics
from cosco.metadata.service.polls import MAX_WAITING_CALLS, Polls
from cosco.metadata.state.event_history import EventHistory
from cosco.metadata.state.history.history import HistoryBounds
from cosco.metadata.state.records.changes import Stored
from cosco.metadata.state.state import TICK_S, MetadataState
from cosco.metadata.store.database import Database, DatabaseWatch, open_database
from cosco.process.build import VERSION
from cosco.process.event_writer import EventWriter
from cosco.process.exposition import add_process_metrics, metrics_resource
from cosco.process.grpc_handlers.misdirected import Misdirected
from cosco.process.health import Health
from cosco.process.native_grpc.server_choice import Server, bind, new_server, peer_limits
from cosco.process.tls.service_tls import ServiceTls, service_tls
from cosco.protocol import wire
from cosco.protocol.capability import KEY_BYTES
from cosco.protocol.events import Event, EventKind

log = logging.getLogger(__name__)
#: What is told of the cluster, to be given a level of its own.
EVENTS: Final = logging.getLogger("cosco.metadata.events")

#: Calls under way, of any kind; gRPC refuses more.
MAX_CALLS: Final = MAX_WAITING_CALLS + 10_000
#: Time that calls under way get at the end, and then the writing of what they changed.
STOP_GRACE_S: Final = 1.0
#: How often it is looked whether it is time for another key of capabilities.
_TURN_KEYS_S: Final = 10.0
#: A daemon that lives has had a heartbeat answered, and so new keys, after a lease.
_LEASES_TO_SPREAD: Final = 2
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
    if warning := insecure_warning(config):
        log.warning("%s", warning)
    hold_to_this_thread("cosco.metadata.state")
    async with open_database(_path(config)) as database:
        await MetadataService(config, database).run(ready, stop)


class MetadataService:
    """The parts of the service, and in which order they begin and end; `run` once."""

    def __init__(self, config: MetadataConfig, database: Database) -> None:
        self._config = config
        self._database = database
        self._tls: ServiceTls = service_tls(config, NATIVE)
        self._principals = principals_of(config)
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
            unfinished_bytes=self._config.unfinished_bytes,
            peers=peer_limits(self._config),
            refused=self._metrics.count_refused,
            tls=self._tls,
            options=(("grpc.max_send_message_length", longest_bytes),),
        )
        http = None
        try:
            address = bind(server, self._config.listen, self._tls)
            http = self._open_http()
            await self._serve(server, address, http, ready, stop)
        finally:
            await server.stop(None)
            if http is not None:
                await http.close()

    async def _serve(
        self,
        server: Server,
        address: str,
        http: Http | None,
        ready: Callable[[str], None],
        stop: asyncio.Event,
    ) -> None:
        state = await self._restored()
        journal = Journal(state, self._watch.write, path=_path(self._config))
        events = EventWriter(state.events, EVENTS, journal.durable)
        # By the clock, so that sequences go on over a restart.
        history = EventHistory(first=time.time_ns() // 1_000_000)
        events.listeners.append(self._metrics.count_event)
        events.listeners.append(lambda event: history.add(event, time.time()))
        self._watch.tell = events.tell
        polls = Polls(state, self._config.waiting_bytes)
        refused = self._metrics.count_refused
        guard = Guard(state, self._tls.names, self._principals, refused, self._config.tenant_calls)
        handlers = Handlers(state, polls, journal, self._database, guard, history)
        handlers.on_commit = self._metrics.committed()
        handlers.daemon_room = DaemonRoom(state, self._config.daemons, refused)
        courier = Courier(state, journal, polls, self._tls)
        server.add_generic_rpc_handlers(
            (handlers.generic_handler(), self._health.handler(wire.METADATA_SERVICE), _NO_DAEMON)
        )
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(journal.run())
            others = [
                tasks.create_task(_tick(polls, journal)),
                tasks.create_task(courier.run()),
                tasks.create_task(self._tls.watch()),
                tasks.create_task(look_for_losses(state, polls, journal)),
                tasks.create_task(events.run()),
                tasks.create_task(self._count(state, polls)),
            ]
            if self._principals is not None:
                others.append(tasks.create_task(self._principals.watch()))
                others.append(tasks.create_task(self._turn_keys(state, journal)))
            try:
                await server.start()
                if http is not None:
                    http.attach(Behind(state, handlers, guard, polls, events, history, address))
                self._not_ready = ""
                ready(address)
                events.tell(self._about(address, http, state))
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

    def _about(self, address: str, http: Http | None, state: MetadataState) -> Event:
        return Event(
            kind=EventKind.SERVICE_STARTED, address=address, version=VERSION,
            metrics=None if http is None else http.address, http=None if http is None else http.url,
            mechanics=DESCRIPTION, cluster=state.cluster_id, store=self._config.store,
            exchanges=state.counts().open,
        )  # fmt: skip

    async def _restored(self) -> MetadataState:
        def build(stored: Stored) -> MetadataState:
            with made_for_it():  # in the thread of the database
                return MetadataState(
                    stored.as_of(int(time.time() * 1e6)),
                    daemon_lease_s=self._config.daemon_lease_s,
                    ranges_per_daemon=self._config.ranges_per_daemon,
                    adoption_grace_s=self._config.adoption_grace_s,
                    old_build_grace_s=self._config.old_build_grace_s,
                    now=time.monotonic(),
                    history=HistoryBounds(
                        time.time(), self._config.history_s, self._config.history_max
                    ),
                )

        state = await self._database.load(build)
        if self._principals is not None:
            state.access.begin(
                secrets.token_bytes(KEY_BYTES),
                time.time(),
                time.monotonic(),
                tenant_exchanges=self._config.tenant_exchanges,
                tenant_stored_bytes=self._config.tenant_stored_bytes,
            )
        return state

    async def _turn_keys(self, state: MetadataState, journal: Journal) -> None:
        """Have one key of capabilities follow another, each when all daemons have it."""
        spread_s = _LEASES_TO_SPREAD * self._config.daemon_lease_s
        period_s = max(self._config.key_rotation_s, spread_s)
        is_told = False
        while True:
            await asyncio.sleep(min(_TURN_KEYS_S, spread_s / 4))
            state.access.turn_keys(
                secrets.token_bytes(KEY_BYTES),
                time.time(),
                time.monotonic(),
                period_s=period_s,
                spread_s=spread_s,
            )
            await journal.durable()  # it writes what changed
            if state.access.keys_are_full and not is_told:
                log.warning("keys of capabilities are replaced no more: close the oldest exchanges")
            is_told = state.access.keys_are_full

    def _readiness(self) -> list[str]:
        reasons = [self._not_ready] if self._not_ready else []
        return reasons + self._watch.doubts(time.monotonic())

    def _open_http(self) -> Http | None:
        add_process_metrics(self._metrics.registry, VERSION)
        metrics = metrics_resource(self._metrics.registry)
        return open_http(self._config, self._tls.files, metrics, self._health, self._readiness)

    async def _count(self, state: MetadataState, polls: Polls) -> None:
        while True:
            self._watch.look(time.monotonic())
            self._metrics.observe(state.counts(), polls.waiting)
            await asyncio.sleep(_COUNT_S)


def _path(config: MetadataConfig) -> str:
    return config.store.removeprefix("sqlite:///")


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
