"""`CoscoExchange`: a shuffle, as the engine's driver holds it."""

from __future__ import annotations

import secrets
import threading
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Final, Literal, Self

import pyarrow as pa

from cosco.client.access.service_connection import Connection
from cosco.client.argument_checks import shuffle_name, switch
from cosco.client.content.arrow_schema import schema_from_bytes
from cosco.client.driver.driver import Driver, RecomputeCallback, exchange_driver
from cosco.client.driver.exchange_handle import ExchangeHandle, make_handle
from cosco.client.driver.kept_exchanges import ExchangeOwner, KeptExchange, checked_owner
from cosco.client.driver.notebook_view import SHOWN_IN_S, exchange_html, progress_bar
from cosco.client.driver.spec import check_callback, new_spec
from cosco.client.exchange_spans import begin_creation
from cosco.client.handle_rights import handle_limits
from cosco.client.live_object import LiveObject
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import CoscoError, ExchangeClosed, InvalidArgument
from cosco.protocol.api_limits import OWNER_BYTES
from cosco.protocol.records import ExchangeInfo, ExchangeProgress, ExchangeSpec

#: The lease of an exchange on its own.
_LEASE_S: Final = 300.0


class CoscoExchange(LiveObject):
    """Creates an exchange, keeps it alive, and ends it.

        with CoscoExchange("orders", partitions=64) as exchange:
            ...  # run the mappers and the reducers

    The process that made it owns it: it renews the lease in the background, so that the
    exchange is closed, and its data deleted, `lease_s` after that process died.
    `recompute_writers_callback(mappers, reason)` runs on a thread of this object, one at a
    time, when rows were lost that these mappers have to write again; returning means that
    their runs are arranged, raising that they will not come. A loss is called back once by
    an object, and again by the one that takes the exchange over before it was answered.
    Without a callback readers raise DataLost, and runs of its `mappers` repair the exchange.

    Leaving the block of the owner ends the exchange; leaving that of one who attached does not,
    but `close` does from anywhere. An owner that is dropped without `close` is collected with a
    ResourceWarning: the lease is renewed, and mappers are called back, while this process has
    writers, readers or handles of the exchange. After that it ends by its lease. One of a
    `CoscoApplication` ends with that.
    """

    shuffle_id: str
    partitions: int
    #: How many there are, with ids from 0 on; None: nobody has said.
    mappers: int | None
    #: As it was when this object was made; None for none.
    schema: pa.Schema | None
    _passed_instead = (
        "pass its handle() instead, or attach there, by the shuffle_id and the metadata address"
    )

    def __init__(
        self,
        shuffle_id: str,
        partitions: int,
        recompute_writers_callback: RecomputeCallback | None = None,
        *,
        schema: pa.Schema | None = None,
        replicas: int = 2,
        min_replicas: int | None = None,
        codec: str = "lz4",
        deterministic: bool = True,
        mappers: int | None = None,
        lease_s: float | None = None,
        metadata: Connection | str | None = None,
        service_timeout_s: float = 300.0,
        application: ExchangeOwner | None = None,
        direct_reads: bool = False,
    ) -> None:
        """Create the exchange; its id must never have been used before.

        schema: of the rows, if they are Arrow; else the first writer's rows decide what they
        are. A column without a type (`pa.null()`) gets that of the first rows that have one.
        replicas: copies of each row in memory, of which `min_replicas` (default 1) are enough to
        go on when hosts are missing. codec: `lz4` or `none`. mappers: how many there are, with ids
        from 0 on, if that is known: then others are refused, and readers of a handle need not name
        them. application: a `CoscoApplication` that is to own it, whose lease it has; without one
        `lease_s` is 300 unless it is given. direct_reads: readers read stored rows from the store
        themselves, where they can reach it, and ask daemons for the rest.

        Raises: ExchangeExists, InvalidArgument, CapacityExceeded, ServiceUnavailable.
        """
        owned_by: ExchangeOwner | None = None
        if application is not None:
            owned_by = checked_owner(application, shuffle_id, lease_s, metadata)
            lease_s, metadata = owned_by._lease_s, owned_by._connection
        spec = new_spec(
            shuffle_id,
            partitions,
            schema=schema,
            replicas=replicas,
            min_replicas=min_replicas,
            codec=codec,
            deterministic=deterministic,
            mappers=mappers,
            direct_reads=direct_reads,
            lease_s=_LEASE_S if lease_s is None else lease_s,
        )
        check_callback(recompute_writers_callback, shuffle_id)
        owner = secrets.token_bytes(OWNER_BYTES) if owned_by is None else owned_by._owner
        self._connect(shuffle_id, metadata, service_timeout_s)
        self._create(spec, owner, recompute_writers_callback, owned_by)

    @classmethod
    def attach(
        cls,
        shuffle_id: str,
        recompute_writers_callback: RecomputeCallback | None = None,
        *,
        own: bool = False,
        metadata: Connection | str | None = None,
        service_timeout_s: float = 300.0,
    ) -> Self:
        """Return an exchange that exists already.

        `own` takes it over from the process that owns it, with its lease and its callbacks:
        losses without an answer are told here again.

        Raises: ExchangeNotFound, ExchangeClosed, InvalidArgument, ServiceUnavailable.
        """
        shuffle_id = shuffle_name(shuffle_id)
        check_callback(recompute_writers_callback, shuffle_id)
        own = switch("own", own, shuffle_id)
        if recompute_writers_callback is not None and not own:
            raise InvalidArgument(
                "recompute_writers_callback is called for the owner only: attach with own=True",
                shuffle_id=shuffle_id,
            )
        owner = secrets.token_bytes(OWNER_BYTES) if own else b""
        exchange = cls.__new__(cls)
        exchange._connect(shuffle_id, metadata, service_timeout_s)
        with exchange._opening():
            info = exchange._metadata.describe_exchange(
                shuffle_id, owner, callback=recompute_writers_callback is not None
            )
            exchange._set_up(info, owner, recompute_writers_callback)
        return exchange

    def close(self) -> None:
        """End the exchange: its buffers and files go, its id is never used again.

        Harmless when it is closed already. Works from any process that attached to it; the
        other ones' writers and readers raise ExchangeClosed from then on.
        """
        self._scope.check_process()
        self._close()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._scope.inherited:  # a forked child leaves the block: it is its parent's
            return
        if self._driver is not None and not self._driver.is_replaced:
            self._close(self._owner)  # so that it stays open if it has just been taken over
            return
        with self._closing:
            self._finish(partial(_leave, self._driver, self._metadata, self._scope))

    def handle(
        self, *, may: Literal["read", "write"] | None = None, lives_s: float | None = None
    ) -> ExchangeHandle:
        """Return what tasks need to write to the exchange and to read from it: small, and pickles.

        may: what alone the handle lets tasks do; None: both. lives_s: the seconds after which it is
        refused, at most 30 days; None: it is good until the exchange is closed. A stream that is
        open when its time is over goes on, but no commit counts then, and no new read begins. Each
        call with one of them asks the metadata service once, with the token of this process. Where
        the cluster asks for no tokens nobody is refused anything, and they change nothing.

        While this process has handles of it a dropped exchange is kept, as by its writers.

        Raises: ClientClosed, InvalidArgument; with `may` or `lives_s` also AccessDenied without a
        token of the exchange's tenant, ExchangeClosed, ServiceUnavailable.
        """
        self._scope.check()
        info = self._info
        limits = handle_limits(may, lives_s, self.shuffle_id)
        if limits is not None:
            capability = self._metadata.make_capability(limits, number=info.number)
            info = replace(info, capability=capability)
        return make_handle(self._connection, info, self._service_timeout_s)

    def progress(self) -> ExchangeProgress:
        """Return what is committed so far.

        Raises: ExchangeClosed, ClientClosed, ServiceUnavailable.
        """
        self._scope.check()
        return self._metadata.progress(self._info.number)

    def progress_bar(self, mappers: int | None = None) -> AbstractContextManager[None]:
        """Return what shows, while its block lasts, how many mappers have committed.

            with exchange.progress_bar():
                ...  # run the mappers

        mappers: how many there are; None: as the exchange knows, if it does. In a notebook the bar
        is one of widgets where ipywidgets is installed, else it is text, on stderr.

        Raises: InvalidArgument without tqdm (`pip install 'cosco[notebook]'`), ClientClosed.
        """
        self._scope.check()
        title, look = self.shuffle_id, self._metadata.within(SHOWN_IN_S)
        number, total = self._info.number, self.mappers if mappers is None else mappers
        return progress_bar(lambda: look.progress(number), title, total)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: how far it is, if the service says so within 2 s."""
        usable = not (self._scope.is_closed or self._scope.inherited)
        return exchange_html(repr(self), self._info, self._metadata if usable else None)

    def _create(
        self,
        spec: ExchangeSpec,
        owner: bytes,
        callback: RecomputeCallback | None,
        application: ExchangeOwner | None,
    ) -> None:
        spec, span = begin_creation(spec)
        with (
            span,
            self._opening(),
            nullcontext()
            if application is None
            else application._exchanges.admitting(spec.shuffle_id),
        ):
            info = self._metadata.create_exchange(
                spec,
                owner,
                callback=callback is not None,
                application_id="" if application is None else application.application_id,
            )
            span.set({"cosco.exchange.number": info.number})
            try:
                self._set_up(info, owner, callback, application)
            except Exception:  # no thread could be started: nobody would keep it
                self._end_life()
                with suppress(CoscoError):
                    self._metadata.close_exchange(self.shuffle_id)
                raise

    def _close(self, owner: bytes = b"") -> None:
        """End the exchange; if an `owner` is named only where it owns the exchange still."""
        with self._closing:
            if not self._scope.is_closed:
                self._finish(partial(_end, self._driver, self._metadata, self._scope, owner))

    def _set_up(
        self,
        info: ExchangeInfo,
        owner: bytes,
        callback: RecomputeCallback | None,
        application: ExchangeOwner | None = None,
    ) -> None:
        self._info = info
        self._owner = owner
        self._application = application  # which lives as long as this object
        self._closing = threading.Lock()
        self.shuffle_id = info.spec.shuffle_id
        self.partitions = info.spec.partitions
        self.mappers = info.spec.mappers or None
        self.schema = schema_from_bytes(info.schema) if info.schema else None
        self._driver: Driver | KeptExchange | None = None
        if application is not None:
            self._is_missed = False  # the application ends it
            self._driver = application._place(info, callback, self._scope, self._metadata)
        elif owner:
            self._driver = exchange_driver(
                self._connection, info, owner, callback, self._service_timeout_s
            )
        else:
            self._is_missed = False  # to drop it is the way to part from what others own
        self._begin_life(partial(_let_go, self._driver, self._metadata, self._scope), is_user=False)
        if self._driver is not None:
            self._driver.start()


def _end(
    driver: Driver | KeptExchange | None, metadata: MetadataClient, scope: Scope, owner: bytes
) -> None:
    """End an exchange, and what works for the object that had it; not the exchange if another
    `owner` is named than it has now."""
    if driver is not None:
        driver.close()
    with suppress(ExchangeClosed, *([InvalidArgument] if owner else [])):
        metadata.close_exchange(scope.shuffle_id, owner)
    scope.close()
    metadata.close()


def _leave(driver: Driver | KeptExchange | None, metadata: MetadataClient, scope: Scope) -> None:
    """Part from an exchange that others own."""
    scope.close()
    if driver is not None:
        driver.close()
    metadata.close()


def _let_go(driver: Driver | KeptExchange | None, metadata: MetadataClient, scope: Scope) -> None:
    """Part from an exchange whose object was dropped: its lease ends when nobody uses it."""
    scope.close()
    if driver is not None:
        driver.let_go()
    metadata.close()
