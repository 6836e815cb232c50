"""The background work of who owns exchanges: renew the lease, call mappers back."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from cosco.client.access.service_connection import Connection
from cosco.client.driver.callback_threads import CallbackThreads
from cosco.client.exchange_spans import recompute_span
from cosco.client.rpc.in_use import IN_USE, Owns, owns_none
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import (
    AccessDenied,
    ClientClosed,
    CoscoError,
    InvalidArgument,
    ServiceUnavailable,
)
from cosco.protocol.application_records import ApplicationAnswer
from cosco.protocol.group_records import GroupAnswer, GroupCall, member_name
from cosco.protocol.keys import LossKey
from cosco.protocol.records import ExchangeInfo, ExchangeSpec

RecomputeCallback = Callable[[list[int], str], None]
#: With the exchange's index in the group first, or its number in an application.
GroupCallback = Callable[[int, list[int], str], None]
#: One poll of the metadata service: renews the lease, tells how callbacks ended (why they failed,
#: or empty), and brings the losses there are, each with the exchange that the callback is told; the
#: time is how long it waits for the first one.
Poll = Callable[[MetadataClient, Mapping[LossKey, str], float], Sequence[GroupCall]]

#: How long a poll waits at most, and how long it is until the next one if it brought nothing new.
_POLL_S: Final = 10.0
_PAUSE_S: Final = 1.0
_JOIN_S: Final = 1.0
#: A driver without an owner renews for this time after this process last used its exchange.
LET_GO_S: Final = 5.0
#: How long a poll of it waits at most.
_LET_GO_POLL_S: Final = 1.0
_LOG = logging.getLogger("cosco")


class _Held:
    """The callback, as its owner holds it: threads reach it while the owner lives."""

    __slots__ = ("__weakref__", "run")

    def __init__(self, run: GroupCallback) -> None:
        self.run = run


class Driver:
    """The lease and the callback of one or many exchanges, as the object that owns them has them.

    Every loss is called back once by a driver; the service repeats it until it has been told how
    that ended, to the next driver as well if this one was replaced before.
    """

    def __init__(
        self,
        connection: Connection,
        shuffle_id: str,
        lease_s: float,
        poll: Poll,
        callback: GroupCallback | None,
        service_timeout_s: float,
        *,
        owns: Owns | None = None,
    ) -> None:
        """Prepare the thread.

        shuffle_id: of the exchange, or the id of the group or application. owns: which exchanges an
        application has, whose callbacks do not wait for those of others; else one comes after the
        other.
        """
        # A callback may hold the object that owns this driver, which would never be collected if
        # a thread held the callback.
        self._held = None if callback is None else _Held(callback)
        held = None if self._held is None else weakref.ref(self._held)
        self._work: Final = _DriverWork(
            connection, shuffle_id, lease_s, poll, held, service_timeout_s, owns
        )

    @property
    def is_replaced(self) -> bool:
        """Whether it was told that another driver has taken over."""
        return self._work.is_replaced

    def start(self) -> None:
        """Start to poll."""
        self._work.start()

    def close(self) -> None:
        """Stop all threads, without waiting for a callback that is running."""
        self._work.close()

    def let_go(self) -> None:
        """Go on without an owner while this process uses the exchange, and then stop.

        Not for finalizers: it takes locks.
        """
        self._work.let_go(self._held)


class _DriverWork:
    """A thread that polls the metadata service, and others that run the callback.

    So a callback may block, and may fork, while the lease is renewed.
    """

    def __init__(
        self,
        connection: Connection,
        shuffle_id: str,
        lease_s: float,
        poll: Poll,
        callback: weakref.ref[_Held] | None,
        service_timeout_s: float,
        owns: Owns | None,
    ) -> None:
        self._connection = connection
        self._shuffle_id: Final = shuffle_id
        self._lease_s = lease_s
        self._poll_service = poll
        self._callback = callback
        self._service_timeout_s = service_timeout_s
        self._is_parallel = owns is not None
        self._owns = owns or owns_none
        self._telling = threading.Lock()  # how callbacks ended
        self._lock = threading.Lock()
        self._known: set[LossKey] = set()  # losses that were given to the callback's threads
        self._outcomes: dict[LossKey, str] = {}  # of losses, to be told
        self._under_way: set[LossKey] = set()  # outcomes that a call tells now
        self.is_replaced = False
        # Since it was let go: the callback, and since when nobody has used the exchange.
        self._kept: _Held | None = None
        self._is_let_go = False
        self._unused_since: float | None = None
        self._renewed_at = time.monotonic()
        #: What has been said of a lease that is not renewed.
        self._doubt = ""
        self._prepare()

    def start(self) -> None:
        """Start to poll."""
        try:
            self.thread.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop all threads, without waiting for a callback that is running."""
        self.callbacks.close()
        self.scope.close()
        self._waiting_scope.close()
        if threading.current_thread() is not self.thread:
            with suppress(RuntimeError):  # it was never started, as there are too many
                self.thread.join(_JOIN_S)
        if self._telling.acquire(timeout=_JOIN_S):  # who tells has been broken off
            self._telling.release()
        self._metadata.close()

    def let_go(self, callback: _Held | None) -> None:
        """See `Driver.let_go`."""
        self._kept = callback
        self._is_let_go = True
        self._waiting_scope.close()  # so that the poll under way ends

    def _prepare(self) -> None:
        """Make the thread that polls, and what it needs."""
        self.scope = Scope("the driver", self._shuffle_id)
        #: The call that waits for losses is made in it, and may be broken off.
        self._waiting_scope = Scope("the driver", self._shuffle_id)
        # Whoever makes a driver has just reached the service, which may be away by the first poll.
        self._metadata = self._client(self.scope)
        self.callbacks = CallbackThreads(self._call_back)
        self.thread = threading.Thread(target=self._poll, name="cosco-lease", daemon=True)

    def _client(self, scope: Scope) -> MetadataClient:
        metadata = MetadataClient(self._connection, scope, self._service_timeout_s)
        metadata.set_met()
        return metadata

    # --- without an owner -------------------------------------------------------------------

    def _must_rest(self) -> bool:
        """Whether the lease is to be renewed no longer, as nobody here uses the exchange."""
        if not self._is_let_go:
            return False
        now = time.monotonic()
        if self.callbacks.is_busy or IN_USE.is_used(self._shuffle_id, self._owns):
            self._unused_since = None
            return False
        if self._unused_since is None:
            self._unused_since = now
        return now - self._unused_since >= min(LET_GO_S, self._lease_s)

    def _rest(self) -> None:
        """Stop all threads, until somebody comes who uses the exchange."""
        _LOG.info("the lease of %r is not renewed any more: nobody uses it here", self._shuffle_id)
        self.close()
        left_s = self._renewed_at + self._lease_s - time.monotonic()
        if not IN_USE.tell_of_next(self._shuffle_id, left_s, self._resume, self._owns):
            self._resume()

    def _resume(self) -> None:
        """Renew the lease again, as somebody has come who uses the exchange."""
        self._unused_since = None
        self._prepare()
        self.start()

    # --- the threads ----------------------------------------------------------------------

    def _poll(self) -> None:
        polling = self._client(self._waiting_scope)
        while not self.scope.is_closed:
            try:
                if self._must_rest():
                    self._rest()
                    break
                wait_s = min(self._lease_s / 3, _LET_GO_POLL_S if self._is_let_go else _POLL_S)
                if not self._exchange_news(polling, wait_s):
                    self.scope.sleep(min(_PAUSE_S, wait_s))
            except ClientClosed:
                if not self.scope.is_closed:  # it was let go
                    polling.close()
                    self._waiting_scope = Scope("the driver", self._shuffle_id)
                    polling = self._client(self._waiting_scope)
            except CoscoError as error:
                if self._may_pass(error):
                    if str(error) != self._doubt:  # it may be the same for as long as the lease
                        self._doubt = str(error)
                        _LOG.warning("the lease of %r is not renewed: %s", self._shuffle_id, error)
                    self.scope.wait(min(_PAUSE_S, self._lease_s / 3))
                    continue
                # It was closed, has another driver now, or went with its service.
                _LOG.info("the lease of %r is not renewed any more: %s", self._shuffle_id, error)
                self.is_replaced = isinstance(error, InvalidArgument)
                self.close()  # nor are mappers called back that another driver calls
        polling.close()

    def _may_pass(self, error: CoscoError) -> bool:
        """Whether the lease may be renewed all the same, a little later."""
        if isinstance(error, AccessDenied):  # as a token is being replaced, for example
            return time.monotonic() < self._renewed_at + self._lease_s
        return isinstance(error, ServiceUnavailable) and not self._metadata.has_ended

    def _call_back(self, call: GroupCall) -> None:
        assert self._callback is not None
        key, held = _key(call), self._kept or self._callback()
        if held is None:  # its owner is being collected: the service tells of the loss again
            self._forget(key)
            return
        outcome = self._run(held.run, call)
        del held
        with self._lock:
            self._outcomes[key] = outcome
        with self._telling:  # whoever comes first tells what others have added meanwhile
            if key not in self._outcomes or key in self._under_way:
                return
            try:
                self._exchange_news(self._metadata, 0.0)
            except ClientClosed:
                pass
            except CoscoError as error:  # the other thread's next poll tells it again
                _LOG.info("the end of a callback of %r is told later: %s", self._shuffle_id, error)

    def _exchange_news(self, metadata: MetadataClient, wait_s: float) -> bool:
        """Tell how callbacks ended, and have new losses called back.

        Returns: False if there were old losses only.
        """
        with self._lock:
            outcomes = {
                loss: failure
                for loss, failure in self._outcomes.items()
                if loss not in self._under_way
            }
            self._under_way.update(outcomes)
        try:
            calls = self._poll_service(metadata, outcomes, wait_s)
        except BaseException:
            with self._lock:
                self._under_way.difference_update(outcomes)
            raise
        self._renewed_at, self._doubt = time.monotonic(), ""
        with self._lock:
            self._under_way.difference_update(outcomes)
            for loss in outcomes:
                del self._outcomes[loss]
            new = [call for call in calls if _key(call) not in self._known]
            self._known.update(map(_key, new))
        for call in new:
            if self._callback is None:
                with self._lock:
                    self._outcomes[_key(call)] = "this driver has no recompute_writers_callback"
            else:
                self._queue(call)
        return bool(new) or not calls

    def _queue(self, call: GroupCall) -> None:
        try:
            self.callbacks.add(call.index if self._is_parallel else 0, call)
        except RuntimeError as error:  # too many threads: the service tells of the loss again
            _LOG.warning("mappers of %r are called back later: %s", self._shuffle_id, error)
            self._forget(_key(call))

    def _forget(self, key: LossKey) -> None:
        with self._lock:
            self._known.discard(key)

    def _run(self, callback: GroupCallback, call: GroupCall) -> str:
        """Run the callback.

        Returns: why the re-runs are not arranged; empty if they are.
        """
        try:
            callback(call.index, list(call.call.mappers), call.call.reason)
        except BaseException as error:  # noqa: BLE001  whatever it is, readers are told
            _LOG.exception("recompute_writers_callback of %r failed", self._shuffle_id)
            return f"recompute_writers_callback raised {type(error).__name__}: {error}"
        return ""


def _key(call: GroupCall) -> LossKey:
    return LossKey(call.index, call.call.loss_id)


def exchange_driver(
    connection: Connection,
    info: ExchangeInfo,
    owner: bytes,
    callback: RecomputeCallback | None,
    service_timeout_s: float,
) -> Driver:
    """Return the driver of one exchange, which is to be started."""

    def poll(
        metadata: MetadataClient, outcomes: Mapping[LossKey, str], wait_s: float
    ) -> Sequence[GroupCall]:
        ended = [(loss.loss_id, failure) for loss, failure in outcomes.items()]
        orders = metadata.poll_driver(
            info.number,
            owner,
            wait_s=wait_s,
            arranged=tuple(loss_id for loss_id, failure in ended if not failure),
            failed=tuple((loss_id, failure) for loss_id, failure in ended if failure),
        )
        return [GroupCall(0, call) for call in orders.calls]

    spec = info.spec

    def call_back(_: int, mappers: list[int], reason: str) -> None:
        assert callback is not None
        with recompute_span(spec.shuffle_id, info.number, spec.trace, mappers, reason):
            callback(mappers, reason)

    run = None if callback is None else call_back
    return Driver(connection, spec.shuffle_id, spec.lease_s, poll, run, service_timeout_s)


def group_driver(
    connection: Connection,
    spec: ExchangeSpec,
    owner: bytes,
    callback: GroupCallback | None,
    service_timeout_s: float,
) -> Driver:
    """Return the driver of all exchanges of a group, which `spec` names; it is to be started."""

    def poll(
        metadata: MetadataClient, outcomes: Mapping[LossKey, str], wait_s: float
    ) -> Sequence[GroupCall]:
        answers = [GroupAnswer(*loss, failure) for loss, failure in outcomes.items()]
        return metadata.poll_group(spec.shuffle_id, owner, wait_s=wait_s, answers=answers)

    def call_back(index: int, mappers: list[int], reason: str) -> None:
        assert callback is not None
        name = member_name(spec.shuffle_id, index)
        with recompute_span(name, None, spec.trace, mappers, reason):
            callback(index, mappers, reason)

    run = None if callback is None else call_back
    return Driver(connection, spec.shuffle_id, spec.lease_s, poll, run, service_timeout_s)


def application_driver(
    connection: Connection,
    application_id: str,
    lease_s: float,
    owner: bytes,
    callback: GroupCallback,
    owns: Owns,
    service_timeout_s: float,
) -> Driver:
    """Return the driver of all exchanges of an application, which is to be started."""

    def poll(
        metadata: MetadataClient, outcomes: Mapping[LossKey, str], wait_s: float
    ) -> Sequence[GroupCall]:
        answers = [ApplicationAnswer(*loss, failure) for loss, failure in outcomes.items()]
        calls = metadata.poll_application(application_id, owner, wait_s=wait_s, answers=answers)
        return [GroupCall(one.number, one.call) for one in calls]

    return Driver(connection, application_id, lease_s, poll, callback, service_timeout_s, owns=owns)
