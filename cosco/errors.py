"""The exceptions of cosco.

    CoscoError
    ├── ExchangeNotFound        nobody created this exchange
    ├── ExchangeExists          the id is taken; ids are used once
    ├── ExchangeClosed          it was closed, or its owner's lease ran out
    ├── GenerationChanged       a new generation of a nondeterministic exchange began
    ├── AccessDenied            who calls may not do that
    ├── InvalidArgument         a value out of its range          (also a ValueError)
    │   ├── PartitionOutOfRange                                   (also an IndexError)
    │   └── NotPicklable        a live object was to be pickled   (also a TypeError)
    ├── InvalidRow              a row of a wrong type             (also a TypeError)
    │   └── SchemaMismatch      rows of another schema or kind than the exchange's
    ├── CommitTimeout           mappers did not commit in time    (also a TimeoutError)
    ├── ClientClosed            used after close() or abort()
    ├── DataLost                committed rows are gone, and nobody brings them back
    ├── DataCorrupted           stored or received bytes fail their check
    ├── RecomputeMismatch       a re-run gave other totals than the run before it
    ├── ServiceUnavailable      a service does not answer         (also a ConnectionError)
    ├── CapacityExceeded        no daemon, host, memory or disk for it
    └── EngineUnavailable       no such engine, or not this version (also an ImportError)

Every error carries `shuffle_id`, `mappers`, `partition` (None or empty where they do not
apply) and `retriable`: whether the same call may succeed later with nothing else changed.
All of them survive pickling with their attributes, as engines ship them between processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Self


class CoscoError(Exception):
    """Base of every error this package raises on purpose."""

    #: Whether the same call may succeed later; instances may override it.
    retriable: bool = False

    #: Names of further keyword attributes a subclass carries, for pickling.
    _extra: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        message: str,
        *,
        shuffle_id: str | None = None,
        mappers: Iterable[int] = (),
        partition: int | None = None,
        retriable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.shuffle_id = shuffle_id
        self.mappers = tuple(mappers)
        self.partition = partition
        if retriable is not None:
            self.retriable = retriable

    def place(self, shuffle_id: str, partition: int | None = None) -> Self:
        """Say where it happened, also in the message, unless that was said already.

        Returns: itself.
        """
        if not self.shuffle_id and shuffle_id:
            where = "" if partition is None else f"partition {partition} of "
            self.args = (f"{where}exchange {shuffle_id!r}: {self.args[0]}",)
            self.shuffle_id = shuffle_id
            self.partition = partition if self.partition is None else self.partition
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        keywords = {
            "shuffle_id": self.shuffle_id,
            "mappers": self.mappers,
            "partition": self.partition,
            "retriable": self.retriable,
            **{name: getattr(self, name) for name in self._extra},
        }
        others = {name: value for name, value in vars(self).items() if name not in keywords}
        return _rebuild, (type(self), str(self.args[0]), keywords), others  # notes, above all


def _rebuild(cls: type[CoscoError], message: str, keywords: dict[str, Any]) -> CoscoError:
    return cls(message, **keywords)


class ExchangeNotFound(CoscoError):
    """No exchange of this id was ever created with this metadata service."""


class ExchangeExists(CoscoError):
    """The exchange id is, or once was, in use; an id is used once and never again."""


class ExchangeClosed(CoscoError):
    """The exchange was closed, or the lease of its owner ran out."""


class GenerationChanged(CoscoError):
    """A nondeterministic exchange lost rows and started anew; its readers must as well."""


class AccessDenied(CoscoError):
    """Who calls may not do that, whatever it is."""


class InvalidArgument(CoscoError, ValueError):
    """An argument out of its range."""


class PartitionOutOfRange(InvalidArgument, IndexError):
    """A partition below 0, or not below the exchange's number of partitions."""


class NotPicklable(InvalidArgument, TypeError):
    """Live clients stay in their process; pass the shuffle id and the metadata address."""


class InvalidRow(CoscoError, TypeError):
    """A row, or a batch of rows, of a type the call does not take."""


class SchemaMismatch(InvalidRow):
    """Rows of another schema, or of another kind (bytes or Arrow), than the exchange's."""


class CommitTimeout(CoscoError, TimeoutError):
    """Not every named mapper committed within the reader's `timeout_s`.

    `mappers` are those that are missing; `recompute` tells whether the wait was for the
    rebuild of lost rows rather than for first commits.
    """

    retriable = True
    _extra = ("recompute",)

    def __init__(self, message: str, *, recompute: bool = False, **keywords: Any) -> None:
        super().__init__(message, **keywords)
        self.recompute = recompute


class ClientClosed(CoscoError):
    """The object was closed or aborted, perhaps by another thread during the call."""


class DataLost(CoscoError):
    """Committed rows are gone and nobody brings them back; `mappers` must run again."""


class DataCorrupted(CoscoError):
    """Bytes that were stored or received fail their checksum or contradict each other."""


class RecomputeMismatch(CoscoError):
    """A re-run of mappers of a deterministic exchange gave other totals than before."""


class ServiceUnavailable(CoscoError, ConnectionError):
    """The metadata service or a daemon does not answer."""

    retriable = True


class CapacityExceeded(CoscoError):
    """There is no daemon, no host for a copy, no memory or no disk for the request."""

    retriable = True


class IncompatibleVersion(CoscoError):
    """Who calls speaks a protocol that the called one does not understand: they are builds too
    far apart."""


class EngineUnavailable(CoscoError, ImportError):
    """An engine is not installed, or of a version that Cosco does not work with."""
