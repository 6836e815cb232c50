"""What the tasks of a micro-batch compute, apart from how their sums are moved.

An iteration has as many mappers as reducers. A mapper makes NUMBERS numbers and sums them by
key; the sums of a key go to reducer `key % reducers`, which adds those of all mappers up.

Needs numpy and nothing of this package: the programs of the peers import this file as well.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

#: Numbers that one mapper makes.
NUMBERS = 10_000
#: Keys of each reducer.
KEYS = 16
#: The key of a number is its product with this (Knuth's multiplicative hash), without as many
#: low bits, modulo the number of keys: integer arithmetic that SQL can do as well. Numbers are
#: below 2^31.
FACTOR = 2_654_435_761
LOW_BITS = 15
#: Bits of a number that make its value.
VALUE_MASK = 1_023


def map_sums(iteration: int, mapper: int, tasks: int) -> I64:
    """Return a mapper's sums by reducer and by the keys of each: `tasks` × KEYS."""
    numbers = np.arange(NUMBERS, dtype=np.int64) + (iteration * tasks + mapper) * NUMBERS
    keys = ((numbers * FACTOR) >> LOW_BITS) % (tasks * KEYS)
    # In float64, which is exact: they stay far below 2^53.
    sums = np.bincount(keys, weights=numbers & VALUE_MASK, minlength=tasks * KEYS)
    return sums.astype(np.int64).reshape(KEYS, tasks).T.copy()


def exact_sums(iteration: int, tasks: int) -> I64:
    """Return what all reducers must find, computed at once: `tasks` × KEYS."""
    first = iteration * tasks * NUMBERS
    numbers = np.arange(first, first + tasks * NUMBERS, dtype=np.int64)
    sums = np.zeros(tasks * KEYS, dtype=np.int64)
    np.add.at(sums, ((numbers * FACTOR) >> LOW_BITS) % (tasks * KEYS), numbers & VALUE_MASK)
    return np.stack([sums[reducer::tasks] for reducer in range(tasks)])
