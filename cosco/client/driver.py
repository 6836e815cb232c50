"""What an exchange's owner does in the background: renew the lease, call mappers back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from cosco.client.metadata_client import MetadataClient
from cosco.client.scope import Scope
from cosco.errors import ClientClosed, CoscoError, ServiceUnavailable
from cosco.records import ExchangeInfo, RecomputeCall

RecomputeCallback = Callable[[list[int], str], None]

#: A poll waits for so long at most; and so long after one that brought nothing new.
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
        info: ExchangeInfo,
        owner: bytes,
        callback: RecomputeCallback | None,
        service_timeout_s: float,
    ) -> None:
        self._shuffle_id: Final = info.spec.shuffle_id
        self._number = info.number
        self._owner = owner
        self._callback = callback
        self._poll_s = min(info.spec.lease_s / 3, _POLL_S)
        self._scope = Scope("the driver", self._shuffle_id)
        # Whoever makes a driver has just met the service, which may be away by the first poll.
        self._metadata = MetadataClient(address, self._scope, service_timeout_s, is_met=True)
        self._lock = threading.Lock()
        self._known: set[int] = set()  # losses that were given to the callback's thread
        self._outcomes: dict[int, str] = {}  # of losses, to be told: why it failed, or empty
        self._calls: SimpleQueue[RecomputeCall | None] = SimpleQueue()
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
        """Stop both threads; a callback that is running is not waited for."""
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
            self._outcomes[call.loss_id] = self._run(self._callback, call)
            try:
                self._exchange_news(0.0)
            except ClientClosed:
                return
            except CoscoError as error:  # the other thread's next poll tells it again
                _LOG.info("the end of a callback of %r is told later: %s", self._shuffle_id, error)

    def _exchange_news(self, wait_s: float) -> bool:
        """Tell how callbacks ended and take new calls; False if there were old ones only."""
        outcomes = dict(self._outcomes)
        orders = self._metadata.poll_driver(
            self._number,
            self._owner,
            wait_s=wait_s,
            arranged=tuple(loss for loss, failure in outcomes.items() if not failure),
            failed=tuple((loss, failure) for loss, failure in outcomes.items() if failure),
        )
        for loss in outcomes:
            self._outcomes.pop(loss, None)
        with self._lock:
            new = [call for call in orders.calls if call.loss_id not in self._known]
            self._known.update(call.loss_id for call in new)
        for call in new:
            if self._callback is None:
                self._outcomes[call.loss_id] = "this driver has no recompute_writers_callback"
            else:
                self._calls.put(call)
        return bool(new) or not orders.calls

    def _run(self, callback: RecomputeCallback, call: RecomputeCall) -> str:
        """Why the re-runs are not arranged; empty if they are."""
        self._is_calling = True
        try:
            callback(list(call.mappers), call.reason)
        except BaseException as error:  # noqa: BLE001  whatever it is, readers are told
            _LOG.exception("recompute_writers_callback of %r failed", self._shuffle_id)
            return f"recompute_writers_callback raised {type(error).__name__}: {error}"
        finally:
            self._is_calling = False
        return ""
