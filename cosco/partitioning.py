"""Hash partitioning of Arrow rows: the same partition for a key in every process and run.

Each kind of value is brought to one form before it is hashed, so that equal values have one
hash whatever type carries them: integers of any width, floats of any width (also -0.0 and 0.0,
and every NaN), decimals of any width and scale, points in time and lengths of time of any unit,
dates of both kinds, text and binary of any kind. A dictionary's rows have the hashes of its
values, and an extension type's those of its storage.

Kinds are not compared with each other: 1, 1.0, Decimal(1) and True may go to four partitions, so
both sides of a join cast such a key to one kind. A time with a zone is the instant, and one
without is hashed as if it were in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from cosco.client.argument_checks import whole_number
from cosco.client.content.frames import as_arrow_rows
from cosco.errors import InvalidArgument, InvalidRow
from cosco.protocol.api_limits import INT64, shown_value

U64 = npt.NDArray[np.uint64]

_DAY_S: Final = 86_400
_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
#: A decimal is hashed as the number it is in the fields of these primes, in which a product of
#: two fits 64 bits.
_PRIMES: Final = (2**31 - 1, 2**31 - 19)


def mix64(values: U64) -> U64:
    """Make one step of SplitMix64: every input bit reaches every output bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


#: The hash of a missing value. An integer's was fixed first, and is another.
_NULL: Final = np.uint64(xxhash.xxh3_64_intdigest(b"") ^ 1)
_INTEGER_NULL: Final = mix64(np.zeros(1, np.uint64))[0] ^ np.uint64(1)


def hash_partitions(
    batch: Any, keys: str | Sequence[str], partitions: int
) -> npt.NDArray[np.int64]:
    """Return the partition of each row, by its key columns.

    batch: a RecordBatch or Table, or a frame of pandas, polars or another library that gives
    its rows to Arrow. keys: the name of a column, or of several, in the same order everywhere. Any
    column may be a key but a nested one; nulls are a value of their own.

    Raises: InvalidArgument, with the column and its type if it cannot be a key.
    """
    names = _column_names(keys)
    count = np.uint64(whole_number("partitions", partitions, 1, INT64, ""))
    rows = _arrow_rows(batch, names)
    hashes = np.zeros(rows.num_rows, np.uint64)
    for column in [_key_column(rows, name, batch) for name in names]:
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        hashes = mix64(hashes ^ np.concatenate([_NOTHING, *map(_hash, chunks)]))
    return (hashes % count).astype(np.int64)


_NOTHING: Final = np.zeros(0, np.uint64)


def _column_names(keys: Any) -> list[str]:
    if isinstance(keys, str):
        return [keys]
    if isinstance(keys, set | frozenset):
        raise InvalidArgument(
            "keys are a set, which has another order in every process, and so have the hashes of "
            "several keys: give a list or a tuple"
        )
    is_many = isinstance(keys, Iterable) and not isinstance(keys, bytes)
    names = []
    for name in keys if is_many else [keys]:
        if not isinstance(name, str):
            raise InvalidArgument(
                f"keys are names of columns, one or a sequence of them, not {type(name).__name__}"
            )
        names.append(name)
    if not names:
        raise InvalidArgument("there are no keys: name the columns whose values go together")
    return names


def _arrow_rows(batch: Any, names: list[str]) -> Any:
    try:
        rows = as_arrow_rows(batch, columns=names)
    except InvalidRow as error:
        raise InvalidArgument(str(error)) from error
    if rows is None:
        raise InvalidArgument(
            f"rows are a RecordBatch, a Table or a data frame, not {type(batch).__name__}"
        )
    return rows


def _key_column(rows: Any, name: str, batch: Any) -> Any:
    places = [place for place, column in enumerate(rows.schema.names) if column == name]
    if not places:
        # A frame of pandas was converted as far as its keys.
        is_frame = not hasattr(batch, "schema") and hasattr(batch, "columns")
        names = shown_value(list(batch.columns) if is_frame else rows.schema.names)
        raise InvalidArgument(f"there is no column {name!r}, the columns are {names}")
    if len(places) > 1:
        raise InvalidArgument(
            f"{len(places)} columns are named {name!r}: give the one that is the key another name"
        )
    kind = rows.schema.field(places[0]).type
    if not _is_hashable(kind):
        raise InvalidArgument(
            f"column {name!r} is {kind}, which cannot be a key: keys are columns of plain values, "
            "such as numbers, text, binary, dates and times"
        )
    return rows.column(places[0])


def _is_hashable(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _is_hashable(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _is_hashable(kind.value_type)
    return pa.types.is_null(kind) or _hasher(kind) is not None


def _hash(array: Any) -> U64:
    """Return the hash of each value of an array of a hashable type."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _hash(array.storage)
    if pa.types.is_dictionary(kind):
        return _hash_dictionary(array)
    if pa.types.is_run_end_encoded(kind):
        rows = np.arange(array.offset, array.offset + len(array))
        return _hash(array.values)[np.searchsorted(array.run_ends.to_numpy(), rows, side="right")]
    hasher = _hasher(kind)
    if hasher is None:  # a column of nulls
        return np.full(len(array), _NULL)
    hashes = hasher(array)
    if array.null_count:
        hashes[array.is_null().to_numpy(zero_copy_only=False)] = _null_hash(kind)
    return hashes


def _null_hash(kind: pa.DataType) -> np.uint64:
    if isinstance(kind, pa.BaseExtensionType):
        return _null_hash(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _null_hash(kind.value_type)
    return _INTEGER_NULL if pa.types.is_integer(kind) else _NULL


def _hash_dictionary(array: Any) -> U64:
    """Hash each value of the dictionary once, or only those in use if it has more than rows."""
    values = array.dictionary
    if len(values) > len(array):
        try:
            return _hash(values.take(array.indices))
        except pa.ArrowNotImplementedError:  # views, in some versions of Arrow
            pass
    return _spread(array.indices, _hash(values), _null_hash(array.type))


def _spread(indices: Any, hashes: U64, null: np.uint64) -> U64:
    """Return the hash at each index, and `null` where the index is null."""
    every: U64 = np.append(hashes, null)
    places: npt.NDArray[np.int64] = indices.cast(pa.int64()).fill_null(len(hashes)).to_numpy()
    return every[places]


def _hash_integers(array: Any) -> U64:
    # Integers above 2^63 - 1 have the hashes of negative ones, as they always had. That costs
    # nothing but a little evenness.
    values = _values(array, array.type.to_pandas_dtype())
    return mix64(values.astype(np.int64).view(np.uint64))


def _hash_booleans(array: Any) -> U64:
    return mix64(_values(array.cast(pa.uint8()), np.uint8).astype(np.uint64))


def _hash_floats(array: Any) -> U64:
    with np.errstate(invalid="ignore"):  # of NaNs that signal
        values = _values(array, array.type.to_pandas_dtype()).astype(np.float64) + 0.0
    values[np.isnan(values)] = np.nan
    return mix64(values.view(np.uint64))


def _hash_bytes(array: Any) -> U64:
    """Hash text or binary: each distinct value once, as keys repeat."""
    encoded = array.dictionary_encode()
    try:
        distinct = encoded.dictionary.cast(pa.large_binary()).to_pylist()
    except pa.ArrowNotImplementedError:  # views, in some versions of Arrow
        values = encoded.dictionary.to_pylist()
        distinct = [value.encode() if isinstance(value, str) else value for value in values]
    hashes = np.fromiter(map(xxhash.xxh3_64_intdigest, distinct), np.uint64, len(distinct))
    return _spread(encoded.indices, hashes, _NULL)


def _hash_decimals(array: Any) -> U64:
    """Hash coefficient / 10^scale, computed where that is one number for any scale."""
    bits, count = array.type.bit_width, len(array)
    limbs = _values(array, np.dtype((np.uint32, (bits // 32,)))).reshape(count, bits // 32)
    is_negative = (limbs[:, -1] >> np.uint32(31)).astype(np.uint64)
    hashes = np.zeros(count, np.uint64)
    for prime in _PRIMES:
        modulus = np.uint64(prime)
        rest = np.zeros(count, np.uint64)
        for limb in reversed(range(bits // 32)):
            rest = (rest * np.uint64(2**32 % prime) + limbs[:, limb]) % modulus
        rest += is_negative * np.uint64(-(2**bits) % prime)
        rest = rest % modulus * np.uint64(pow(10, -array.type.scale, prime)) % modulus
        hashes = hashes << np.uint64(32) | rest
    return mix64(hashes)


def _hash_dates(array: Any) -> U64:
    if pa.types.is_date32(array.type):
        days = _values(array, np.int32).astype(np.int64)
    else:
        days = _values(array, np.int64) // (_DAY_S * 1000)
    return _hash_moments(days * _DAY_S, np.zeros(len(array), np.int64))


def _hash_times(array: Any) -> U64:
    """Hash points in time, times of a day or lengths of time, of any unit."""
    per_second = _PER_SECOND[array.type.unit]
    values = _values(array, np.dtype(f"i{array.type.bit_width // 8}")).astype(np.int64)
    seconds = values // per_second
    return _hash_moments(seconds, (values - seconds * per_second) * (10**9 // per_second))


def _hash_moments(seconds: npt.NDArray[np.int64], nanoseconds: npt.NDArray[np.int64]) -> U64:
    return mix64(mix64(seconds.view(np.uint64)) ^ nanoseconds.view(np.uint64))


def _hash_intervals(array: Any) -> U64:
    """Hash months, days and nanoseconds, none of which is a number of another."""
    halves = _values(array, np.dtype((np.uint64, (2,)))).reshape(len(array), 2)
    return mix64(mix64(halves[:, 0]) ^ halves[:, 1])


def _values(array: Any, kind: Any) -> npt.NDArray[Any]:
    """Return the values of a type of fixed width as they lie in memory, anything for nulls."""
    width = np.dtype(kind).itemsize
    if not len(array):
        return np.zeros(0, kind)
    return np.frombuffer(array.buffers()[1], kind, len(array), array.offset * width)


_HASHERS: Final[tuple[tuple[Callable[[Any], bool], Callable[[Any], U64]], ...]] = (
    (pa.types.is_integer, _hash_integers),
    (pa.types.is_string, _hash_bytes),
    (pa.types.is_large_string, _hash_bytes),
    (pa.types.is_string_view, _hash_bytes),
    (pa.types.is_binary, _hash_bytes),
    (pa.types.is_large_binary, _hash_bytes),
    (pa.types.is_binary_view, _hash_bytes),
    (pa.types.is_fixed_size_binary, _hash_bytes),
    (pa.types.is_floating, _hash_floats),
    (pa.types.is_boolean, _hash_booleans),
    (pa.types.is_decimal, _hash_decimals),
    (pa.types.is_date, _hash_dates),
    (pa.types.is_interval, _hash_intervals),
    (pa.types.is_temporal, _hash_times),
)


def _hasher(kind: pa.DataType) -> Callable[[Any], U64] | None:
    return next((hasher for is_kind, hasher in _HASHERS if is_kind(kind)), None)
