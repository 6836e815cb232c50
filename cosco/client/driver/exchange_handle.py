"""`ExchangeHandle`: what a task needs to write to an exchange and to read from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import pyarrow as pa

from cosco.client.access.service_connection import Connection, connection_to
from cosco.client.argument_checks import check_named, mapper_set, whole_number
from cosco.client.content.arrow_binding import is_decided
from cosco.client.content.arrow_schema import schema_from_bytes
from cosco.client.handle_pickle import shape_of, values_of
from cosco.client.handle_rights import May, check_may
from cosco.client.read.reader import CoscoReader
from cosco.client.rpc.in_use import IN_USE
from cosco.client.rpc.known_services import SERVICES
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.client.write.writer import CoscoWriter
from cosco.errors import InvalidArgument
from cosco.protocol.api_limits import shown
from cosco.protocol.records import ExchangeInfo

#: A handle is shipped with every task, so a longer schema is asked for where it is wanted.
MAX_CARRIED_SCHEMA_BYTES: Final = 1024


@dataclass(frozen=True, slots=True, weakref_slot=True, repr=False, eq=False)
class ExchangeHandle:
    """An exchange as `CoscoExchange.handle()` gives it out: pickles to 4 KiB at most, beside the
    names of files of its connection.

    Handles of one exchange are equal, whoever gave them out. Wherever one is used the metadata
    service is known to be there: if it is away it is waited for, for `service_timeout_s`.

    Where the cluster asks who calls, it lets whoever has it write to the exchange and read from it,
    or do one of both, as its driver has said, without a token: it is a secret then, and a pickle of
    it as well.
    """

    #: Where it is, and as whom it is called.
    metadata: Connection
    shuffle_id: str
    #: What the service calls the exchange; never given twice.
    number: int
    partitions: int
    #: How many there are, with ids from 0 on; None: nobody has said.
    mappers: int | None
    service_timeout_s: float
    # Serialized, empty for none; None: it is not known for good yet, or too long to be carried.
    _schema: bytes | None

    def __post_init__(self) -> None:
        IN_USE.add(self.shuffle_id, self)

    def __getstate__(self) -> list[Any]:
        return [_SHAPE, *(getattr(self, one.name) for one in fields(self))]

    def __setstate__(self, state: list[Any]) -> None:
        for one, value in zip(fields(self), values_of(state, _SHAPE), strict=True):
            object.__setattr__(self, one.name, value)
        IN_USE.add(self.shuffle_id, self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExchangeHandle) and self._exchange == other._exchange

    def __hash__(self) -> int:
        return hash(self._exchange)

    def __repr__(self) -> str:
        mappers = "" if self.mappers is None else f", {self.mappers} mappers"
        return (
            f"<ExchangeHandle of {shown(self.shuffle_id)}, {self.partitions} partitions{mappers}, "
            f"at {self.metadata}>"
        )

    @property
    def schema(self) -> pa.Schema | None:
        """Return the schema of the exchange; None if its rows are bytes, or nobody has written any.

        It is asked for, each time, if it is long, or was still to be decided, by the first rows or
        the first that have a type for each column, when the handle was made.

        Raises: ExchangeClosed, ServiceUnavailable.
        """
        schema = self._ask_for_schema() if self._schema is None else self._schema
        return schema_from_bytes(schema) if schema else None

    def writer(self, mapper: int | None, **options: Any) -> CoscoWriter:
        """Return a writer of `mapper`; None: of one that the service chooses.

        options: those of `CoscoWriter`.

        Raises: ExchangeClosed, InvalidArgument, ServiceUnavailable; AccessDenied if the handle is
        for reading, or its time is over.
        """
        self._check_may("write", options)
        if mapper is not None and self.mappers is not None:
            mapper = whole_number("mapper", mapper, 0, self.mappers - 1, self.shuffle_id)
        return CoscoWriter(self.shuffle_id, mapper, **self._with_place(options))

    def reader(
        self,
        partition: int | Sequence[int],
        mappers: Iterable[int] | None = None,
        **options: Any,
    ) -> CoscoReader:
        """Return a reader of a partition, or of several; without `mappers` of everybody's rows.

        options: those of `CoscoReader`.

        Raises: ExchangeClosed, PartitionOutOfRange, InvalidArgument, also without `mappers` for an
        exchange that was created without, ServiceUnavailable; AccessDenied if the handle is for
        writing, or its time is over.
        """
        self._check_may("read", options)
        if mappers is None:
            if self.mappers is None:
                raise InvalidArgument(
                    f"mappers is missing: exchange {shown(self.shuffle_id)} was created without "
                    "mappers=; say whose rows to read, or create it with their number",
                    shuffle_id=self.shuffle_id,
                )
            mappers = range(self.mappers)
        else:
            mappers = mapper_set(mappers, self.shuffle_id)
            check_named(mappers, self.mappers or 0, self.shuffle_id)
        return CoscoReader(self.shuffle_id, mappers, partition, **self._with_place(options))

    # --- inside ---------------------------------------------------------------------------

    @property
    def _exchange(self) -> tuple[str, str, int]:
        """Which exchange it is of, however it is reached."""
        return str(self.metadata), self.shuffle_id, self.number

    def _check_may(self, may: May, options: dict[str, Any]) -> None:
        """Raise AccessDenied for what this handle does not allow, unless it is somebody else's
        connection that is to be used."""
        if "metadata" not in options:
            check_may(self.metadata.capability, may, self.shuffle_id)

    def _with_place(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a writer or reader with where the exchange is, if it is not named.

        Whoever made the handle has met the service.
        """
        SERVICES.vouch_for(self.metadata)
        place = {"metadata": self.metadata, "service_timeout_s": self.service_timeout_s}
        return place | options

    def _ask_for_schema(self) -> bytes:
        SERVICES.vouch_for(self.metadata)
        scope = Scope("a handle", self.shuffle_id)
        client = MetadataClient(self.metadata, scope, self.service_timeout_s)
        try:
            return client.describe_exchange(self.shuffle_id).schema
        finally:
            scope.close()
            client.close()


def make_handle(
    metadata: Connection | str, info: ExchangeInfo, service_timeout_s: float
) -> ExchangeHandle:
    """Return the handle of an exchange of a metadata service."""
    spec = info.spec
    is_long = len(info.schema) > MAX_CARRIED_SCHEMA_BYTES
    return ExchangeHandle(
        metadata=connection_to(metadata).with_capability(info.capability),
        shuffle_id=spec.shuffle_id,
        number=info.number,
        partitions=spec.partitions,
        mappers=spec.mappers or None,
        service_timeout_s=service_timeout_s,
        _schema=info.schema if is_decided(info) and not is_long else None,
    )


#: What a handle and what it has are made of.
_SHAPE: Final = shape_of(ExchangeHandle, Connection)
