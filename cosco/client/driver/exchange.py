"""`CoscoExchange`: a shuffle, as the engine's driver holds it."""

from __future__ import annotations

import secrets
import threading
from contextlib import suppress
from typing import Self

import pyarrow as pa

from cosco.client.argument_checks import shuffle_name
from cosco.client.content.arrow import schema_from_bytes
from cosco.client.driver.driver import Driver, RecomputeCallback, exchange_driver
from cosco.client.driver.spec import check_callback, new_spec
from cosco.client.live_object import LiveObject
from cosco.errors import ExchangeClosed, InvalidArgument
from cosco.protocol.api_limits import OWNER_BYTES
from cosco.protocol.records import ExchangeInfo, ExchangeProgress


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
    """

    shuffle_id: str
    partitions: int
    #: As it was when this object was made, without metadata; None for none.
    schema: pa.Schema | None

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
        lease_s: float = 300.0,
        metadata: str | None = None,
        service_timeout_s: float = 300.0,
    ) -> None:
        """Create the exchange; its id must never have been used before.

        schema: of the rows, if they are Arrow; else the first writer's rows decide what they
        are. replicas: copies of each row in memory, of which `min_replicas` (default 1) are
        enough to go on when hosts are missing. codec: `lz4` or `none`.

        Raises: ExchangeExists, InvalidArgument, CapacityExceeded, ServiceUnavailable.
        """
        spec = new_spec(
            shuffle_id,
            partitions,
            schema=schema,
            replicas=replicas,
            min_replicas=min_replicas,
            codec=codec,
            deterministic=deterministic,
            lease_s=lease_s,
        )
        check_callback(recompute_writers_callback, shuffle_id)
        owner = secrets.token_bytes(OWNER_BYTES)
        self._connect(shuffle_id, metadata, service_timeout_s)
        with self._opening():
            info = self._metadata.create_exchange(
                spec, owner, callback=recompute_writers_callback is not None
            )
        self._set_up(info, owner, recompute_writers_callback)

    @classmethod
    def attach(
        cls,
        shuffle_id: str,
        recompute_writers_callback: RecomputeCallback | None = None,
        *,
        own: bool = False,
        metadata: str | None = None,
        service_timeout_s: float = 300.0,
    ) -> Self:
        """Return an exchange that exists already.

        `own` takes it over from the process that owns it, with its lease and its callbacks:
        losses without an answer are told here again.

        Raises: ExchangeNotFound, ExchangeClosed, InvalidArgument, ServiceUnavailable.
        """
        shuffle_name(shuffle_id)
        check_callback(recompute_writers_callback, shuffle_id)
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
        with self._closing:
            if self._scope.is_closed:
                return
            if self._driver is not None:
                self._driver.close()
            with suppress(ExchangeClosed):
                self._metadata.close_exchange(self.shuffle_id)
            self._scope.close()
            self._metadata.close()

    def progress(self) -> ExchangeProgress:
        """Return what is committed so far.

        Raises: ExchangeClosed, ClientClosed, ServiceUnavailable.
        """
        self._scope.check()
        return self._metadata.progress(self._info.number)

    def _set_up(self, info: ExchangeInfo, owner: bytes, callback: RecomputeCallback | None) -> None:
        self._info = info
        self._closing = threading.Lock()
        self.shuffle_id = info.spec.shuffle_id
        self.partitions = info.spec.partitions
        self.schema = schema_from_bytes(info.schema) if info.schema else None
        self._driver: Driver | None = None
        if owner:
            self._driver = exchange_driver(
                self._address, info, owner, callback, self._service_timeout_s
            )
            self._driver.start()
