"""What goes wrong, and when: drawn from the world's seed, and over by a known time."""

from __future__ import annotations

import random
from collections.abc import Callable

import grpc

from cosco.protocol.wire import mpb

from . import people
from .audit import is_overcome
from .clients import CLIENT_HOSTS, Clients
from .engine import SHUFFLE_ID
from .loop import Process, RunState
from .network import Call, Weather
from .programs import METADATA_HOST, STORE_TIMEOUT_S, Daemon, MetadataService, Service
from .scenario import Ending, Scenario
from .storage import Disk
from .world import World

#: Messages, by their call: faults come right after one.
_MOMENTS = (
    ("delivered", "Push"), ("delivered", "Push"), ("delivered", "Push"), ("opened", "Push"),
    ("opened", "Commit"), ("delivered", "Commit"), ("opened", "OpenAttempt"),
    ("opened", "Seal"), ("delivered", "Seal"), ("opened", "RenewAssignments"),
    ("delivered", "RenewAssignments"), ("opened", "Probe"), ("opened", "LookupAssignment"),
    ("opened", "Fetch"), ("delivered", "Fetch"), ("opened", "ReportLoss"),
    ("delivered", "ReportLoss"), ("opened", "PollDriver"), ("delivered", "PollDriver"),
    ("opened", "RegisterDaemon"), ("delivered", "Heartbeat"),
)  # fmt: skip
_GROUP_MOMENTS = (
    *_MOMENTS[:9],
    ("opened", "Follow"), ("delivered", "Follow"), ("delivered", "Follow"),
    ("opened", "CommitBatch"), ("opened", "CommitBatch"), ("delivered", "CommitBatch"),
    ("opened", "LookupAssignment"), ("delivered", "LookupAssignment"), ("opened", "Probe"),
    ("opened", "CreateGroup"), ("delivered", "CreateGroup"), ("opened", "Fetch"),
    ("opened", "ReleaseExchanges"), ("delivered", "ReleaseExchanges"),
    ("opened", "ReportUncommitted"), ("opened", "ReportLoss"), ("delivered", "PollGroup"),
    ("opened", "RegisterDaemon"), ("delivered", "Heartbeat"),
)  # fmt: skip


#: How calls end that the service has carried out.
_HEARD = {
    grpc.StatusCode.OK,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
}
#: Shares of calls whose first try, given up by its client, is carried out long after.
_COMES_AGAIN = {
    "ReportLoss": 0.5,
    "Commit": 0.1,
    "OpenAttempt": 0.05,
    "RenewAssignments": 0.1,
    "CommitBatch": 0.1,
    "CreateGroup": 0.2,
    "ReleaseExchanges": 0.2,
    "ReportUncommitted": 0.5,
}


class Nemesis:
    """Makes the faults of one scenario."""

    def __init__(
        self,
        world: World,
        scenario: Scenario,
        metadata: MetadataService,
        daemons: list[Daemon],
        engine: Clients,
    ) -> None:
        self.world = world
        self.rng = world.rng
        self.people = random.Random(f"people {world.seed}")
        self.tiers = random.Random(f"trouble of tiers {world.seed}")
        self.scenario = scenario
        self.metadata = metadata
        self.daemons = daemons
        self.engine = engine
        self.is_over = False
        #: Daemons with the address of another one, which are to end.
        self.twins: list[Daemon] = []
        #: Whether more failed together than an exchange with its copies bears.
        self.is_too_much = scenario.replicas == 1
        self._target: Daemon | None = None
        self._away_until = 0.0  # until then a daemon, a disk or the service is not there
        self._busy_until = 0.0  # until then, at most, that is being overcome
        #: (what, method) → how many more of these messages until something happens
        self._triggers: dict[tuple[str, str], int] = {}

    def start(self) -> None:
        self.world.network.weather = self.scenario.weather
        self.world.network.watch = self._watch
        if self.scenario.forged:
            self.world.network.forge = self._forge
            self.world.network.answered = self._answered
        for _ in range(self.scenario.faults):
            self.world.later(self.rng.random() * self.scenario.faults_s, self._prepare)
        if self.scenario.segment_bytes > self.scenario.memory_bytes // 2:
            self._kill_who_waits()
        if self.scenario.ending is not Ending.ALL_READ:
            when = self.rng.random() * (self.scenario.work_s + self.scenario.mapper_s)
            self.world.later(when, self._end_early)
        if self.scenario.tiers is not None and not self.scenario.lost_host:
            self._trouble_tiers()
        if self.scenario.drained:
            self.world.later(self.people.random() * self.scenario.faults_s, self._drain_for)
        if self.scenario.lost_host:
            self.world.later(self.people.random() * self.scenario.faults_s, self._lose_host)
        else:
            self.world.later(self.scenario.faults_s, self._end)

    # --- choosing --------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Strike now, or soon after one of the next messages of some kind: what goes wrong in
        the middle of something finds more than what goes wrong at any time."""
        if self.rng.random() < 0.4:
            self._strike(None)
        else:
            moments = _MOMENTS if self.scenario.group is None else _GROUP_MOMENTS
            self._triggers[self.rng.choice(moments)] = self.rng.choice((1, 2, 5, 20, 60))

    def _watch(self, what: str, call: Call) -> None:
        method = call.method.rpartition("/")[2]
        if what == "opened" and self.rng.random() < _COMES_AGAIN.get(method, 0.0):
            self.world.count("calls repeated late")
            self.world.later(1 + 15 * self.rng.random(), call.open_again, call.inbox[0])
        if (what, method) == ("opened", "ReportLoss") and self.rng.random() < 0.15:
            # Most losses are found in the end, and the service is to die over some of them.
            self.world.later(1.5 * self.rng.random(), self._bounce_metadata)
        key = what, method
        left = self._triggers.get(key)
        if left is None or self.is_over:
            return
        if left > 1:
            self._triggers[key] = left - 1
            return
        del self._triggers[key]
        delay = self.rng.choice((0.0, 0.0005, 0.003, 0.1))
        if call.server is self.metadata.process and self.rng.random() < 0.4:
            self.world.later(delay, self._restart_metadata)
        else:
            self.world.later(delay, self._strike, call)

    def _forge(self, call: Call) -> bytes | None:
        """Somebody commits in the name of an attempt that is about to, and says that it has
        written nothing, or less."""
        if not call.method.endswith("/Commit") or self.world.forged or self.is_over:
            return None
        commit = mpb.CommitRequest.FromString(call.inbox[0] or b"")
        if not commit.digests or commit.partial:
            return None
        self.world.trace(f"forge a commit of mapper {commit.mapper}")
        self.world.count("commits forged")
        self.world.forged = commit.mapper, commit.attempt
        self.engine.damages += 1
        self.is_too_much = True
        if random.Random(f"forgery {self.world.seed}").random() < 0.5:
            for field in ("acknowledged", "gaps", "rows", "raw_bytes", "stored_bytes", "digests"):
                commit.ClearField(field)
        else:
            commit.digests = bytes(8) + commit.digests[8:]
        return commit.SerializeToString()

    def _answered(self, call: Call, code: grpc.StatusCode) -> None:
        """Note that the attempt itself was heard: from now on everybody must be told."""
        if call.method.endswith("/Commit") and code in _HEARD:
            commit = mpb.CommitRequest.FromString(call.request)
            if (commit.mapper, commit.attempt) == self.world.forged:
                self.world.is_forgery_known = True

    def _strike(self, call: Call | None) -> None:
        """Make a fault; of a daemon, if it can be, that of `call`."""
        if self.is_over:
            return
        self._target = None
        if call is not None:
            ends = [d for d in self.daemons if d.process in (call.server, call.client)]
            self._target = self.rng.choice(ends) if ends else None
        one = self.scenario.one_at_a_time
        choices: list[tuple[int, Callable[[], None]]] = [
            (3, self._restart_metadata),
            (1, self._pause_metadata),
            (1, self._fail_database),
            (3, self._kill_client),
            (1, self._pause_client),
            (3, self._speculate),
            # Nobody takes the place of a group's.
            (1, self._kill_driver if self.scenario.group is None else self._kill_client),
        ]
        if one:
            choices += [(16, self._one_daemon_failure), (2, self._cut_shortly)]
        else:
            choices += [
                (6, self._kill_daemon),
                (3, self._kill_daemons),
                (3, self._pause_daemon),
                (2, self._power_off),
                (3, self._stop_daemon),
                (3, self._cut),
                (3, self._fill_disk),
                (1, self._fail_disk),
                (5, self._hang_disk),
                (2, self._take_address),
            ]
            if self.scenario.tiers is not None:
                choices += [(5, self._lose_flash)]
        if self.scenario.damage:
            choices += [(3, self._flip), (2, self._delete), (1, self._truncate)]
            if not self.scenario.shared_store:
                choices += [(2, self._lose_disk)]
            if self.scenario.tiers is not None:
                choices += [(6, self._flip_on_flash)]
        total = sum(weight for weight, _ in choices)
        at = self.rng.random() * total
        for weight, fault in choices:
            at -= weight
            if at < 0:
                self._do(fault)
                return

    def _do(self, fault: Callable[[], None]) -> None:
        self.world.count(f"fault: {fault.__name__.strip('_').replace('_', ' ')}")
        fault()
        if self.scenario.group is not None and self.rng.random() < 0.3:
            self.world.later(0.3 * self.rng.random() ** 2, self.engine.extend)

    def _one_daemon_failure(self) -> None:
        """A failure of a daemon or a disk, once the last one is overcome."""
        if self.is_over:
            return
        if self._is_busy():
            self.world.later(0.1 + 0.3 * self.rng.random(), self._one_daemon_failure)
            return
        kill = self._kill_daemon
        faults = (
            *(kill, kill, self._power_off, self._pause_daemon),
            *(self._kill_after_lag, self._kill_after_lag, self._kill_after_lag),
            *(self._stop_daemon, self._fill_disk, self._fail_disk),
            *(self._hang_disk, self._hang_disk, self._take_address),
            *((self._lose_flash,) * 4 if self.scenario.tiers is not None else ()),
        )
        self._do(self.rng.choice(faults))

    def _is_busy(self) -> bool:
        """Whether what failed last is not overcome."""
        now = self.world.loop.now
        if now < self._away_until:
            return True
        return now < self._busy_until and not is_overcome(self.world, self.daemons)

    def _a_daemon(self) -> Daemon:
        return self._target or self.rng.choice(self.daemons)

    def _span(self, longest: float) -> float:
        return longest * self.rng.random() ** 2

    def _outage(self) -> float:
        """How long something is away."""
        return self._span(3.0 if self.scenario.one_at_a_time else 12.0)

    def _fails(self, seconds: float) -> float:
        """A daemon or a disk fails for so long, which two copies bear if nothing else does."""
        if self._is_busy() or self.world.is_flash_durable:
            self.is_too_much = True
        return self._away(seconds)

    def _away(self, seconds: float) -> float:
        """Something is not there for so long: that is noticed by its lease, if not before,
        then the copies of what it held are stored, and ranges moved."""
        until = self.world.loop.now + seconds
        self._away_until = max(self._away_until, until)
        slow_s = 0.05 * self.scenario.store_slowness
        until = max(until, self.world.loop.now + self.scenario.daemon_lease_s) + 6.0 + slow_s
        self._busy_until = max(self._busy_until, until)
        return seconds

    def _end(self) -> None:
        """Everything is repaired; what was lost stays lost."""
        self.world.trace("the faults are over")
        self.is_over = True
        self.world.network.weather = Weather()
        self.world.network.heal()
        self.world.database.failing = False
        for disk in self.world.disks.values():
            disk.full = disk.failing = False
            disk.hanging.clear()
        for process in list(self.world.processes):
            self.world.loop.resume(process)
        self._start_all()
        if self.metadata.is_ending:
            self._start(self.metadata)
        # One that was being started on a disk that hung may end yet, as that took too long.
        self.world.later(2 * STORE_TIMEOUT_S, self._start_all)
        self.engine.be_peaceful()

    def _start_all(self) -> None:
        for service in (self.metadata, *self.daemons):
            service.start()

    # --- services --------------------------------------------------------------------------

    def _start_later(self, service: Service, seconds: float) -> None:
        self.world.later(seconds, self._start, service)

    def _start(self, service: Service) -> None:
        if service.runs and service.is_ending:  # it was paused, say
            self._start_later(service, 0.5)
        service.start()

    def _pause(self, process: Process | None, seconds: float) -> None:
        if process is not None and process.state is RunState.RUNNING:
            self.world.trace(f"pause {process} for {seconds:.2f} s")
            self.world.loop.pause(process)
            self.world.later(seconds, self._resume, process)

    def _resume(self, process: Process) -> None:
        if process.state is RunState.PAUSED:
            self.world.trace(f"resume {process}")
            self.world.loop.resume(process)

    def _kill_daemon(self) -> None:
        daemon = self._a_daemon()
        seconds = self._fails(self._outage())
        daemon.kill()
        self._start_later(daemon, seconds)

    def _kill_daemons(self) -> None:
        """Several at once."""
        for daemon in self.rng.sample(self.daemons, self.rng.randint(2, len(self.daemons))):
            seconds = self._fails(self._outage())
            daemon.kill()
            self._start_later(daemon, seconds)

    def _kill_who_waits(self) -> None:
        """Kill a daemon whose replica has no room for what it forwards."""
        if self.is_over:
            return
        cores = {daemon.core: daemon for daemon in self.daemons if daemon.core is not None}
        waited_for = {primary for core in cores for primary, _ in core.copies._waiting}
        waiting = [d for core, d in cores.items() if core.incarnation in waited_for]
        if waiting and self.rng.random() < 0.3 and not self._is_busy():
            self._target = waiting[0]
            self._do(self._kill_daemon)
        else:
            self.world.later(0.05, self._kill_who_waits)

    def _kill_after_lag(self) -> None:
        """A daemon dies while what it sent to the others is on its way."""
        daemon, lag_s = self._a_daemon(), self.rng.random()
        seconds = self._fails(max(lag_s, self._outage()))
        self.world.trace(f"{daemon.host} lags for {lag_s:.2f} s")
        for other in self.daemons:
            self.world.network.cut(daemon.host, other.host, lag_s)
        self.world.later(lag_s * self.rng.random(), daemon.kill)
        self._start_later(daemon, seconds)

    def _pause_daemon(self) -> None:
        seconds = self._fails(self._span(3 * self.scenario.daemon_lease_s))
        self._pause(self._a_daemon().process, seconds)

    def _stop_daemon(self) -> None:
        """SIGTERM, and started again once it has ended."""
        daemon = self._a_daemon()
        self._fails(40.0)
        daemon.signal()
        self._restart_when_ended(daemon, daemon.process, 40)

    def _drain_for(self) -> None:
        """An operator drains a daemon, and takes that back."""
        daemon = self.people.choice(self.daemons)
        if self.is_over or self._is_busy() or not daemon.is_ready:
            return
        seconds = self._fails(8.0 * self.people.random() ** 2)
        self.world.trace(f"drain {daemon.name} for {seconds:.2f} s")
        self.world.count("fault: drain daemon")
        people.drain_for(self.world, daemon.address, seconds, lambda: self._start_ended(daemon))

    def _start_ended(self, daemon: Daemon) -> None:
        """Start a daemon again that has drained, or ends."""
        if daemon.process is None or daemon.process.state is RunState.DEAD:
            daemon.start()
        else:
            self.world.later(0.5, self._start_ended, daemon)

    def _restart_when_ended(self, daemon: Daemon, process: Process | None, tries: int) -> None:
        if process is None or process.state is RunState.DEAD:
            daemon.start()
            self._away_until = self._busy_until = 0.0
            self._away(0.0)
        elif tries and not self.is_over:
            self.world.later(0.5, self._restart_when_ended, daemon, process, tries - 1)
        else:
            daemon.signal()  # it serves on, and need not: a second signal ends it
            self.world.later(8.0, self._start, daemon)

    def _power_off(self) -> None:
        """A host stops without a word, all its daemons with it."""
        host = self._a_daemon().host
        self.world.trace(f"power off {host}")
        self.world.network.silent_hosts.add(host)
        after = self._fails(self._outage())
        for daemon in self.daemons:
            if daemon.host == host:
                daemon.kill()
                self._start_later(daemon, after)

    def _restart_metadata(self) -> None:
        if self.rng.random() < 0.7:
            self.metadata.kill()
            self._start_later(self.metadata, self._away(self._outage()))
        else:
            self.metadata.signal()
            self._start_later(self.metadata, self._away(2.0 + self._outage()))

    def _bounce_metadata(self) -> None:
        self.world.count("fault: bounce metadata")
        self.metadata.kill()
        self._start_later(self.metadata, self._away(0.5 * self.rng.random()))

    def _pause_metadata(self) -> None:
        self._pause(self.metadata.process, self._away(self._span(15.0)))

    def _fail_database(self) -> None:
        self.world.trace("the database fails")
        self.world.database.failing = True
        seconds = self._away(self._span(4.0))
        self.world.later(seconds, setattr, self.world.database, "failing", False)

    # --- clients ---------------------------------------------------------------------------

    def _a_client(self) -> Process | None:
        clients = [p for p in self.engine.processes() if p.state is RunState.RUNNING]
        return self.rng.choice(clients) if clients else None

    def _kill_client(self) -> None:
        client = self._a_client()
        if client is not None:
            self.world.kill(client)

    def _pause_client(self) -> None:
        self._pause(self._a_client(), self._span(20.0))

    def _kill_driver(self) -> None:
        driver = self.engine.driver
        if driver is not None and driver.state is RunState.RUNNING:
            self.world.kill(driver)
            self.engine.driver_died()

    def _end_early(self) -> None:
        """The end of the exchange comes amid the work."""
        engine = self.engine
        if not engine.is_created:
            self.world.later(0.5, self._end_early)
        elif self.scenario.ending is Ending.EARLY:
            if self.scenario.group is None and self.people.random() < 0.4:
                engine.abandon()
                people.close(self.world, SHUFFLE_ID)
            else:
                engine.finish()
        elif engine.driver is not None:
            self.world.kill(engine.driver)
            engine.abandon()

    def _speculate(self) -> None:
        self.engine.speculate()

    # --- network and disks -----------------------------------------------------------------

    def _cut(self) -> None:
        hosts = sorted({d.host for d in self.daemons} | {METADATA_HOST})
        hosts += [f"10.0.2.{i + 1}" for i in range(CLIENT_HOSTS)]
        one, other = self.rng.sample(hosts, 2)
        self.is_too_much = True  # it may take as long as the recovery from something else
        seconds = self._span(20.0)
        self.world.trace(f"cut {one} from {other} for {seconds:.2f} s")
        self.world.network.cut(one, other, seconds)
        if self.rng.random() < 0.7:
            self.world.network.cut(other, one, seconds)

    def _cut_shortly(self) -> None:
        """Between two daemons, for less than anybody's patience."""
        one, other = self.rng.sample(self.daemons, 2)
        self.world.trace(f"cut {one.host} from {other.host}")
        self.world.network.cut(one.host, other.host, self._span(1.0))
        self.world.network.cut(other.host, one.host, self._span(1.0))

    def _fill_disk(self) -> None:
        disk = self.world.disks[self.rng.choice(sorted(self.world.disks))]
        self.world.trace(f"{disk.store_id} is full")
        disk.full = True
        self.world.later(self._fails(self._span(10.0)), setattr, disk, "full", False)

    def _fail_disk(self) -> None:
        disk = self.world.disks[self.rng.choice(sorted(self.world.disks))]
        self.world.trace(f"{disk.store_id} fails")
        disk.failing = True
        self.world.later(self._fails(self._span(5.0)), setattr, disk, "failing", False)

    def _hang_disk(self) -> None:
        """For one host or for all; what was written then may land long after."""
        disk = self.world.disks[self.rng.choice(sorted(self.world.disks))]
        hosts = sorted({daemon.host for daemon in self.daemons})
        hung = hosts if self.rng.random() < 0.3 else [self.rng.choice(hosts)]
        self.world.trace(f"{disk.store_id} hangs for {hung}")
        disk.hanging |= dict.fromkeys(hung, self.rng.choice((1.0, 0.3)))
        # Mostly for longer than a daemon waits.
        seconds = self.rng.random() * 2 * STORE_TIMEOUT_S + self._span(10.0)
        self.world.later(self._fails(seconds), self._go_on, disk, hung)

    def _go_on(self, disk: Disk, hosts: list[str]) -> None:
        for host in hosts:
            disk.hanging.pop(host, None)

    def _take_address(self) -> None:
        """A daemon is started that advertises the address of another one."""
        victim, index = self._a_daemon(), len(self.daemons) + len(self.twins)
        self.world.trace(f"a second daemon of {victim.address}")
        twin = Daemon(self.world, self.scenario, index, twin_of=victim)
        self.twins.append(twin)
        twin.start()
        self._away(0.0)

    def _a_file(self) -> tuple[str, str] | None:
        files = [(name, path) for name, disk in self.world.disks.items() for path in disk.files]
        return self.rng.choice(sorted(files)) if files else None

    def _trouble_tiers(self) -> None:
        """Have flash, and the slow tier, fail while rows are written."""
        writing_s = self.scenario.work_s + self.scenario.mapper_s
        for _ in range(self.tiers.choice((0, 1, 2))):
            self.world.later(0.05 + writing_s * self.tiers.random(), self._trouble_tier)

    def _trouble_tier(self) -> None:
        if self.is_over:
            return
        if self._is_busy():
            self.world.later(0.1 + 0.2 * self.tiers.random(), self._trouble_tier)
            return
        daemon = self.tiers.choice(self.daemons)
        name = daemon.flash_name if self.tiers.random() < 0.6 else daemon.disk_name
        disk, kind = self.world.disks[name], self.tiers.choice(("full", "failing", "hanging"))
        self.world.trace(f"{name} is {kind}")
        self.world.count("fault: trouble tier")
        seconds = self._fails(0.5 + 6.0 * self.tiers.random())
        if kind == "hanging":
            disk.hanging[daemon.host] = 1.0
            self.world.later(seconds, self._go_on, disk, [daemon.host])
        else:
            setattr(disk, kind, True)
            self.world.later(seconds, setattr, disk, kind, False)

    def _flip_on_flash(self) -> None:
        """Of a segment that has not moved, once there is one."""
        names = [daemon.flash_name for daemon in self.daemons]
        disks = self.world.disks
        slow = {path for name in disks.keys() - set(names) for path in disks[name].files}
        alone = [(name, path) for name in names for path in disks[name].files.keys() - slow]
        if alone:
            self._flip(self.rng.choice(sorted(alone)))
        elif not self.is_over:
            self.world.later(0.2, self._flip_on_flash)

    def _flip(self, found: tuple[str, str] | None = None) -> None:
        if (found := found or self._a_file()) is not None:
            file = self.world.disks[found[0]].files[found[1]]
            if file:
                at = self.rng.randrange(len(file) * 8)
                self.world.trace(f"flip bit {at} of {found}")
                file[at // 8] ^= 1 << at % 8
                self._damaged()

    def _damaged(self) -> None:
        self.engine.damages += 1
        self.is_too_much = True

    def _delete(self) -> None:
        if (found := self._a_file()) is not None:
            self.world.trace(f"delete {found}")
            self.world.disks[found[0]].delete(found[1])
            self._damaged()

    def _truncate(self) -> None:
        if (found := self._a_file()) is not None:
            self.world.trace(f"truncate {found}")
            file = self.world.disks[found[0]].files[found[1]]
            del file[self.rng.randrange(len(file) + 1) :]
            self._damaged()

    def _lose_host(self) -> None:
        """The one thing that goes wrong, mostly once all is written."""
        engine = self.engine
        if not engine.is_created or (self.people.random() < 0.9 and not engine.is_committed()):
            self.world.later(0.3, self._lose_host)
            return
        self.world.count("hosts lost alone")
        self._lose_disk()
        # The others come when these are done, as in an engine that has few workers.
        for _ in range(2):
            self.world.later(25.0 * self.people.random(), engine.read_something)
        engine.host_lost()
        if self.people.random() < 0.3:
            self.world.later(15.0 * self.people.random(), self._restart_metadata)
        self.world.later(30.0 * self.people.random(), self._end)

    def _lose_flash(self) -> None:
        """A daemon dies with its flash, and comes back with an empty one."""
        daemon = self._a_daemon()
        self.world.trace(f"lose {daemon.flash_name}")
        seconds = self._fails(self._outage())
        daemon.kill()
        self._clear_flash(daemon)
        self._start_later(daemon, seconds)

    def _clear_flash(self, daemon: Daemon) -> None:
        if daemon.flash_name:
            flash = self.world.disks[daemon.flash_name]
            flash.files.clear()
            flash.durable.clear()

    def _lose_disk(self) -> None:
        """A host with its own disk goes, and another one comes in its place."""
        daemon = self.rng.choice(self.daemons)
        self.world.trace(f"lose {daemon.disk_name}")
        daemon.kill()
        daemon.disk.files.clear()
        daemon.disk.durable.clear()
        self._clear_flash(daemon)
        self.world.lost_stores.add(daemon.disk.store_id)
        if self.people.random() < 0.6:
            delay_s = 10 * self.people.random()
            self.world.later(delay_s, people.forget, self.world, daemon.disk.store_id)
        daemon.disk.store_id += "'"
        self._damaged()
        self._start_later(daemon, self._outage())
