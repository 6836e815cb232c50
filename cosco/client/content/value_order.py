"""The order of the values of an ordered dictionary, put together from parts of dictionaries."""

from __future__ import annotations

import heapq
from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np

from cosco.client.content.array_parts import Integers, integers
from cosco.client.content.value_pool import value_ids


class NoOrder(Exception):
    """Dictionaries contradict each other: there is no order that is right for all of them."""


def value_order(parts: Any, *, force: bool = False) -> tuple[Integers, Integers]:
    """Put the values of parts of ordered dictionaries in an order that agrees with each of them.

    parts: an array of values with their positions and origins, see `arrow_transport`. force: if
    there is none, order them by their positions.

    Returns: which of `parts` make up the dictionary, and the place in it of each of `parts`.
    Raises: NoOrder.
    """
    positions, origins = integers(parts.field(1)), integers(parts.field(2))
    if not len(parts) or (origins == origins[0]).all():
        return _by(positions)
    ids = value_ids(parts.field(0))
    _, firsts, ids = np.unique(ids, return_index=True, return_inverse=True)
    lowest = np.full(len(firsts), np.iinfo(np.int64).max)
    np.minimum.at(lowest, ids, positions)
    if force or _agree(ids, positions, lowest):
        order, ranks = _by(lowest)
    else:
        order = np.array(_sorted(ids, positions, origins, lowest), np.int64)
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
    return firsts[order], ranks[ids]


def _by(keys: Integers) -> tuple[Integers, Integers]:
    order = np.argsort(keys, kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return order, ranks


def _agree(ids: Integers, positions: Integers, lowest: Integers) -> bool:
    """Whether each value has one position wherever it is met, and no other value has it."""
    return bool((positions == lowest[ids]).all()) and len(np.unique(lowest)) == len(lowest)


def _sorted(ids: Integers, positions: Integers, origins: Integers, lowest: Integers) -> list[int]:
    """Sort values so that each dictionary's own order is kept.

    Raises: NoOrder.
    """
    follows: defaultdict[int, list[int]] = defaultdict(list)
    before = [0] * len(lowest)
    order = np.lexsort((positions, origins))
    for one, other in pairwise(order.tolist()):
        if origins[one] == origins[other]:
            follows[int(ids[one])].append(int(ids[other]))
            before[ids[other]] += 1
    ready = [(int(lowest[value]), value) for value, count in enumerate(before) if not count]
    heapq.heapify(ready)
    done: list[int] = []
    while ready:
        _, value = heapq.heappop(ready)
        done.append(value)
        for other in follows[value]:
            before[other] -= 1
            if not before[other]:
                heapq.heappush(ready, (int(lowest[other]), other))
    if len(done) < len(before):
        raise NoOrder(f"{len(before) - len(done)} values of ordered dictionaries contradict")
    return done
