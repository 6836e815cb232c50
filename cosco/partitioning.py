"""Hash partitioning of Arrow rows: the same partition for a key in every process and run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from cosco.errors import InvalidArgument

_KEY_TYPES = (
    pa.types.is_integer,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
)

U64 = npt.NDArray[np.uint64]


def mix64(values: U64) -> U64:
    """Make one step of SplitMix64: every input bit reaches every output bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _hash_column(column: pa.Array) -> U64:
    if pa.types.is_integer(column.type):
        filled = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
        hashes = mix64(filled.astype(np.int64).view(np.uint64))
    else:
        # Text repeats: each distinct value is hashed once.
        text = column.cast(pa.large_string())
        encoded = pc.dictionary_encode(pc.fill_null(text, ""))
        distinct = [xxhash.xxh3_64_intdigest(v.encode()) for v in encoded.dictionary.to_pylist()]
        hashes = np.array(distinct, dtype=np.uint64)[encoded.indices.to_numpy()]
    if column.null_count:
        hashes = hashes ^ np.where(pc.is_null(column).to_numpy(zero_copy_only=False), 1, 0).astype(
            np.uint64
        )
    return hashes


def hash_partitions(
    batch: pa.RecordBatch, keys: Sequence[str], partitions: int
) -> npt.NDArray[np.int64]:
    """Return the partition of each row, by its key columns.

    Keys are integers or text, nulls allowed.

    Raises: InvalidArgument for another type.
    """
    hashes = np.zeros(batch.num_rows, dtype=np.uint64)
    for key in keys:
        column_type = batch.schema.field(key).type
        if not any(is_type(column_type) for is_type in _KEY_TYPES):
            raise InvalidArgument(
                f"column {key!r} is {column_type}: keys are integers or text, cast it to one"
            )
        hashes = mix64(hashes ^ _hash_column(batch.column(key)))
    return (hashes % np.uint64(partitions)).astype(np.int64)
