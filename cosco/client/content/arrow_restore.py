"""Plain columns made into those of the exchange's schema again; see `arrow_transport`.

A batch whose values do not fit its types (129 categories and codes of 8 bits, more rows than runs
can count, dictionaries whose orders contradict each other) is cut until they do. A table gets
wider codes instead, so that its chunks can be joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cosco.client.content.array_parts import (
    DoesNotFit,
    Integers,
    Mask,
    integer_array,
    integers,
    rebuild,
    validity,
)
from cosco.client.content.arrow_transport import Node, Transport
from cosco.client.content.value_order import NoOrder, value_order
from cosco.client.content.value_pool import ValuePool
from cosco.errors import DataCorrupted

#: A dictionary up to this long goes with every batch that was sent with it: who declared its values
#: finds them there, though no row may use them.
WHOLE_BYTES: Final = 1 << 10
#: What is longer goes whole with a batch that is longer by this factor.
WHOLE_FACTOR: Final = 4

_WIDER: Final = (
    (pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
)


class _Whole(NamedTuple):
    """A dictionary that all batches share."""

    values: Any
    #: The code for each reference to the pool.
    codes: Integers


class Restorer:
    """Makes batches of one transport's plain ones, whose values lie in the same pools."""

    def __init__(
        self, transport: Transport, pools: Sequence[ValuePool], *, whole: bool = False
    ) -> None:
        """Begin.

        whole: every batch gets the whole dictionaries, with codes as wide as they need, where
        that is possible. No plain batch is added to the pools any more.
        """
        self._transport = transport
        self._pools = pools
        self._shares = whole
        self._whole: dict[int, _Whole | None] = {}
        # What is known of the batch that is made now.
        self._plain_bytes = 0
        self._forced = False

    def batches(self, plain: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Yield the rows in as few batches as they fit in.

        Raises: DataCorrupted if a single row does not.
        """
        try:
            batch = self._batch(plain)
        except DoesNotFit:
            rows = plain.num_rows
            if rows > 1:
                yield from self.batches(plain.slice(0, rows // 2))
                yield from self.batches(plain.slice(rows // 2))
                return
            batch = self._single(plain)
        yield batch

    def _single(self, plain: pa.RecordBatch) -> pa.RecordBatch:
        """Return one row, with wider codes if that is what it takes."""
        self._forced = True
        try:
            return self._batch(plain)
        except DoesNotFit as error:
            raise DataCorrupted(f"a row does not fit the types of the exchange: {error}") from error
        finally:
            self._forced = False

    def _batch(self, plain: pa.RecordBatch) -> pa.RecordBatch:
        schema = self._transport.schema
        if self._transport.is_plain:
            return plain
        self._plain_bytes = self._transport.plain_bytes(plain)
        columns = [
            self._column(node, column)
            for node, column in zip(self._transport.columns, plain.columns, strict=True)
        ]
        for index, column in enumerate(columns):
            if column.type != schema.field(index).type:
                schema = schema.set(index, schema.field(index).with_type(column.type))
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _column(self, node: Node, array: Any) -> Any:
        kind = node.kind
        if node.is_plain:
            return array
        if isinstance(kind, pa.BaseExtensionType):
            return kind.wrap_array(self._column(node.children[0], array))
        if isinstance(kind, pa.DictionaryType):
            return self._dictionary(node, array)
        if isinstance(kind, pa.RunEndEncodedType):
            return self._runs(node, array)
        if not node.children:
            return array.cast(kind)
        return rebuild(array, kind, lambda index, child: self._column(node.children[index], child))

    def _dictionary(self, node: Node, array: Any) -> Any:
        assert node.pool is not None
        pool = self._pools[node.pool]
        whole = self._whole_of(node, pool) if self._shares else None
        if whole is not None:
            return self._coded(node, translated(array, whole.codes), whole.values)
        every, canonical = pool.values(), pool.canonical()
        is_short = pool.values_bytes() <= max(WHOLE_BYTES, self._plain_bytes // WHOLE_FACTOR)
        if is_short and len(every) <= _limit(node.kind.index_type) + 1 and not self._shares:
            with suppress(DoesNotFit):  # by what no row here may use
                values, ranks = self._ordered(node, every, force=False)
                index = self._index_type(node, len(values), pool)
                codes = translated(array, ranks[canonical].astype(index.to_pandas_dtype()))
                return self._coded(node, codes, values)
        places, valid = chosen_places(array, canonical)
        every, places = used_values(every, places, valid)
        values, ranks = self._ordered(node, every, force=self._forced)
        dtype = self._index_type(node, len(values), pool).to_pandas_dtype()
        if len(ranks):
            places = ranks[places]
        return self._coded(node, integer_array(places.astype(dtype), valid), values)

    def _coded(self, node: Node, codes: Any, values: Any) -> Any:
        return pa.DictionaryArray.from_arrays(codes, values, ordered=node.kind.ordered, safe=False)

    def _ordered(self, node: Node, every: Any, *, force: bool) -> tuple[Any, Integers]:
        """Return the dictionary that pooled values make up, and the place of each in it.

        Raises: DoesNotFit if ordered ones contradict each other.
        """
        inside = node.children[0]
        if not node.is_ordered:
            return self._column(inside, every), np.arange(len(every))
        try:
            chosen, ranks = value_order(every, force=force)
        except NoOrder as error:
            raise DoesNotFit(str(error)) from error
        values = every.field(0).take(integer_array(chosen))
        return self._column(inside.children[0], values), ranks

    def _whole_of(self, node: Node, pool: ValuePool) -> _Whole | None:
        """Return the dictionary that all batches share; None if there can be none."""
        assert node.pool is not None
        if node.pool not in self._whole:
            found: _Whole | None
            try:
                values, ranks = self._ordered(node, pool.values(), force=False)
                index = self._index_type(node, len(values), pool)
            except DoesNotFit:
                found = None
            else:
                codes = ranks[pool.canonical()].astype(index.to_pandas_dtype())
                found = _Whole(values, codes)
            self._whole[node.pool] = found
        return self._whole[node.pool]

    def _index_type(self, node: Node, count: int, pool: ValuePool) -> pa.DataType:
        """Return the type of the codes of `count` values.

        Raises: DoesNotFit.
        """
        index = node.kind.index_type
        if self._shares and not node.rigid:  # one for all batches
            return _wide(index, len(pool.values()))
        if count <= _limit(index) + 1:
            return index
        if self._forced and not node.rigid:
            return _wide(index, count)
        raise DoesNotFit(f"{count} values of a dictionary with codes of {index}")

    def _runs(self, node: Node, array: Any) -> Any:
        assert node.pool is not None
        pool = self._pools[node.pool]
        kind = node.kind
        places, valid = chosen_places(array, pool.canonical())
        if valid is not None:
            places = np.where(valid, places, -1)
        starts = np.flatnonzero(np.diff(places, prepend=-2))
        ends = np.append(starts[1:], len(places))[: len(starts)]
        if len(places) > _limit(kind.run_end_type):
            raise DoesNotFit(f"{len(places)} items in runs that count by {kind.run_end_type}")
        order = places[starts]
        chosen = integer_array(order.clip(0).astype(np.int64), order >= 0)
        values = self._column(node.children[0], pool.values().take(chosen))
        if values.type != kind.value_type:
            kind = pa.run_end_encoded(kind.run_end_type, values.type)
        counts = integer_array(ends.astype(kind.run_end_type.to_pandas_dtype()))
        return pa.Array.from_buffers(kind, len(places), [None], children=[counts, values])


def translated(array: Any, table: Integers) -> Any:
    """Return an array of what each reference in an array is in `table`."""
    references, valid = integers(array), validity(array)
    if not len(table):  # Arrow's `take` leaves valid zeros below a null list of a fixed size
        none = np.zeros(len(references), bool)
        return integer_array(np.zeros(len(references), table.dtype), none)
    if valid is not None:
        references = np.where(valid, references, 0)
    return integer_array(table.take(references), valid)


def chosen_places(array: Any, canonical: npt.NDArray[np.int32]) -> tuple[Integers, Mask | None]:
    """Return which distinct value each reference in an array means, and which are valid."""
    chosen = translated(array, canonical)
    return integers(chosen), validity(chosen)


def used_values(values: Any, places: Integers, valid: Mask | None) -> tuple[Any, Integers]:
    """Return only those values that are at `places`, in their order, and places among those."""
    chosen = places if valid is None else places[valid]
    used = np.unique(chosen)
    if len(used) == len(values):
        return values, places
    ranks = np.searchsorted(used, places).clip(0, max(0, len(used) - 1))
    return values.take(integer_array(used.astype(np.int64))), ranks


def _limit(index: pa.DataType) -> int:
    return int(np.iinfo(index.to_pandas_dtype()).max)


def _wide(index: pa.DataType, count: int) -> pa.DataType:
    """Return the shortest type of codes, of the sign of `index`, for this many values."""
    kinds = next(kinds for kinds in _WIDER if index in kinds)
    return next(one for one in kinds[kinds.index(index) :] if count <= _limit(one) + 1)
