"""The services as simulated processes: the real ones, from configuration to last word."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from cosco.config import DaemonConfig, MetadataConfig
from cosco.errors import CoscoError
from cosco.metadata import server as metadata_server
from cosco.shuffle_service import server as daemon_server
from cosco.shuffle_service.state.core import DaemonCore

from .loop import Process, RunState
from .scenario import Scenario
from .storage import Disk
from .world import World

METADATA_HOST = "10.0.0.1"
METADATA_ADDRESS = f"{METADATA_HOST}:7070"
ADOPTION_GRACE_S = 10.0
STORE_TIMEOUT_S = 2.0


class Service:
    """A program that is started again and again at one address."""

    kind: str

    def __init__(self, world: World, name: str, host: str) -> None:
        self.world = world
        self.name = name
        self.host = host
        self.process: Process | None = None
        self.is_ready = False
        self.is_ending = False  # it was asked to
        self._starts = itertools.count(1)
        self._stops: list[asyncio.Event] = []

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.state is not RunState.DEAD

    def start(self) -> None:
        if self.runs:
            return
        self.is_ready = self.is_ending = False
        self.world.network.silent_hosts.discard(self.host)
        name = f"{self.name}.{next(self._starts)}"
        self.world.trace(f"start {name}")
        self.process = self.world.spawn(name, self.host, self._begin)

    def kill(self) -> None:
        if self.process is not None:
            self.world.kill(self.process)
        self.is_ready = False

    def signal(self) -> None:
        """SIGTERM, the first or the second one."""
        if self.process is not None and self.runs and self._stops:
            event = self._stops.pop(0)
            self.is_ending = True
            self.world.trace(f"SIGTERM {self.process}")
            self.world.loop.call_soon(event.set, context=self.process.context.copy())

    def _begin(self) -> None:
        assert self.process is not None
        self.process.kept.append(self.world.loop.create_task(self._main()))

    async def _main(self) -> None:
        process = self.process
        assert process is not None
        stop, stop_now = asyncio.Event(), asyncio.Event()
        self._stops = [stop, stop_now]
        try:
            await self._serve(stop, stop_now)
        except CoscoError as error:
            # As its command would: one line, and the end. It is started again.
            self.world.trace(f"{process} ends: {type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001  the world's problem
            self.world.problem_of_exception(f"{process} broke down", error)
        else:
            self.world.trace(f"{process} has ended")
            self.world.count(f"{self.kind} stopped")
        self.world.later(0, self.world.loop.kill, process)

    def _on_ready(self, _: str) -> None:
        self.is_ready = True
        self.world.trace("ready")

    async def _serve(self, stop: asyncio.Event, stop_now: asyncio.Event) -> None:
        raise NotImplementedError


class MetadataService(Service):
    kind = "metadata service"

    def __init__(self, world: World, scenario: Scenario) -> None:
        super().__init__(world, "metadata", METADATA_HOST)
        world.has_tenants = scenario.keyed
        self._config = MetadataConfig(
            insecure=True,
            listen=METADATA_ADDRESS,
            daemon_lease_s=scenario.daemon_lease_s,
            adoption_grace_s=ADOPTION_GRACE_S,
            old_build_grace_s=scenario.old_build_grace_s,
            http="",
            # Asked for by nobody here, where there is no TLS: it is what begins capabilities.
            tokens="simulated" if scenario.keyed else "",
            key_rotation_s=1.0,
        )

    async def _serve(self, stop: asyncio.Event, stop_now: asyncio.Event) -> None:
        await metadata_server.serve(self._config, ready=self._on_ready, stop=stop)


class Daemon(Service):
    kind = "daemon"

    def __init__(
        self, world: World, scenario: Scenario, index: int, twin_of: Daemon | None = None
    ) -> None:
        """`twin_of`: it advertises the address of this one, and has its store."""
        host = f"10.0.1.{index % scenario.hosts + 1}"
        super().__init__(world, f"daemon{index}", host)
        self.neighbours: list[Daemon] = [self]  # all of the cluster
        #: No frame is longer: a full buffer, and the row that filled it.
        self.frame_bytes_max = scenario.buffer_bytes + 2 * scenario.row_bytes + (4 << 10)
        self.address = f"{host}:{7100 + index}"
        self.disk_name = "shared" if scenario.shared_store else f"disk{index}"
        if twin_of is not None:
            self.disk_name = twin_of.disk_name
        disk = world.disks.setdefault(self.disk_name, Disk(f"store-{self.disk_name}"))
        disk.slowness = scenario.store_slowness
        self.flash_name = f"flash{index}" if scenario.tiers is not None else ""
        store = f"file:///{self.disk_name}"
        options: dict[str, Any] = {}
        if scenario.tiers is not None:
            flash = world.disks.setdefault(self.flash_name, Disk(self.flash_name))
            flash.slowness = min(scenario.store_slowness, 2.0)
            store = f"flash=file:///{self.flash_name},then={store}"
            is_durable = world.is_flash_durable = scenario.tiers.flash_is_durable
            options = {
                "tier_age_s": scenario.tiers.age_s,
                "tier_flash_bytes": scenario.tiers.flash_bytes,
                "tier_durable": "flash" if is_durable else "then",
            }
        self._boards_bytes = scenario.group.boards_bytes if scenario.group is not None else 0
        self._config = DaemonConfig(
            insecure=True,
            listen=self.address,
            advertise=twin_of.address if twin_of is not None else "",
            metadata=METADATA_ADDRESS,
            store=store,
            memory=scenario.memory_bytes,
            segment_bytes=scenario.segment_bytes,
            inflight_bytes=scenario.inflight_bytes,
            host_id=host,
            metrics="",
            heartbeat_s=scenario.heartbeat_s,
            full_store_wait_s=3.0,
            store_timeout_s=STORE_TIMEOUT_S,
            register_timeout_s=60.0,
            sweep_s=1.0 if scenario.drops_old_builds else 15.0,
            tenant_memory_share=scenario.tenant_share,
            tenant_streams=scenario.tenant_streams,
            **options,
        )

    @property
    def core(self) -> DaemonCore | None:
        """What the process that runs now holds."""
        return self.world.cores.get(self.process) if self.process and self.runs else None

    @property
    def disk(self) -> Disk:
        return self.world.disks[self.disk_name]

    async def _serve(self, stop: asyncio.Event, stop_now: asyncio.Event) -> None:
        await daemon_server.serve(
            self._config,
            ready=self._on_ready,
            stop=stop,
            stop_now=stop_now,
            drained=self._on_drained,
        )
        self._check_flash()

    def _check_flash(self) -> None:
        """A daemon that has ended in good order leaves nothing on flash alone."""
        if self.flash_name and not self.world.counts["daemon tier_damaged"]:
            alone = self.world.disks[self.flash_name].durable.keys() - self.disk.ever
            if any(self.world.disks[self.flash_name].durable[path] for path in alone):
                self.world.problem(f"{self.name} has ended, and {alone} are on flash alone")

    def _on_ready(self, line: str) -> None:
        super()._on_ready(line)
        if self._boards_bytes and self.core is not None:
            self.core.mark_boards._bytes_max = self._boards_bytes

    def _on_drained(self) -> None:
        self.world.trace("drained")
        self.world.count("drained and serving on")
