"""The mappers of an exchange: which were opened, and which attempt of each committed."""

from __future__ import annotations

import hmac
import struct
from typing import Final

import numpy as np
from pyroaring import BitMap

from cosco.errors import CapacityExceeded, InvalidArgument
from cosco.metadata.state.records.changes import ChangeLog, Row
from cosco.protocol.api_limits import MAX_MAPPER, check_mapper
from cosco.protocol.records import FIRST_OWN_ATTEMPT, U32, U64

#: An attempt id is how many were opened with it, and these bits, which nobody can guess: who
#: commits was told the id when the attempt was opened. All of it is below FIRST_OWN_ATTEMPT.
_PROOF_BITS: Final = 36
_PROOF_BYTES: Final = 8
_MAX_COUNT: Final = (FIRST_OWN_ATTEMPT >> _PROOF_BITS) - 1
_ABOUT: Final = struct.Struct(">QIQ")


class Attempts:
    """One committed attempt a mapper, in the present generation; changed rows are named.

    Restored mappers are given to `restore` after `generation` is set.
    """

    def __init__(
        self, number: int, changes: ChangeLog, mappers: int = 0, secret: bytes = b""
    ) -> None:
        """`mappers`: how many there are, if the driver has said; 0: any number.

        secret: what ids cannot be guessed without; empty: they count up.
        """
        self.generation = 1
        #: Mappers there can be, with ids from 0 on.
        self.mappers = mappers or MAX_MAPPER + 1
        #: Whether writers may make attempt ids themselves, as those of groups do.
        self.own_ids = False
        #: How many attempts were opened.
        self.count = 0
        #: How many of these, the first ones, have their count for an id.
        self.plain = 0
        self._secret = secret
        self.opened = BitMap()
        #: mapper → its committed attempt
        self.committed: dict[int, int] = {}
        self.committed_mappers = BitMap()
        #: Mappers whose counted attempt has committed twice, and said two different things.
        self.contradicted = BitMap()
        #: mapper → the digest of its committed attempt's commit
        self._digests: dict[int, bytes] = {}
        self._table: tuple[U32, U64] | None = None
        self._number = number
        self._changes = changes

    def open(self, mapper: int | None) -> tuple[int, int]:
        """Begin an attempt of a mapper; None: of the lowest mapper that was never opened.

        Returns: the mapper and its attempt.

        Raises InvalidArgument for a mapper out of its range, and for None if every one was opened;
        CapacityExceeded.
        """
        if mapper is None:
            mapper = self._lowest_unopened()
            if mapper >= self.mappers:
                raise InvalidArgument(
                    f"each of the {self.mappers} mappers was opened: name the one that runs again"
                )
        check_mapper(mapper, self.mappers)
        if self.count == _MAX_COUNT:
            raise CapacityExceeded(
                f"{_MAX_COUNT} attempts of this exchange were opened, as many as it can have"
            )
        self.count += 1
        if mapper not in self.opened:
            self.opened.add(mapper)
            self._put(mapper)
        return mapper, self._id(mapper, self.count)

    def table(self) -> tuple[U32, U64]:
        """Return the committed mappers, ascending, and the attempt of each, only to be read."""
        if self._table is None:
            mappers = np.array(self.committed_mappers.to_array(), dtype=np.uint32)
            attempts = map(self.committed.__getitem__, self.committed_mappers)
            self._table = mappers, np.fromiter(attempts, np.uint64, count=len(mappers))
        return self._table

    def was_opened(self, mapper: int, attempt: int) -> bool:
        """Whether there can be such an attempt; ids that writers of groups make themselves are
        not known beforehand."""
        if attempt >= FIRST_OWN_ATTEMPT:
            return self.own_ids
        if mapper not in self.opened or not attempt:
            return False
        count = attempt >> _PROOF_BITS if self._secret else attempt
        is_right = 1 <= count <= self.count and attempt == self._id(mapper, count)
        return is_right or attempt <= self.plain

    def _id(self, mapper: int, count: int) -> int:
        if not self._secret:
            return count
        about = _ABOUT.pack(self._number, mapper, count)
        proof = int.from_bytes(hmac.digest(self._secret, about, "sha256")[:_PROOF_BYTES], "big")
        return count << _PROOF_BITS | proof >> 8 * _PROOF_BYTES - _PROOF_BITS

    def commit(self, mapper: int, attempt: int, digest: bytes) -> None:
        """Take the first commit of a mapper; `digest` is of what it says."""
        self._set_committed(mapper, attempt, digest)
        self.opened.add(mapper)  # a writer may have made its attempt id itself
        self._put(mapper)

    def digest(self, mapper: int, attempt: int) -> bytes | None:
        """Return the digest of what the committed attempt of a mapper said; None: it is another
        attempt."""
        return self._digests[mapper] if self.committed.get(mapper) == attempt else None

    def contradict(self, mapper: int) -> bool:
        """Note that an attempt of a committed mapper has said two different things.

        Returns: whether that was not known.
        """
        if mapper in self.contradicted:
            return False
        self.contradicted.add(mapper)
        self._put(mapper)
        return True

    def begin_generation(self) -> None:
        """Forget what is committed; who was opened stays so."""
        self.generation += 1
        self.committed.clear()
        self.committed_mappers.clear()
        self.contradicted.clear()
        self._digests.clear()
        self._table = None

    def restore(
        self, mapper: int, attempt: int | None, generation: int, digest: bytes, contradicted: int
    ) -> None:
        self.opened.add(mapper)
        if attempt is not None and generation == self.generation:
            self._set_committed(mapper, attempt, digest)
            if contradicted:
                self.contradicted.add(mapper)

    def _set_committed(self, mapper: int, attempt: int, digest: bytes) -> None:
        self.committed[mapper] = attempt
        self._digests[mapper] = digest
        self.committed_mappers.add(mapper)
        self._table = None

    def _lowest_unopened(self) -> int:
        # The lowest id has as many ids below it as are opened below it: bisect by rank.
        low, high = 0, MAX_MAPPER + 1
        while low < high:
            middle = (low + high) // 2
            if self.opened.rank(middle) == middle + 1:
                low = middle + 1
            else:
                high = middle
        return low

    def _put(self, mapper: int) -> None:
        # Rows carry their generation, so that a new one need not rewrite all of them.
        def row() -> Row:
            digest = self._digests.get(mapper, b"")
            contradicted = mapper in self.contradicted
            return self.committed.get(mapper), self.generation, digest, contradicted

        self._changes.put("mappers", (self._number, mapper), row)
