"""Makes connections, in an event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from contextlib import suppress
from typing import Any, Final, TypeAlias

from cosco.config import parse_address
from cosco.errors import InvalidArgument

#: What there is to connect once a name was looked up, however long that took.
_LEAST_S: Final = 2.0
#: How long an address may be silent before the next one is tried as well. A probe has a second
#: for all of them, and the next probe begins with the first address again.
_HEAD_START_S: Final = 0.25
#: Addresses of one name that are tried: each may hold a socket at the same time.
_MAX_ADDRESSES: Final = 16
#: Look-ups under way in this process: each has a thread, for as long as the system takes.
MAX_LOOK_UPS: Final = 64

#: This machine has no way to an address of that kind, which says nothing of who is there.
_NO_WAY: Final = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

#: Families and addresses, as the socket module has them.
_Found: TypeAlias = list[tuple[int, Any]]
#: What a look-up has found, or why it found nothing.
_Outcome: TypeAlias = _Found | str


class NotConnected(Exception):
    """There is no connection: why, with gRPC's words for it."""


async def dial(address: str, timeout_s: float) -> socket.socket:
    """Return a connection to `host:port`, which the caller closes; raises NotConnected.

    The look-up of a name has `timeout_s`. To connect there is what it leaves, or 2 s if that is
    more.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    try:
        async with asyncio.timeout_at(until):
            found = await _addresses(address)
    except TimeoutError:
        raise NotConnected(f"errors resolving {address}: it takes too long") from None
    if not found:
        raise NotConnected(f"errors resolving {address}: no address")
    # A slow answer of a name server leaves as much for what it named.
    attempts = _Attempts(max(until, loop.time() + _LEAST_S))
    return await attempts.first(found[:_MAX_ADDRESSES])


# --- connecting -------------------------------------------------------------------------------


class _Attempts:
    """Attempts to connect to the addresses of one name, of which the first to succeed counts."""

    def __init__(self, until: float) -> None:
        """Begin none. until: when it is too late, by the clock of the loop."""
        self._until = until
        self._under_way: dict[asyncio.Task[socket.socket], str] = {}
        self._refusal = self._no_way = self._doubt = ""

    async def first(self, found: _Found) -> socket.socket:
        """Return the first connection that is made, and give up others; raises NotConnected."""
        try:
            connected = await self._race(found)
        finally:
            # Not waited for: who is cancelled meanwhile would lose the connection.
            for attempt in self._under_way:
                attempt.add_done_callback(_close)
                attempt.cancel()
        if connected is None:
            # Nobody is gone for sure of whom one address is silent, whatever another one says.
            reason = self._doubt or self._refusal or self._no_way
            raise NotConnected(f"failed to connect: {reason}")
        return connected

    async def _race(self, found: _Found) -> socket.socket | None:
        """Begin with one address after the other, until one is connected or the time is over."""
        loop = asyncio.get_running_loop()
        untried = found[::-1]
        while untried or self._under_way:
            if untried:
                self._begin(*untried.pop())
            pause_s = max(0.0, self._until - loop.time())
            if untried:
                pause_s = min(_HEAD_START_S, pause_s / 2)
            done, _ = await asyncio.wait(
                self._under_way, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                connected = self._ended(attempt)
                if connected is not None:
                    return connected
            if not (done or untried):
                place = next(iter(self._under_way.values()))
                self._doubt = f"{place}: it does not answer"
                return None
        return None

    def _begin(self, family: int, where: Any) -> None:
        place = f"{where[0]}:{where[1]}"
        attempt = asyncio.create_task(_connected(family, where), name=f"dial-{place}")
        self._under_way[attempt] = f"{place} cannot be connected to"

    def _ended(self, attempt: asyncio.Task[socket.socket]) -> socket.socket | None:
        """Return the connection of an attempt that has ended, or note why there is none."""
        place = self._under_way.pop(attempt)
        try:
            return attempt.result()
        except TimeoutError:  # the system has one, too
            self._doubt = f"{place}: it does not answer"
        except OSError as error:
            # asyncio has a text of its own in the place of the system's.
            reason = f"{place}: {os.strerror(error.errno) if error.errno else error}"
            # By kind, so that the order of the addresses does not decide what is told.
            if error.errno == errno.ECONNREFUSED:
                self._refusal = reason
            elif error.errno in _NO_WAY:
                self._no_way = reason
            else:
                self._doubt = reason
        return None


async def _connected(family: int, where: Any) -> socket.socket:
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connecting, where)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _close(attempt: asyncio.Task[socket.socket]) -> None:
    """Close what an attempt has connected that nobody waits for any more."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


# --- looking up -------------------------------------------------------------------------------


async def _addresses(address: str) -> _Found:
    """Return the families and addresses of `host:port`; raises NotConnected."""
    try:
        host, port = parse_address(address)
    except InvalidArgument as error:
        raise NotConnected(f"errors resolving {address}: {error}") from None
    try:
        return _looked_up(host, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    except UnicodeError as error:  # no name server can be asked for it
        raise NotConnected(f"errors resolving {address}: {error}") from None
    return await _LOOK_UPS.wait(host, port)


class _LookUps:
    """The look-ups of names that are under way in this process, and who waits for each.

    Each has a thread that nobody waits for at the end. It may take a minute, longer than those
    who wait do; so the next ones wait for the same.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, int], set[asyncio.Future[_Outcome]]] = {}

    async def wait(self, host: str, port: int) -> _Found:
        """Return what is found under a name; raises NotConnected."""
        future: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        with self._lock:
            waiting = self._waiting.get((host, port))
            if waiting is None:
                waiting = self._begin(host, port)
            waiting.add(future)
        try:
            outcome = await future
        finally:
            with self._lock:
                waiting.discard(future)
        if isinstance(outcome, str):
            raise NotConnected(f"errors resolving {host}:{port}: {outcome}")
        return outcome

    def _begin(self, host: str, port: int) -> set[asyncio.Future[_Outcome]]:
        """Have a name looked up, with the lock held; returns who waits for it, nobody yet."""
        if len(self._waiting) >= MAX_LOOK_UPS:
            raise NotConnected(
                f"errors resolving {host}:{port}: {MAX_LOOK_UPS} other names are being looked up"
            )
        try:
            threading.Thread(
                target=self._look, args=(host, port), name="look-up", daemon=True
            ).start()
        except RuntimeError as error:
            raise NotConnected(f"{host} cannot be looked up: {error}") from None
        return self._waiting.setdefault((host, port), set())

    def _look(self, host: str, port: int) -> None:
        outcome: _Outcome = "the look-up has failed"
        try:
            outcome = _looked_up(host, port, 0)
        except (OSError, UnicodeError) as error:
            outcome = str(error)
        finally:
            with self._lock:
                waiting = tuple(self._waiting.pop((host, port)))
            for future in waiting:
                with suppress(RuntimeError):  # its loop is closed
                    future.get_loop().call_soon_threadsafe(_tell, future, outcome)


_LOOK_UPS: Final = _LookUps()


def _tell(future: asyncio.Future[_Outcome], outcome: _Outcome) -> None:
    if not future.done():  # else who waited was cancelled
        future.set_result(outcome)


def _looked_up(host: str, port: int, flags: int) -> _Found:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys((family, where) for family, _, _, _, where in found))
