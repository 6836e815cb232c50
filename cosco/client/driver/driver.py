"""The background work of who owns an exchange or a group: renew the lease, call mappers back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Final

from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import ClientClosed, CoscoError, ServiceUnavailable
from cosco.protocol.group_records import GroupAnswer, GroupCall
from cosco.protocol.keys import LossKey
from cosco.protocol.records import ExchangeInfo, ExchangeSpec

RecomputeCallback = Callable[[list[int], str], None]
#: With the exchange's index in the group first.
GroupCallback = Callable[[int, list[int], str], None]
#: One poll of the metadata service: renews the lease, tells how callbacks ended (why they failed,
#: or empty), and brings the losses there are; the time is how long it waits for the first one.
Poll = Callable[[MetadataClient, Mapping[LossKey, str], float], Sequence[GroupCall]]

#: How long a poll waits at most, and how long it is until the next one if it brought nothing new.
_POLL_S: Final = 10.0
_PAUSE_S: Final = 1.0
_JOIN_S: Final = 1.0
_LOG = logging.getLogger("cosco")


class Driver:
    """Two threads: one polls the metadata service, the other runs the callback, if any.

    So a callback may block, and may fork, while the lease is renewed. Every loss is called
    back once by a driver; the service repeats it until it has been told how that ended, to
    the next driver as well if this one was replaced before.
    """

    def __init__(
        self,
        address: str,
        shuffle_id: str,
        lease_s: float,
        poll: Poll,
        callback: GroupCallback | None,
        service_timeout_s: float,
    ) -> None:
        """Prepare the threads. `shuffle_id` is the exchange's, or the group's id."""
        self._shuffle_id: Final = shuffle_id
        self._poll_service = poll
        self._callback = callback
        self._poll_s = min(lease_s / 3, _POLL_S)
        self._scope = Scope("the driver", self._shuffle_id)
        # Whoever makes a driver has just reached the service, which may be away by the first poll.
        self._metadata = MetadataClient(address, self._scope, service_timeout_s)
        self._metadata.set_met()
        self._lock = threading.Lock()
        self._known: set[LossKey] = set()  # losses that were given to the callback's thread
        self._outcomes: dict[LossKey, str] = {}  # of losses, to be told
        self._calls: SimpleQueue[GroupCall | None] = SimpleQueue()
        self._is_calling = False
        targets = {"lease": self._poll}
        if callback is not None:
            targets["recompute"] = self._call_back
        self._threads = [
            threading.Thread(target=target, name=f"cosco-{name}", daemon=True)
            for name, target in targets.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop both threads, without waiting for a callback that is running."""
        self._scope.close()
        self._calls.put(None)
        if threading.current_thread() not in self._threads:
            for thread in self._threads[: 1 if self._is_calling else None]:
                thread.join(_JOIN_S)
        self._metadata.close()

    # --- the threads ----------------------------------------------------------------------

    def _poll(self) -> None:
        while not self._scope.is_closed:
            try:
                if not self._exchange_news(self._poll_s):
                    self._scope.sleep(min(_PAUSE_S, self._poll_s))
            except ClientClosed:
                return
            except ServiceUnavailable as error:
                _LOG.warning("the lease of %r is not renewed: %s", self._shuffle_id, error)
                self._scope.wait(_PAUSE_S)
            except CoscoError as error:  # it was closed, or has another driver now
                _LOG.info("the lease of %r is not renewed any more: %s", self._shuffle_id, error)
                self._scope.close()  # nor are mappers called back that another driver calls
                self._calls.put(None)
                return

    def _call_back(self) -> None:
        assert self._callback is not None
        while (call := self._calls.get()) is not None and not self._scope.is_closed:
            self._outcomes[_key(call)] = self._run(self._callback, call)
            try:
                self._exchange_news(0.0)
            except ClientClosed:
                return
            except CoscoError as error:  # the other thread's next poll tells it again
                _LOG.info("the end of a callback of %r is told later: %s", self._shuffle_id, error)

    def _exchange_news(self, wait_s: float) -> bool:
        """Tell how callbacks ended, and have new losses called back.

        Returns: False if there were old losses only.
        """
        outcomes = dict(self._outcomes)
        calls = self._poll_service(self._metadata, outcomes, wait_s)
        for loss in outcomes:
            self._outcomes.pop(loss, None)
        with self._lock:
            new = [call for call in calls if _key(call) not in self._known]
            self._known.update(map(_key, new))
        for call in new:
            if self._callback is None:
                self._outcomes[_key(call)] = "this driver has no recompute_writers_callback"
            else:
                self._calls.put(call)
        return bool(new) or not calls

    def _run(self, callback: GroupCallback, call: GroupCall) -> str:
        """Run the callback.

        Returns: why the re-runs are not arranged; empty if they are.
        """
        self._is_calling = True
        try:
            callback(call.index, list(call.call.mappers), call.call.reason)
        except BaseException as error:  # noqa: BLE001  whatever it is, readers are told
            _LOG.exception("recompute_writers_callback of %r failed", self._shuffle_id)
            return f"recompute_writers_callback raised {type(error).__name__}: {error}"
        finally:
            self._is_calling = False
        return ""


def _key(call: GroupCall) -> LossKey:
    return LossKey(call.index, call.call.loss_id)


def exchange_driver(
    address: str,
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
    run = None if callback is None else (lambda _, mappers, why: callback(mappers, why))
    return Driver(address, spec.shuffle_id, spec.lease_s, poll, run, service_timeout_s)


def group_driver(
    address: str,
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

    return Driver(address, spec.shuffle_id, spec.lease_s, poll, callback, service_timeout_s)
