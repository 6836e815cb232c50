"""The network between simulated processes: calls whose messages take time, or do not come.

A call is a pair of ordered streams, as over one HTTP/2 stream. It can break as a whole: then
what is on its way is gone, and each end learns it at a time of its own. Unary calls are also
lost before or after they were carried out, and carried out twice, as the repetition of a call
that was given up may overtake it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc

from .loop import PROCESS, Process, RunState

if TYPE_CHECKING:
    from .aio import Server
    from .world import World

#: Connections to hosts that say nothing break after so long.
KEEPALIVE_S: Final = 15.0
#: An attempt to connect to such a host ends after so long.
CONNECT_S: Final = 5.0

Trailers = tuple[tuple[str, bytes | str], ...]


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad the network is. Shares of 1."""

    slow: float = 0.0  # of messages that take up to seconds
    lost: float = 0.0  # of unary calls that fail, carried out or not
    repeated: float = 0.0  # of unary calls that are carried out twice
    broken: float = 0.0  # of a stream's messages that break it


class Network:
    """Who can reach whom, and how fast."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.loop = world.loop
        self.rng = world.rng
        self.weather = Weather()
        self.servers: dict[str, Server] = {}
        self.silent_hosts: set[str] = set()  # powered off: nobody says that they are
        #: What the world itself runs: part of no process.
        self.context = Context()
        #: Told of every message that arrives: "opened" at the server, "delivered" at the client.
        self.watch: Callable[[str, Call], None] = lambda _, __: None
        #: What somebody else asks for right before a call, in its name; None: nobody does.
        self.forge: Callable[[Call], bytes | None] = lambda _: None
        #: Told of every call that a server has answered, with what.
        self.answered: Callable[[Call, grpc.StatusCode], None] = lambda _, __: None
        #: By when all has come that was sent during a cut, though it was healed since.
        self.held_up_until = 0.0
        self._cuts: dict[tuple[str, str], float] = {}

    def cut(self, source: str, target: str, seconds: float) -> None:
        """Nothing passes from one host to the other for so long."""
        until = self._cuts[source, target] = self.loop.now + seconds
        self.held_up_until = max(self.held_up_until, until)

    def heal(self) -> None:
        self._cuts.clear()

    def arrival(self, source: str, target: str) -> float:
        """When a message that is sent now comes, or would come."""
        rng, now = self.rng, self.loop.now
        delay = 0.0002 + 0.001 * rng.random()
        if self.weather.slow and rng.random() < self.weather.slow:
            delay += min(rng.expovariate(3.0), 4.0)
            self.world.count("messages late")
        cut = self._cuts.get((source, target))
        return (cut if cut is not None and cut > now else now) + delay

    def at(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        self.loop.call_at(when, callback, *args, context=self.context)

    def host_of(self, address: str) -> str:
        return address.rpartition(":")[0]


class Call:
    """One call, seen from both ends; `on_message` and `on_end` are the client's."""

    def __init__(
        self,
        network: Network,
        address: str,
        method: str,
        *,
        unary: bool,
        timeout: float | None,
        on_message: Callable[[bytes], None],
        on_end: Callable[[grpc.StatusCode, str, Trailers], None],
    ) -> None:
        self.network = network
        self.loop = network.loop
        self.method = method
        self._address = address
        self._on_message = on_message
        self._on_end = on_end
        process = PROCESS.get()
        assert process is not None
        self.client: Process = process
        self.server: Process | None = None
        self._here, self._there = process.host, network.host_of(address)
        self._up = self._down = 0.0
        self._waiting: list[bytes | None] = []  # sent before the server took the call
        self.ended = False  # at the client
        self.server_ended = False
        self.broken = False
        self.inbox: list[bytes | None] = []  # None: the client has said all
        self.request = b""  # the first message, once the server has taken the call
        self.unread_bytes = 0  # of messages on their way to the server, or in its inbox
        self._reader: asyncio.Future[None] | None = None
        #: Called at the server when a message has come that nobody awaits.
        self.on_inbox: Callable[[], None] | None = None
        self.task: asyncio.Future[None] | None = None
        self._unary = unary
        self._timer = (
            None if timeout is None else self.loop.call_later(max(timeout, 0), self._timed_out)
        )
        self.client.on_death[self._client_died] = None
        self._begin()

    # --- opening ---------------------------------------------------------------------------

    def _begin(self) -> None:
        rng, weather = self.network.rng, self.network.weather
        self._lose_reply = False
        if self._unary and weather.lost and rng.random() < weather.lost:
            self.network.world.count("calls lost")
            if rng.random() < 0.5:
                self.broken = True
                self._tell_client(self._way_back(), grpc.StatusCode.UNAVAILABLE, "Socket closed")
                return
            self._lose_reply = True
        self._up = self._way_there()
        if self._up > self.loop.now + KEEPALIVE_S:
            self._break_later()
            return
        self.network.at(self._up, self._open)

    def repeat(self, request: bytes) -> None:
        """Carry out a unary call once more, whose reply nobody reads."""
        network = self.network
        if network.weather.repeated and network.rng.random() < network.weather.repeated:
            network.world.count("calls repeated")
            when = self._up + network.rng.expovariate(network.rng.choice((5.0, 1.0, 0.1)))
            network.at(when, self.open_again, request)

    def open_again(self, request: bytes) -> None:
        """Carry out the call once more, now."""
        server = self.network.servers.get(self._address)
        if server is not None and server.process.state is not RunState.DEAD:
            server.accept(Ghost(self, request))

    def _open(self) -> None:
        if self.broken or (self.ended and not self._unary):
            return
        if self._there in self.network.silent_hosts:
            self.network.at(
                self.loop.now + CONNECT_S, self._end_client, grpc.StatusCode.UNAVAILABLE,
                f"failed to connect to all addresses; last error: {self._address}: "
                "Failed to connect to remote host: Timeout occurred: FD shutdown", (),
            )  # fmt: skip
            return
        server = self.network.servers.get(self._address)
        if server is None:
            self.broken = True
            self._tell_client(
                self._way_back(),
                grpc.StatusCode.UNAVAILABLE,
                f"failed to connect to all addresses; last error: UNKNOWN: "
                f"ipv4:{self._address}: Failed to connect to remote host: connect: "
                "Connection refused (111)",
            )
            return
        self.server = server.process
        self.server.on_death[self._server_died] = None
        self.inbox += self._waiting
        self.request = self._waiting[0] or b"" if self._waiting else b""
        self._waiting = []
        forged = self.network.forge(self) if self._unary else None
        if forged is not None:
            server.accept(Ghost(self, forged))
        server.accept(self)
        self.network.watch("opened", self)

    # --- the client's end ------------------------------------------------------------------

    def send(self, message: bytes | None) -> None:
        """Send a message; None: that was the last one."""
        if self.ended or self.broken:
            return
        self.unread_bytes += len(message or b"")
        if self.server is None:
            self._waiting.append(message)
            return
        if self._breaks():
            return
        self._up = max(self._up, self._way_there())
        if self._up > self.loop.now + KEEPALIVE_S:
            self._break_later()
        else:
            self.network.at(self._up, self._receive, message)

    def cancel(self) -> None:
        if not self.ended:
            self._hang_up()
            self._end_client(grpc.StatusCode.CANCELLED, "Locally cancelled by application!", ())

    def _timed_out(self) -> None:
        if not self.ended:
            self._hang_up()
            self._end_client(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", ())

    def _hang_up(self) -> None:
        if self._there not in self.network.silent_hosts:
            self.network.at(self._way_there(), self._cancel_server)

    def _client_died(self) -> None:
        self.ended = True
        if self._here not in self.network.silent_hosts:
            if self.network.rng.random() < 0.5:
                self.broken = True  # what it had sent, and was not there yet, is lost
            self._hang_up()
        else:
            self.broken = True
            self.network.at(self.loop.now + KEEPALIVE_S, self._cancel_server)

    def _end_client(self, code: grpc.StatusCode, details: str, trailers: Trailers) -> None:
        if self.ended:
            return
        self.ended = True
        self.client.on_death.pop(self._client_died, None)
        if self._timer is not None:
            self._timer.cancel()
        self._on_end(code, details, trailers)

    def _tell_client(
        self, when: float, code: grpc.StatusCode, details: str, trailers: Trailers = ()
    ) -> None:
        self.network.at(when, self._end_client, code, details, trailers)

    def _deliver(self, message: bytes) -> None:
        if not self.ended and not self.broken:
            self._on_message(message)
            self.network.watch("delivered", self)

    # --- the server's end ------------------------------------------------------------------

    def _receive(self, message: bytes | None) -> None:
        if not self.broken and not self.server_ended:
            self.inbox.append(message)
            if self._reader is not None and not self._reader.done():
                self._reader.set_result(None)
            if self.on_inbox is not None and self.server is not None:
                self.loop.call_soon(self.on_inbox, context=self.server.context.copy())

    async def read(self) -> bytes | None:
        """The next message of the client; None after the last one."""
        while not self.inbox:
            self._reader = self.loop.create_future()
            await self._reader
        return self.take()

    def take(self) -> bytes | None:
        """The same, if it has come."""
        message = self.inbox.pop(0)
        self.unread_bytes -= len(message or b"")
        return message

    async def reply(self, message: bytes) -> None:
        """Send a message to the client; sometimes that takes its time."""
        if self.broken or self.server_ended:
            return
        if not self._unary:
            if self._breaks():
                return
            if self.network.rng.random() < 0.1:
                await asyncio.sleep(self.network.rng.random() * 0.05)
        self._send_back(message)

    def send_back(self, message: bytes) -> None:
        """The same at once, on a stream."""
        if not (self.broken or self.server_ended or self._breaks()):
            self._send_back(message)

    def _send_back(self, message: bytes) -> None:
        self._down = max(self._down, self._way_back())
        if self._down > self.loop.now + KEEPALIVE_S:
            self._break_later()
        elif not self._lose_reply:
            self.network.at(self._down, self._deliver, message)

    def finish(self, code: grpc.StatusCode, details: str = "", trailers: Trailers = ()) -> None:
        """The handler has ended."""
        if self.server_ended:
            return
        self.server_ended = True
        self.network.answered(self, code)
        if self.server is not None:
            self.server.on_death.pop(self._server_died, None)
        if self.broken:
            return
        if self._lose_reply:
            code, details, trailers = grpc.StatusCode.UNAVAILABLE, "Socket closed", ()
        self._down = max(self._down, self._way_back())
        self._tell_client(self._down, code, details, trailers)

    def _cancel_server(self) -> None:
        if self.server is not None and not self.server_ended:
            self.loop.call_soon(self._cancel_task, context=self.server.context.copy())

    def _cancel_task(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def _server_died(self) -> None:
        self.server_ended = self.broken = True
        if self._there in self.network.silent_hosts:
            self.network.at(
                self.loop.now + KEEPALIVE_S, self._end_client,
                grpc.StatusCode.UNAVAILABLE, "keepalive watchdog timeout", (),
            )  # fmt: skip
        else:
            self._tell_client(
                self._way_back(), grpc.StatusCode.UNAVAILABLE, "recvmsg:Connection reset by peer"
            )

    # --- breaking --------------------------------------------------------------------------

    def _breaks(self) -> bool:
        """Break the call now and then."""
        share = self.network.weather.broken
        if not share or self.network.rng.random() >= share:
            return False
        self.break_now()
        return True

    def break_now(self) -> None:
        if not self.broken:
            self.network.world.count("streams broken")
            self.broken = True
            self._tell_client(
                self._way_back(), grpc.StatusCode.UNAVAILABLE, "recvmsg:Connection reset by peer"
            )
            self.network.at(self._way_there(), self._cancel_server)

    def _break_later(self) -> None:
        self.broken = True
        when = self.loop.now + KEEPALIVE_S
        self.network.at(
            when, self._end_client, grpc.StatusCode.UNAVAILABLE, "keepalive watchdog timeout", ()
        )
        self.network.at(when, self._cancel_server)

    def _way_there(self) -> float:
        return self.network.arrival(self._here, self._there)

    def _way_back(self) -> float:
        return self.network.arrival(self._there, self._here)


class Ghost:
    """A unary call's second coming: the handler runs, and its reply goes nowhere."""

    def __init__(self, call: Call, request: bytes) -> None:
        self.method = call.method
        self.inbox: list[bytes | None] = [request, None]
        self.task: asyncio.Task[None] | None = None

    async def read(self) -> bytes | None:
        return self.inbox.pop(0)

    async def reply(self, message: bytes) -> None:
        pass

    def finish(self, code: grpc.StatusCode, details: str = "", trailers: Trailers = ()) -> None:
        pass
