"""`CoscoExchangeGroup`: many small exchanges that are alike, made at once."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, Literal

import pyarrow as pa
from pyroaring import BitMap

from cosco.client.access.service_connection import Connection
from cosco.client.argument_checks import shuffle_name, whole_number
from cosco.client.driver.driver import Driver, GroupCallback, group_driver
from cosco.client.driver.spec import check_callback, new_spec
from cosco.client.exchange_spans import begin_creation
from cosco.client.groups.commit_outbox import BatchOutbox
from cosco.client.groups.handle import GroupHandle, GroupLife
from cosco.client.handle_rights import handle_limits
from cosco.client.live_object import LiveObject
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import ClientClosed, CoscoError, ExchangeClosed
from cosco.protocol.api_limits import MAX_GROUP_MAPPERS, MAX_GROUP_SIZE, MAX_PART_SIZE, OWNER_BYTES
from cosco.protocol.capability import Limits
from cosco.protocol.group_records import GroupPart

#: The metadata service hears of released exchanges this soon.
_RELEASE_WITHIN_S: Final = 0.05


class CoscoExchangeGroup(LiveObject):
    """Creates `size` exchanges of one shape, keeps them alive, and ends them.

        with CoscoExchangeGroup("batches", partitions=4, size=100, mappers=4) as group:
            handle = group.handle()   # ship it to the tasks of all hundred micro-batches
            ...
            group.release(0)          # the state after the first one is safe elsewhere

    For engines that schedule many micro-batches at once: tasks write and read without asking the
    metadata service, and readers, which may wait before any mapper begins, have their rows when
    the last one is done. Each is an exchange like others, `f"{group_id}/{i}"`, with the same
    promises; but as two attempts of a mapper may both be complete, mappers must be
    deterministic: a re-run gives each partition the same rows.

    `recompute_writers_callback(i, mappers, reason)` is called as `CoscoExchange` calls its own,
    for exchange `i`. See docs/low-latency.md. A group that is dropped without `close` is let go as
    a `CoscoExchange` is, with a ResourceWarning.
    """

    _passed_instead = "pass its handle() instead"

    def __init__(
        self,
        group_id: str,
        partitions: int,
        size: int,
        mappers: int,
        recompute_writers_callback: GroupCallback | None = None,
        *,
        schema: pa.Schema | None = None,
        replicas: int = 2,
        min_replicas: int | None = None,
        codec: str = "lz4",
        lease_s: float = 300.0,
        metadata: Connection | str | None = None,
        service_timeout_s: float = 300.0,
    ) -> None:
        """Create the exchanges.

        mappers: how many each exchange has, with ids from 0 on. schema: of the rows; without one
        they are bytes; its columns of type null stay so. Other options: see `CoscoExchange`.

        Raises: ExchangeExists, InvalidArgument, CapacityExceeded, ServiceUnavailable.
        """
        self.group_id: Final = shuffle_name(group_id)
        self.mappers: Final = whole_number("mappers", mappers, 1, MAX_GROUP_MAPPERS, group_id)
        size = whole_number("size", size, 1, MAX_GROUP_SIZE, group_id)
        spec = new_spec(
            group_id,
            partitions,
            schema=schema,
            replicas=replicas,
            min_replicas=min_replicas,
            codec=codec,
            lease_s=lease_s,
            is_group=True,
        )
        self._has_callback = recompute_writers_callback is not None
        check_callback(recompute_writers_callback, group_id)
        self._connect(group_id, metadata, service_timeout_s)
        self._owner = secrets.token_bytes(OWNER_BYTES)
        self._extending, self._closing = threading.Lock(), threading.Lock()
        self._changing = threading.Lock()  # of `_parts` and what is released: held briefly
        self._life = GroupLife()
        self._parts: tuple[GroupPart, ...] = ()
        self._releases: BatchOutbox[int] = BatchOutbox(
            "cosco-release",
            partial(_release, self._metadata, self._scope),
            within_s=_RELEASE_WITHIN_S,
            patience_s=self._service_timeout_s,
        )
        self._spec, span = begin_creation(spec, group_size=size, mappers=self.mappers)
        self._driver = group_driver(
            self._connection,
            self._spec,
            self._owner,
            recompute_writers_callback,
            self._service_timeout_s,
        )
        with self._opening(), span:
            self._make(size)

    @property
    def size(self) -> int:
        """How many exchanges were made so far; their indexes are below it."""
        return self._parts[-1].first + self._parts[-1].size if self._parts else 0

    def handle(
        self, *, may: Literal["read", "write"] | None = None, lives_s: float | None = None
    ) -> GroupHandle:
        """Return what tasks need of the exchanges that there are now and that are not released.

        may: what alone the handle lets tasks do; None: both. lives_s: the seconds after which it is
        refused, at most 30 days; None: it is good for an exchange until that is closed. Each call
        with one of them asks the metadata service once for each `extend` there was, and for each
        1,000 exchanges, with the token of this process. Where the cluster asks for no tokens nobody
        is refused anything, and they change nothing.

        Raises: ClientClosed, InvalidArgument; with `may` or `lives_s` also AccessDenied without a
        token of the group's tenant, ExchangeClosed, ServiceUnavailable.
        """
        self._scope.check()
        limits, parts = handle_limits(may, lives_s, self.group_id), self._parts
        return GroupHandle(
            self._connection,
            self.group_id,
            self.mappers,
            self._service_timeout_s,
            parts if limits is None else tuple(self._limited(parts, limits)),
            self._life,
        )

    def extend(self, n: int) -> None:
        """Make `n` more exchanges, on the same daemons where they still serve.

        Should this fail, `size` tells how many are known. It may have made some all the same: the
        next call finds them, and makes as many more as are left of its `n`, or none.

        Raises: InvalidArgument, ExchangeClosed, CapacityExceeded, ServiceUnavailable.
        """
        self._scope.check()
        n = whole_number("n", n, 1, MAX_GROUP_SIZE, self.group_id)
        with self._extending:
            self._grow(n)

    def release(self, i: int) -> None:
        """End exchange `i`: nobody will read it again, and its memory and files go.

        Returns at once; harmless to repeat.

        Raises: InvalidArgument for none of the group, ClientClosed, ServiceUnavailable.
        """
        self._scope.check()
        i = whole_number("the exchange's index", i, 0, self.size - 1, self.group_id)
        with self._changing:
            if i in self._life.released:
                return
            self._life.released.add(i)
        self._releases.add(i)

    def close(self) -> None:
        """End the group with all its exchanges; its ids are never used again.

        Harmless when it is closed already.

        Raises: ServiceUnavailable.
        """
        self._scope.check_process()
        with self._closing:
            if not self._scope.is_closed:
                self._life.is_closed = True
                self._finish(partial(_end, self._driver, self._metadata, self._scope))

    # --- inside ---------------------------------------------------------------------------

    def _make(self, size: int) -> None:
        """Make the first exchanges, and begin to keep them, or make none."""
        try:
            self._grow(size)
            self._begin_life(
                partial(_let_go, self._driver, self._metadata, self._scope), is_user=False
            )
            self._driver.start()
        except BaseException:
            self._end_life()
            self._driver.close()
            with suppress(CoscoError):
                if self.size:
                    self._metadata.close_group(self.group_id)
            raise

    def _grow(self, n: int) -> None:
        """Make `n` more exchanges, in parts that do not keep the service from others for long."""
        end = self.size + n
        while (first := self.size) < end:
            part = self._metadata.create_group(
                self._spec,
                mappers=self.mappers,
                size=min(end - first, MAX_PART_SIZE),
                first=first,
                owner=self._owner,
                callback=self._has_callback,
            )
            with self._changing:
                kept = tuple(one for one in self._parts if not self._is_released(one))
                self._parts = (*kept, part)

    def _limited(self, parts: Sequence[GroupPart], limits: Limits) -> Iterator[GroupPart]:
        """Return what a handle has that is limited, without what is closed by now; the last part
        stays, as its end is that of the group."""
        for part in parts:
            try:
                capability = self._metadata.make_capability(
                    limits, group_id=self.group_id, first=part.first
                )
            except ExchangeClosed:
                if part is parts[-1]:
                    raise
                continue
            yield replace(part, info=replace(part.info, capability=capability))

    def _is_released(self, part: GroupPart) -> bool:
        end = part.first + part.size
        return self._life.released.range_cardinality(part.first, end) == part.size


def _release(metadata: MetadataClient, scope: Scope, indexes: Sequence[int], try_s: float) -> None:
    with suppress(ExchangeClosed, ClientClosed):
        if not scope.is_closed:  # else the whole group is
            metadata.release_exchanges(scope.shuffle_id, BitMap(indexes), try_s=try_s)


def _end(driver: Driver, metadata: MetadataClient, scope: Scope) -> None:
    """End a group, and what works for the object that had it."""
    driver.close()
    with suppress(ExchangeClosed):
        metadata.close_group(scope.shuffle_id)
    scope.close()
    metadata.close()


def _let_go(driver: Driver, metadata: MetadataClient, scope: Scope) -> None:
    """Part from a group whose object was dropped: its lease ends when nobody uses it."""
    scope.close()
    driver.let_go()
    metadata.close()
