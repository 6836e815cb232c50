"""Rows by a C iterator: those of one block after another, with a step of ours between two.

What happens at each row costs more than the row; so the loop over the rows of a block is the
interpreter's own. `itertools.chain` joins the blocks. It drops its source for good when that
raises, and would seem to have ended when it is asked again. Hence the source is a queue that
never raises, and the step that fills it is an iterator of the chain like the rows of a block, only
without a row: the chain keeps an iterator that has raised, and asks it again.

Another thread that asks meanwhile finds the step, not the chain, at work, and gets an error.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any, Final, NoReturn

_FOREVER: Final = repeat(None)
_END: Final = object()


class RowSteps:
    """The steps of one chain. Holds `reader`, which is in use as long as the chain is."""

    def __init__(self, fill: Callable[[RowSteps], None], reader: object | None = None) -> None:
        """Begin before the first block.

        fill: calls `put` with the rows of the next block, or raises.
        """
        self._fill = fill
        self._reader = reader
        queue: deque[Any] = deque((self._more(),))
        # The iterators that the chain is to give next, or the end.
        self._queue = weakref.ref(queue)
        self._filled_by: int | None = None
        self._rows: Iterator[bytes] | None = chain.from_iterable(iter(queue.popleft, _END))

    def pop_rows(self) -> Iterator[bytes]:
        """Return the chain, once: nothing here holds it then."""
        rows, self._rows = self._rows, None
        assert rows is not None
        return rows

    @property
    def sign(self) -> weakref.ref[Any]:
        """Return a reference that is alive while the chain is, and has not come to its end."""
        return self._queue

    @property
    def is_full(self) -> bool:
        """Whether a thread is on its way from here back to the chain."""
        return bool(self._queue())

    def put(self, rows: Iterator[bytes] | None) -> None:
        """Have the chain go on with `rows`, and ask again after them; None: it ends."""
        queue = self._queue()
        if queue is None:  # another thread came to the end while this one was on its way here
            assert rows is None
            return
        self._filled_by = threading.get_ident()
        queue.extend((_END,) if rows is None else (rows, self._more()))

    def _more(self) -> Iterator[Any]:
        # Not an iterator of Python's, whose `__iter__` could be interrupted where the chain
        # would not ask again.
        return map(self._step, _FOREVER)

    def _step(self, _: None) -> NoReturn:
        """Have the queue filled, and have no row."""
        # If this thread was interrupted on its way back to the chain, it is full.
        if not (self.is_full and self._filled_by == threading.get_ident()):
            self._fill(self)
        raise StopIteration
