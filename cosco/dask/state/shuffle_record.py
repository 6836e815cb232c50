"""`ShuffleRecord`: one shuffle of Dask, as the scheduler's plugin knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from cosco.errors import CoscoError, InvalidArgument

BARRIER: Final = "cosco-barrier-"
TRANSFER: Final = "cosco-transfer-"
#: What a transfer returns that had no rows.
NOTHING: Final = -1
#: How many kinds of rows one shuffle may have: each needs an exchange of its own.
MAX_VARIANTS: Final = 16

TransferKey = tuple[str, int]


def barrier_key(token: str) -> str:
    """Return the key of the barrier of a shuffle."""
    return BARRIER + token


def is_barrier(key: object) -> bool:
    """Whether a task of this key is the barrier of some shuffle."""
    return type(key) is str and key.startswith(BARRIER)


def transfer_key(token: str, mapper: int) -> TransferKey:
    """Return the key of the task that writes one input partition of a shuffle."""
    return (TRANSFER + token, mapper)


def merged(known: pa.Schema, new: pa.Schema) -> pa.Schema | None:
    """Return the schema of rows of both schemas, or None if one exchange cannot have both.

    Where a column has no type, as it had no value, it gets that of the other.
    """
    if known.equals(new):
        return known
    if known.names != new.names:
        return None
    fields = []
    for one, other in zip(known, new, strict=True):
        if pa.types.is_null(one.type):
            fields.append(other)
        elif one.type == other.type or pa.types.is_null(other.type):
            fields.append(one)
        else:
            return None
    return pa.schema(fields, metadata=known.metadata)


@dataclass(slots=True)
class Variant:
    """The rows of a shuffle that have one schema.

    Partitions of a frame need not agree: a column of integers has floats where one is missing, an
    object column may have dates here and texts there. An exchange has one schema, so that rows of
    another one have an exchange of their own; most shuffles have one.
    """

    schema: pa.Schema
    mappers: set[int] = field(default_factory=set)


class ShuffleRecord:
    """Which transfers of a shuffle are done, which have to run again, and what they wrote where.

    A transfer is *owed* from the time when its rows were lost until a run has ended that began
    after that; it is *due* as long as no such run has begun.
    """

    def __init__(self, token: str, mappers: int, partitions: int) -> None:
        """Begin with nothing written."""
        self.token: Final = token
        self.mappers: Final = mappers
        self.partitions: Final = partitions
        self.variants: list[Variant] = []
        #: Whether the barrier has been reached: from then on it need not be waited for again.
        self.is_complete = False
        self.done: set[int] = set()
        self.owed: set[int] = set()
        self.due: set[int] = set()
        #: How often each mapper was called back.
        self.called_back: dict[int, int] = {}

    def begin(self, mapper: int, schema: pa.Schema) -> int:
        """Note that a run of a mapper begins, with rows of this schema.

        Returns: the index of the variant that they belong to.
        Raises: InvalidArgument, if the partitions of the frame have too many schemas.
        """
        self.due.discard(mapper)
        for index, variant in enumerate(self.variants):
            found = merged(variant.schema, schema)
            if found is not None:
                variant.schema = found
                return self._join(mapper, index)
        if len(self.variants) >= MAX_VARIANTS:
            raise InvalidArgument(
                f"the partitions of this frame have more than {MAX_VARIANTS} schemas, of which one"
                f" is {_shown(self.variants[0].schema)} and one {_shown(schema)}: give its columns"
                f" one type with astype, or the right meta"
            )
        self.variants.append(Variant(schema))
        return self._join(mapper, len(self.variants) - 1)

    def begin_empty(self, mapper: int) -> None:
        """Note that a run of a mapper has no rows to write."""
        self.due.discard(mapper)
        self._join(mapper, NOTHING)

    def _join(self, mapper: int, index: int) -> int:
        for other, variant in enumerate(self.variants):
            if other != index:
                variant.mappers.discard(mapper)
        if index != NOTHING:
            self.variants[index].mappers.add(mapper)
        return index

    def variant_of(self, mapper: int) -> int:
        """Return the index of the variant that a mapper's rows belong to, or NOTHING."""
        for index, variant in enumerate(self.variants):
            if mapper in variant.mappers:
                return index
        return NOTHING

    def finish(self, mapper: int) -> bool:
        """Note that a run of a mapper has ended well.

        Returns: False if it began before its rows were lost, so that it has to run once more.
        """
        if mapper in self.due:
            return False
        self.done.add(mapper)
        self.owed.discard(mapper)
        return True

    def owe(self, mappers: Sequence[int]) -> None:
        """Note that rows of these mappers were lost: each has to begin once more."""
        self.owed.update(mappers)
        self.due.update(mappers)
        self.done.difference_update(mappers)
        for mapper in mappers:
            self.called_back[mapper] = self.called_back.get(mapper, 0) + 1

    def check_results(self, results: Sequence[int]) -> None:
        """Compare what the transfers returned with what is known of them.

        Raises: CoscoError, if a mapper's rows are not where its transfer says.
        """
        wrong = [m for m, index in enumerate(results) if index != self.variant_of(m)]
        if len(results) != self.mappers or wrong:
            raise CoscoError(
                f"shuffle {self.token}: mappers {wrong[:10]} of {self.mappers} have written"
                f" elsewhere than their tasks say ({len(results)} results): compute it again",
                mappers=wrong,
            )


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{one.name}: {one.type}" for one in schema)
