"""`EngineExchanges`: the exchanges that an engine has in this process.

An engine makes many, and ends them where nothing may wait: in the loop that schedules its tasks,
or wherever Python collects a frame. So those with one metadata service are in one application, with
one lease, and a thread closes them. Both are there while there are exchanges.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final

from cosco.client.access.service_connection import Connection, connection_to
from cosco.client.argument_checks import whole_number
from cosco.client.driver.application import CoscoApplication
from cosco.client.driver.driver import RecomputeCallback
from cosco.client.driver.exchange import CoscoExchange
from cosco.errors import ClientClosed, CoscoError, ExchangeClosed
from cosco.protocol.api_limits import MAX_REPLICAS

__all__ = ["EngineExchanges", "checked_replicas", "connection_to"]

_LOG: Final = logging.getLogger("cosco")
#: How long the end of the process waits for services: what is left then goes with its lease.
END_S: Final = 10.0


def checked_replicas(replicas: object) -> int:
    """Return a number of copies that an exchange may have.

    Raises: InvalidArgument.
    """
    return whole_number("replicas", replicas, 1, MAX_REPLICAS, "")


class EngineExchanges:
    """Makes exchanges, and ends them in the background, or when the process ends."""

    def __init__(self, label: Callable[[], str]) -> None:
        """Begin without any. `label` says what an application is called, when one is made."""
        self._label = label
        self._forget()
        atexit.register(self.end_all)
        os.register_at_fork(after_in_child=self._forget)  # they are the parent's

    def make(
        self,
        metadata: Connection | str,
        partitions: int,
        callback: RecomputeCallback | None = None,
        **options: Any,
    ) -> CoscoExchange:
        """Return a new exchange; options: those of CoscoExchange.

        Raises: what `CoscoApplication.exchange` raises.
        """
        connection = connection_to(metadata)
        key = connection.whole
        with self._making.setdefault(key, threading.Lock()):
            application = self._applications.get(key)
            exchange = None
            if application is not None:
                with suppress(ClientClosed, ExchangeClosed):  # it has ended
                    exchange = application.make(partitions, callback, options)
            if application is None or exchange is None:
                application = self._applications[key] = _Application(self._label(), connection)
                exchange = application.make(partitions, callback, options)
            self._makers[exchange] = application
            return exchange

    def end(self, exchange: CoscoExchange) -> None:
        """Have an exchange closed; harmless to repeat. Finalizers may call it: it takes no lock."""
        maker = self._makers.pop(exchange, None)
        if maker is not None:
            maker.end(exchange)

    def end_all(self) -> None:
        """End all exchanges, and wait for it, but not for services that are away."""
        deadline = time.monotonic() + END_S
        applications = list(self._applications.values())
        for application in applications:
            application.end_all()
        for application in applications:
            application.thread.join(max(0.0, deadline - time.monotonic()))

    def _forget(self) -> None:
        # By connections as a whole: exchanges of two tokens may be of two tenants.
        self._making: dict[object, threading.Lock] = {}
        self._applications: dict[object, _Application] = {}
        self._makers: dict[CoscoExchange, _Application] = {}


class _Application:
    """An application, and the thread that closes its exchanges, and itself with the last one."""

    def __init__(self, name: str, metadata: Connection) -> None:
        self._application = CoscoApplication(name, metadata=metadata)
        self._lock = threading.Lock()
        self._open = 0  # exchanges, those included that are being made
        self._has_ended = False
        self._ended: SimpleQueue[CoscoExchange | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._close, name="cosco-close", daemon=True)
        self.thread.start()

    def make(
        self, partitions: int, callback: RecomputeCallback | None, options: dict[str, Any]
    ) -> CoscoExchange:
        with self._lock:
            if self._has_ended:
                raise ClientClosed("the application has ended")
            self._open += 1
        try:
            return self._application.exchange(partitions, callback, **options)
        except BaseException as error:
            # Its lease may have run out, while the process slept: then it makes no other.
            self._has_ended |= isinstance(error, ClientClosed | ExchangeClosed)
            self._ended.put(None)
            raise

    def end(self, exchange: CoscoExchange) -> None:
        self._ended.put(exchange)

    def end_all(self) -> None:
        self._has_ended = True
        self._open = 0
        self._ended.put(None)

    def _close(self) -> None:
        is_last = False
        while not is_last:
            exchange = self._ended.get()
            if exchange is not None:
                _closed(exchange)
            with self._lock:
                self._open -= 1
                is_last = self._open <= 0
                self._has_ended |= is_last
        _closed(self._application)


def _closed(one: CoscoExchange | CoscoApplication) -> None:
    try:
        one.close()
    except CoscoError as error:
        _LOG.warning("%r is left to its lease: %s", one, error)
