"""The daemon's side of the metadata service: registration, heartbeats, look-ups, orders."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from google.protobuf.message import DecodeError

from cosco.errors import CoscoError, IncompatibleVersion, InvalidArgument, ServiceUnavailable
from cosco.process.service_calls.channel_choice import new_channel
from cosco.process.service_calls.service_channel import CallFailed
from cosco.process.tls.service_tls import PLAIN, ServiceTls
from cosco.process.wrong_address import guess
from cosco.protocol import wire
from cosco.protocol.capability import CapabilityKey
from cosco.protocol.events import Event
from cosco.protocol.group_records import FoundAssignment
from cosco.protocol.records import DaemonHeartbeat, DaemonOrders, DaemonRegistration
from cosco.shuffle_service.io.epoch_removal import EpochRemoval
from cosco.shuffle_service.state.lease_watch import LeaseWatch
from cosco.shuffle_service.state.segments.stored_tally import StoredTally

log = logging.getLogger(__name__)

_CALL_TIMEOUT_S: Final = 5.0
_RETRY_S: Final = 0.2
_HURRY_S: Final = 0.1
#: Exchanges that are to go are forgotten one after the other for this long at a time.
_FORGET_S: Final = 0.001


class MetadataLink:
    """Calls of the metadata service; the errors of calls end here."""

    def __init__(self, address: str, tls: ServiceTls = PLAIN) -> None:
        """tls: of the daemon."""
        self.address = address
        self.tls = tls
        limit = wire.MAX_METADATA_MESSAGE_BYTES
        self._channel = new_channel(address, max_reply_bytes=limit, tls=tls)

    async def call(self, method: str, request: Any) -> Any:
        """Make one call; raises ServiceUnavailable, or the error that the service answered."""
        _, reply_type = wire.METADATA_METHODS[method]
        path = f"/{wire.METADATA_SERVICE}/{method}"
        try:
            reply = await self._channel.unary(path, request.SerializeToString(), _CALL_TIMEOUT_S)
            return reply_type.FromString(reply)
        except CallFailed as error:
            if error.error:
                where = f"{method} at {self.address}"
                raise wire.error_from_bytes(error.error, where) from None
            meaning = guess(error.details)
            reason = error.code.lower() + (f": {meaning}" if meaning else "")
        except DecodeError:
            reason = "its answer is nonsense"
        raise ServiceUnavailable(
            f"the metadata service at {self.address} does not answer ({reason}); start "
            "cosco-metadata there or correct --metadata"
        )

    async def lookup(
        self, number: int, range_index: int, epoch: int, incarnation: int
    ) -> FoundAssignment | None:
        """Return the assignment, if it is this daemon's, and which others are like it."""
        reply = await self.call(
            "LookupAssignment",
            wire.mpb.LookupAssignmentRequest(
                number=number, range_index=range_index, epoch=epoch, incarnation=incarnation
            ),
        )
        return wire.found_assignment(reply)

    async def close(self) -> None:
        await self._channel.close()


class _Refused(Exception):
    """The service does not take this daemon in again: another one answers at its address."""


class Membership:
    """Keeps the daemon registered and carries out what the service orders.

    describe: the registration, with what the store holds now.
    condition: a heartbeat without `dropped` and `exchanges`, which are added here.
    listed: the numbers of the exchanges that the daemon or its store holds anything of.
    forget: forgets what memory holds of an exchange, at once.
    remove: deletes its files, after the writes that are under way.
    stored: what `condition` tells of, which is told again with each sweep.
    old_epochs: has epochs of open exchanges go.
    told: is given every answer, and when it came in monotonic seconds.
    set_keys: is given the keys in every answer that knows this daemon, the first one included.
    tell: has operators told of an event.

    What the store holds is always listed before the call that tells it, so that nothing
    newer can be ordered away.
    """

    def __init__(
        self,
        link: MetadataLink,
        *,
        describe: Callable[[], Awaitable[DaemonRegistration]],
        condition: Callable[[], DaemonHeartbeat],
        listed: Callable[[], Awaitable[tuple[int, ...]]],
        forget: Callable[[int], None],
        remove: Callable[[int], Awaitable[None]],
        stored: StoredTally,
        old_epochs: EpochRemoval,
        told: Callable[[DaemonOrders, float], None],
        set_keys: Callable[[Sequence[CapabilityKey]], None] = lambda _: None,
        tell: Callable[[Event], None] = lambda _: None,
        heartbeat_s: float,
        sweep_s: float,
    ) -> None:
        self._link = link
        self._describe = describe
        self._condition = condition
        self._listed = listed
        self._forget = forget
        self._remove = remove
        self._stored = stored
        self._old_epochs = old_epochs
        self._told = told
        self._set_keys = set_keys
        self._lease = LeaseWatch(tell)
        self._asked_at = time.monotonic()  # when the last call began
        self._heartbeat_s = self._usual_heartbeat_s = heartbeat_s
        self._sweep_s = sweep_s
        self._now = asyncio.Event()
        self._cluster_id = ""
        self._to_drop: set[int] = set()
        self._ordered = asyncio.Event()
        self._to_remove: set[int] = set()  # of these, those that memory holds nothing of
        self._forgotten = asyncio.Event()
        self._dropped: set[int] = set()  # done, and not yet told
        self._found: tuple[int, ...] | None = None  # of the last sweep, and not yet told

    async def register(self, timeout_s: float) -> DaemonOrders:
        """Register for the first time; raises ServiceUnavailable after `timeout_s`.

        Raises InvalidArgument if another daemon answers at this one's address, IncompatibleVersion
        if the service is of a build too far from this one.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                orders = await self._register()
            except ServiceUnavailable:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(_RETRY_S)
            else:
                self._set_keys(orders.keys)  # before anything is served
                return orders

    async def _register(self) -> DaemonOrders:
        """Register, however long the service waits for the end of who had the address before."""
        is_told = False
        while True:
            registration = await self._describe()
            self._asked_at = time.monotonic()
            reply = await self._link.call("RegisterDaemon", wire.to_pb(registration))
            orders = wire.from_pb(DaemonOrders, reply)
            if orders.known:
                return orders
            if not is_told:
                is_told = True
                log.warning(
                    "another daemon is registered at %s, and nobody answers there: this one is "
                    "taken in once the other is sure to be gone",
                    registration.address,
                )
            await asyncio.sleep(_RETRY_S)

    def not_ready(self, now: float) -> list[str]:
        """Return why the daemon cannot count on being known to the service."""
        return self._lease.doubts(now)

    @property
    def owes_drops(self) -> bool:
        """Whether it was told to drop an exchange, and has not confirmed that."""
        return bool(self._to_drop or self._dropped)

    def hurry(self) -> None:
        """Send a heartbeat now, and further ones often: the daemon waits for the answers."""
        self._heartbeat_s = min(self._usual_heartbeat_s, _HURRY_S)
        self._now.set()

    def calm(self) -> None:
        """Send heartbeats as often as before `hurry`."""
        self._heartbeat_s = self._usual_heartbeat_s

    async def run(self, orders: DaemonOrders) -> None:
        """Send heartbeats and carry out orders, for ever, starting with `orders`.

        Raises ServiceUnavailable if the metadata service has begun anew, as another cluster;
        InvalidArgument if it does not take this daemon in again, as another one answers at its
        address.
        """
        self._cluster_id = orders.cluster_id
        self._order(orders)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forget_ordered(), name="forget")
                group.create_task(self._remove_forgotten(), name="remove")
                group.create_task(self._old_epochs.run(), name="old-epochs")
                group.create_task(self._send_heartbeats(), name="heartbeats")
                group.create_task(self._sweep(), name="sweep")
        except ExceptionGroup as errors:  # the first one ended the other tasks
            raise errors.exceptions[0] from None

    async def _send_heartbeats(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._now.wait(), self._heartbeat_s)
            self._now.clear()
            try:
                orders = await self._heartbeat()
                if not orders.known:
                    self._lease.lost("not known")
                    orders = await self._register_again()
            except _Refused as error:
                raise InvalidArgument(str(error)) from None
            except (CoscoError, OSError) as error:  # of the service, or of the store
                self._lease.unanswered(str(error), time.monotonic())
                self._stored.repeat()  # a service that was started again knows nothing of it
                continue
            self._check_cluster(orders)
            self._order(orders)

    async def _register_again(self) -> DaemonOrders:
        """Register once the service does not know this daemon any more; raises _Refused."""
        try:
            return await self._register()
        except (InvalidArgument, IncompatibleVersion) as error:
            raise _Refused(str(error)) from None

    async def _heartbeat(self) -> DaemonOrders:
        dropped = tuple(sorted(self._dropped))
        found, self._found = self._found, None
        gone = () if found is None else self._old_epochs.dropped(found)
        heartbeat = replace(
            self._condition(), dropped=dropped, exchanges=found or (), epochs_dropped=gone
        )
        self._asked_at = time.monotonic()
        reply = await self._link.call("Heartbeat", wire.to_pb(heartbeat))
        self._dropped.difference_update(dropped)
        orders = wire.from_pb(DaemonOrders, reply)
        if orders.known:
            self._stored.told(heartbeat.stored)
        return orders

    async def _sweep(self) -> None:
        """Beside the heartbeats, which a slow store must not hold up."""
        while True:
            await asyncio.sleep(self._sweep_s)
            try:
                self._stored.repeat()
                self._found = await self._listed()
            except OSError as error:
                log.warning("the store cannot be swept: %s", error)

    def _check_cluster(self, orders: DaemonOrders) -> None:
        """Numbers of another cluster's exchanges name other rows than those held here."""
        if orders.cluster_id != self._cluster_id:
            raise ServiceUnavailable(
                f"the metadata service at {self._link.address} is of cluster "
                f"{orders.cluster_id} now and was of {self._cluster_id}: start this daemon "
                "again, or bring back the service's database"
            )

    def _order(self, orders: DaemonOrders) -> None:
        now = time.monotonic()
        self._lease.answered(orders, now, self._asked_at)
        self._set_keys(orders.keys)
        self._told(orders, now)
        self._old_epochs.order(orders.epochs_drop)
        self._to_drop.update(number for number in orders.drop if number not in self._dropped)
        if self._to_drop:
            self._ordered.set()

    async def _forget_ordered(self) -> None:
        """Free memory first: a store that hangs must not hold it up."""
        while True:
            await self._ordered.wait()
            self._ordered.clear()
            began = time.monotonic()
            for number in sorted(self._to_drop - self._to_remove):
                self._forget(number)
                self._to_remove.add(number)
                self._forgotten.set()
                if time.monotonic() - began >= _FORGET_S:  # there may be thousands
                    await asyncio.sleep(0)
                    began = time.monotonic()

    async def _remove_forgotten(self) -> None:
        """Beside the heartbeats, which a large deletion must not hold up."""
        while True:
            await self._forgotten.wait()
            self._forgotten.clear()
            for number in sorted(self._to_remove):
                await self._try_remove(number)
                self._to_remove.discard(number)
                self._to_drop.discard(number)

    async def _try_remove(self, number: int) -> None:
        try:
            await self._remove(number)
        except OSError as error:  # not confirmed, so the order comes again
            log.warning("exchange %d is not removed yet: %s", number, error)
        else:
            self._dropped.add(number)
