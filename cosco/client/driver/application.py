"""`CoscoApplication`: many exchanges of one driver, with one lease."""

from __future__ import annotations

import itertools
import secrets
import threading
from contextlib import suppress
from functools import partial
from typing import Any, Final

from cosco.client.access.service_connection import Connection
from cosco.client.argument_checks import seconds
from cosco.client.driver.driver import Driver, RecomputeCallback, application_driver
from cosco.client.driver.exchange import CoscoExchange
from cosco.client.driver.kept_exchanges import ExchangeOwner, KeptExchanges
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import CoscoError, ExchangeClosed, ExchangeExists, InvalidArgument
from cosco.protocol.api_limits import MIN_LEASE_S, OWNER_BYTES, check_application, shown_value
from cosco.protocol.html_view import facts

#: Exchanges that a notebook names.
_SHOWN: Final = 20
#: Names of its exchanges that others have taken by chance are passed over, this many at a time.
_MAX_TAKEN_NAMES: Final = 100


class CoscoApplication(ExchangeOwner):
    """Creates exchanges, keeps all of them alive by one lease, and ends them together.

        with CoscoApplication("etl") as application:
            exchange = application.exchange(partitions=64)
            ...  # run the mappers and the reducers
            exchange.close()  # or leave it to the end of the application

    For engines, which have many exchanges at once: however many there are, one thread renews one
    lease with one call. `name` is a label for people; the metadata service makes a unique id of it.

    Each exchange is a `CoscoExchange`, with its callbacks: those of one exchange come one at a
    time, and those of different exchanges never wait for each other, so that a re-run may read
    another exchange that has lost rows as well. An exchange whose object is dropped goes on until
    the application ends, without a warning. One that another driver takes over, by
    `CoscoExchange.attach` with `own=True`, is the application's no more.

    `lease_s` after its process died the application is closed, with its exchanges. An application
    that is dropped without `close` is let go as a `CoscoExchange` is, with a ResourceWarning; the
    object of an exchange holds its application.
    """

    _passed_instead = "pass handles of its exchanges instead"

    def __init__(
        self,
        name: str,
        *,
        lease_s: float = 300.0,
        metadata: Connection | str | None = None,
        service_timeout_s: float = 300.0,
    ) -> None:
        """Create the application.

        Raises: InvalidArgument, ServiceUnavailable.
        """
        if not isinstance(name, str):
            raise InvalidArgument(f"name is {shown_value(name)}, it must be a string")
        #: The label that was given.
        self.name: Final = str(name)
        self._lease_s = seconds("lease_s", lease_s, MIN_LEASE_S, "")
        check_application(self.name, self._lease_s)
        self._connect(self.name, metadata, service_timeout_s)
        self._owner = secrets.token_bytes(OWNER_BYTES)
        self._closing = threading.Lock()
        self._numbers = itertools.count(1)
        with self._opening():
            #: What the metadata service calls it: the label and a number, never given twice.
            self.application_id = self._metadata.create_application(
                self.name, self._owner, self._lease_s
            )
            self._exchanges = KeptExchanges()
            self._driver = application_driver(
                self._connection,
                self.application_id,
                self._lease_s,
                self._owner,
                self._exchanges.call,
                self._exchanges.names.__contains__,
                self._service_timeout_s,
            )
            try:
                self._begin_life(
                    partial(_let_go, self._driver, self._metadata, self._scope), is_user=False
                )
                self._driver.start()
            except BaseException:  # no thread could be started: nobody would keep it
                self._end_life()
                self._driver.close()
                with suppress(CoscoError):
                    self._metadata.close_application(self.application_id, self._owner)
                raise

    def _repr_html_(self) -> str:
        """Return what a notebook shows: whose it is, and the exchanges that are open."""
        names = sorted(self._exchanges.names)
        about = {"id": self.application_id, "open exchanges": f"{len(names):,}"}
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            about["they are"] = ", ".join(names[:_SHOWN]) + more
        return facts(repr(self), about)

    def exchange(
        self,
        partitions: int,
        recompute_writers_callback: RecomputeCallback | None = None,
        **options: Any,
    ) -> CoscoExchange:
        """Create an exchange of the application, under a name that is made here.

        options: those of `CoscoExchange`, but for `lease_s` and `metadata`, which are the
        application's. An exchange with an id of one's own is made by
        `CoscoExchange(..., application=application)`.

        Raises: what `CoscoExchange` raises, ClientClosed, and ExchangeClosed if the application was
        closed as its lease ran out.
        """
        self._scope.check()
        options = {"service_timeout_s": self._service_timeout_s} | options
        for left in reversed(range(_MAX_TAKEN_NAMES)):
            try:
                return CoscoExchange(
                    f"{self.application_id}.{next(self._numbers)}",
                    partitions,
                    recompute_writers_callback,
                    application=self,
                    **options,
                )
            except ExchangeExists:
                if not left:
                    raise
        raise AssertionError

    def close(self) -> None:
        """End the application with all its exchanges; their ids are never used again.

        Harmless when it is closed already.

        Raises: ServiceUnavailable.
        """
        self._scope.check_process()
        with self._closing:
            if not self._scope.is_closed:
                self._finish(
                    partial(
                        _end,
                        self._driver,
                        self._exchanges,
                        self._metadata,
                        self._scope,
                        self.application_id,
                        self._owner,
                    )
                )


def _end(
    driver: Driver,
    exchanges: KeptExchanges,
    metadata: MetadataClient,
    scope: Scope,
    application_id: str,
    owner: bytes,
) -> None:
    """End an application, and what works for the object that had it."""
    driver.close()
    with suppress(ExchangeClosed):
        metadata.close_application(application_id, owner)
    exchanges.end()
    scope.close()
    metadata.close()


def _let_go(driver: Driver, metadata: MetadataClient, scope: Scope) -> None:
    """Part from an application whose object was dropped: its lease ends when nobody uses it."""
    scope.close()
    driver.let_go()
    metadata.close()
